"""The same runs on many machines: an episode is a function of its number, so machines take ranges of numbers.

`World.collect(cluster=...)` and `World.collect(shards=..., shard=...)` are the way in; `merge_shards` joins what they
recorded. Executors say where the work runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.cluster.executors import open_executor
    from stable_worldmodel.cluster.merge import merge_shards
    from stable_worldmodel.cluster.shards import ShardedRun, episodes_of

_LAZY = {
    "ShardedRun": "stable_worldmodel.cluster.shards",
    "episodes_of": "stable_worldmodel.cluster.shards",
    "merge_shards": "stable_worldmodel.cluster.merge",
    "open_executor": "stable_worldmodel.cluster.executors",
}

__all__ = ["ShardedRun", "episodes_of", "merge_shards", "open_executor"]

__getattr__ = lazy_exports(__name__, _LAZY)
