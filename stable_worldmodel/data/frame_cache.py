"""Decoded rows of one column in memory, filled as they are first read."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np

from stable_worldmodel.data.columns import Column


class FrameCache:
    """Rows (n, *shape) of a column, fetched once, `block` rows at a time.

    The memory is shared with processes forked later: they neither copy nor fetch again what is there. A pickled cache
    arrives empty.
    """

    def __init__(self, column: Column, rows: int, block: int) -> None:
        self._made_from = (column, rows, block)
        self._block, self._rows = block, rows
        values = rows * column.row_bytes // column.dtype.itemsize
        memory = mmap.mmap(-1, max(rows * column.row_bytes, 1))
        self._data = np.frombuffer(memory, column.dtype, count=values).reshape(rows, *column.shape)
        self._filled = np.frombuffer(mmap.mmap(-1, rows // block + 1), dtype=bool)

    def __reduce__(self) -> tuple[type[FrameCache], tuple[Column, int, int]]:
        return FrameCache, self._made_from

    def read(
        self, rows: np.ndarray, fetch: Callable[[np.ndarray], np.ndarray], out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return `rows` (n,) in any order, in `out` when given; `fetch(rows)` reads what is not here yet."""
        blocks = rows // self._block
        for i in np.unique(blocks[~self._filled[blocks]]).tolist():
            start, stop = i * self._block, min((i + 1) * self._block, self._rows)
            self._data[start:stop] = fetch(np.arange(start, stop))
            self._filled[i] = True  # only now: another process may be reading
        return np.take(self._data, rows, axis=0, out=out, mode="raise" if out is None else "clip")
