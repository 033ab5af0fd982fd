"""Splits a dataset by episode, so that no window of one part overlaps a window of another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stable_worldmodel.errors import ContractError


def split_episodes(num_episodes: int, fractions: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Return sorted episode indices, int64, for every name in `fractions`.

    The fractions are positive and sum to at most 1; the parts are disjoint, each has at least one episode, and they
    depend on the arguments only. Raises ContractError otherwise. Windows: `ds.windows_of(parts["train"])`.
    """
    total = sum(fractions.values())
    if not fractions or min(fractions.values()) <= 0 or total > 1 + 1e-9:
        raise ContractError(f"fractions {dict(fractions)}: expected positive numbers that sum to at most 1")
    if num_episodes < len(fractions):
        raise ContractError(f"{num_episodes} episodes cannot be split into {len(fractions)} parts")
    ends = np.rint(np.cumsum([*fractions.values()]) * num_episodes).astype(int)
    # No part may be empty: ends rise by at least one, and leave one episode for each part that follows.
    part = np.arange(len(ends))
    ends = np.maximum.accumulate(np.maximum(ends - part, 1)) + part
    ends = np.minimum(ends, num_episodes - part[::-1])
    order = np.random.default_rng(seed).permutation(num_episodes)
    parts = np.split(order[: ends[-1]], ends[:-1])
    return {name: np.sort(part) for name, part in zip(fractions, parts, strict=True)}
