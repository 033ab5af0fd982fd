"""`swm/OGBCube-v0` under the name that older code imports."""

from stable_worldmodel.envs.ogbench.cube_env import CubeEnv

__all__ = ["CubeEnv"]
