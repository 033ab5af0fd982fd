"""Gaussian noise as a function of a key, so that no plan depends on which envs are solved beside it."""

from __future__ import annotations

import numpy as np
import torch


def stream_seeds(seed: int, keys: np.ndarray) -> np.ndarray:
    """One 64-bit seed (n,) per row of the integer `keys` (n, k), mixed with the solver's own seed."""
    words = np.column_stack([np.full(len(keys), seed), keys]).astype(np.int64).view(np.uint32)
    return np.array([np.random.SeedSequence(row).generate_state(1, np.uint64)[0] for row in words], np.uint64)


def normal(seeds: np.ndarray, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Standard normal noise (n, *shape) of the dtype and device of `like`; row i is a function of `seeds[i]` only."""
    noise = like.new_empty(len(seeds), *shape)
    generator = torch.Generator(like.device)
    for row, seed in zip(noise, seeds.tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(seed))
    return noise
