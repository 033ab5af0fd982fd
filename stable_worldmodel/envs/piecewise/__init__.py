"""A square cut into zones, each with a drift of its own."""

from stable_worldmodel.envs.piecewise.expert_policy import ExpertPolicy
from stable_worldmodel.envs.piecewise.piecewise_env import PiecewiseEnv

__all__ = ["ExpertPolicy", "PiecewiseEnv"]
