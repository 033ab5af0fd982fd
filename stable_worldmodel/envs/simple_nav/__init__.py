"""A perfect maze with one goal square."""

from stable_worldmodel.envs.simple_nav.env import SimpleNavigationEnv
from stable_worldmodel.envs.simple_nav.expert import ExpertPolicy

__all__ = ["ExpertPolicy", "SimpleNavigationEnv"]
