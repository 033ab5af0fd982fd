"""Many envs as one: in this process, or in worker processes."""

from stable_worldmodel.pool.base import Pool
from stable_worldmodel.pool.choice import BACKENDS, make_pool
from stable_worldmodel.pool.process import TIMEOUT, ProcessPool
from stable_worldmodel.pool.sync import EnvPool
from stable_worldmodel.pool.vector import VectorPool

__all__ = ["BACKENDS", "TIMEOUT", "EnvPool", "Pool", "ProcessPool", "VectorPool", "make_pool"]
