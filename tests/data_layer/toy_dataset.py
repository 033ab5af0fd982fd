"""A dataset of arrays in memory, for laws that need many datasets."""

from __future__ import annotations

import numpy as np

from stable_worldmodel.data import Dataset
from stable_worldmodel.data.columns import Column


class ArrayDataset(Dataset):
    """Columns given as arrays over all rows; `offsets` may place the episodes in any order and leave gaps."""

    def __init__(self, lengths, columns, offsets=None, **kwargs):
        self.arrays = columns
        described = {name: Column.of(values) for name, values in columns.items()}
        super().__init__(lengths, offsets, columns=described, **kwargs)

    def _read_rows(self, name, rows, out):
        return np.take(self.arrays[name], rows, axis=0, out=out, mode="raise" if out is None else "clip")


class WithConstants(ArrayDataset):
    """The same with per-episode constants."""

    def __init__(self, lengths, columns, constants, **kwargs):
        super().__init__(lengths, columns, **kwargs)
        self.constants, self.episode_column_names = constants, [*constants]

    def get_episode_data(self, episodes=None):
        chosen = range(self.num_episodes) if episodes is None else episodes
        return {name: [values[i] for i in chosen] for name, values in self.constants.items()}


def make_columns(rows, seed=0, side=4):
    """Images, actions, a scalar and text of `rows` rows; every value tells its row and the seed."""
    rng = np.random.default_rng(seed)
    text = np.empty(rows, dtype=object)
    text[:] = [f"{seed}/{row}" for row in range(rows)]
    return {
        "pixels": rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8),
        "action": rng.normal(size=(rows, 2)).astype(np.float32),
        "row": np.arange(rows) + 1000 * seed,
        "note": text,
    }


def make_dataset(lengths, seed=0, **kwargs):
    """A dataset of episodes of these lengths, back to back."""
    return ArrayDataset(lengths, make_columns(sum(lengths), seed), **kwargs)
