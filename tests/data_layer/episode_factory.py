"""Deterministic episodes for the tests of the data layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def make_episode(k: int, rows: int | None = None, side: int = 16) -> dict[str, Any]:
    """Episode `k`: images, NaN-terminated actions, numbers of several dtypes and shapes, non-ASCII text."""
    rng = np.random.default_rng(k)
    rows = int(rng.integers(6, 30)) if rows is None else rows
    action = rng.normal(size=(rows, 2)).astype(np.float32)
    action[-1] = np.nan
    return {
        "pixels": rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8),
        "action": action,
        "reward": np.r_[np.nan, rng.normal(size=rows - 1)],
        "terminated": np.arange(rows) == rows - 1,
        "step_idx": np.arange(rows),
        "grid": rng.normal(size=(rows, 2, 3)).astype(np.float32),
        "policy": [f"politique-é-{k % 3}"] * rows,
        "seed": np.full(rows, 1000 + k),
    }


def make_goal_episode(k: int, rows: int | None = None, side: int = 16) -> dict[str, Any]:
    """Episode `k` with a goal image: of three, the first keeps it, the second changes it every row and starts with the
    goal of the first, the third goes back and forth between two.
    """
    episode = make_episode(k, rows, side)
    rng, rows = np.random.default_rng(k), len(episode["reward"])
    first = np.random.default_rng(1000 + k // 3).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    images = np.concatenate([first, rng.integers(0, 256, (rows, side, side, 3), dtype=np.uint8)])
    shown = [np.zeros(rows, int), np.arange(rows), rng.integers(0, 2, rows)][k % 3]
    return {**episode, "goal": images[shown]}


def assert_same_episode(found: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    """Equal columns, dtypes and values; NaN equals NaN."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        values = np.asarray(values, dtype=object if isinstance(values, list) else None)
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def assert_same_datasets(one: Path, other: Path) -> None:
    """Equal HDF5 datasets, those in groups included, bit for bit and chunked alike."""
    with h5py.File(one, "r") as left, h5py.File(other, "r") as right:
        a, b = hdf5_datasets(left), hdf5_datasets(right)
        assert a.keys() == b.keys()
        for name in a:
            assert (a[name].dtype, a[name].shape, a[name].chunks) == (b[name].dtype, b[name].shape, b[name].chunks)
            assert a[name][:].tobytes() == b[name][:].tobytes(), name


def hdf5_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All datasets of an HDF5 file by path."""
    found = {}
    file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
    return found
