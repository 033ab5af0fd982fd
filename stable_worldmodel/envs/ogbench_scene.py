"""`swm/OGBScene-v0` under the name that older code imports."""

from stable_worldmodel.envs.ogbench.scene_env import SceneEnv

__all__ = ["SceneEnv"]
