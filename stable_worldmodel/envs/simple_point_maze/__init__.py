"""A disc among a few rectangular walls."""

from stable_worldmodel.envs.simple_point_maze.env import SimplePointMazeEnv, SimplePointMazeVectorEnv
from stable_worldmodel.envs.simple_point_maze.expert import ExpertPolicy

__all__ = ["ExpertPolicy", "SimplePointMazeEnv", "SimplePointMazeVectorEnv"]
