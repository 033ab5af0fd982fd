"""Deterministic episodes for the tests of the data layer."""

from __future__ import annotations

from typing import Any

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


def assert_same_episode(found: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    """Equal columns, dtypes and values; NaN equals NaN."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        values = np.asarray(values, dtype=object if isinstance(values, list) else None)
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)
