"""Start and goal pairs from recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError


@dataclass(frozen=True)
class Pairs:
    """Item i starts at row `starts[i]` of episode `episodes[i]`."""

    episodes: list[int]
    starts: list[int]

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, items: slice) -> Pairs:
        return Pairs(self.episodes[items], self.starts[items])


def sample_pairs(lengths: Any, episodes: Sequence[int] | np.ndarray, count: int, goal_offset: int, seed: int) -> Pairs:
    """`count` starts in `episodes`: each episode once before any is used again, its start uniform.

    Args:
        lengths: rows of every episode of the dataset, int (E,).
        episodes: numbers of those to choose from.
        goal_offset: rows from a start to its goal.

    Raises ContractError if none of the episodes is long enough.
    """
    lengths, episodes = np.asarray(lengths), np.asarray(episodes, np.int64)
    usable = episodes[lengths[episodes] > goal_offset]
    if len(usable) == 0:
        raise ContractError(
            f"none of the {len(episodes)} episodes to start from is longer than goal_offset={goal_offset} rows; "
            "record more or longer episodes, or set the goals nearer"
        )
    rng = np.random.default_rng([seed, 1])
    rounds = -(-count // len(usable))
    chosen = np.concatenate([rng.permutation(usable) for _ in range(rounds)])[:count]
    return Pairs(chosen.tolist(), rng.integers(0, lengths[chosen] - goal_offset).tolist())
