"""World, the rollout engine, evaluation and recording."""

from stable_worldmodel.pool import EnvPool
from stable_worldmodel.world.comparison import PairedComparison, compare
from stable_worldmodel.world.episode import Episode
from stable_worldmodel.world.results import Results
from stable_worldmodel.world.rollout import Rollout
from stable_worldmodel.world.world import World

__all__ = ["EnvPool", "Episode", "PairedComparison", "Results", "Rollout", "World", "compare"]
