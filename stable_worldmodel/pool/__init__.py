"""Many envs as one."""

from stable_worldmodel.pool.sync import EnvPool

__all__ = ["EnvPool"]
