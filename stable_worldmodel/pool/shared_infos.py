"""The stacked infos of a process pool, as the parent sees them: arrays that the workers write."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.buffers import ColumnSpec, Layout, as_column, column_shape
from stable_worldmodel.pool.memory import SharedArrays
from stable_worldmodel.pool.worker import Reply


class SharedInfos:
    """Agrees with the workers on one layout, and hands out memory for it.

    A worker that meets a new key, or a float in a column of integers, first keeps it to itself and says so. Then new
    memory is allocated and all workers move there. This happens at a full reset, and rarely later.

    Args:
        num_envs, workers: N envs, of which worker w has w, w + W, w + 2 W …
    """

    def __init__(self, num_envs: int, workers: int):
        self.data: dict[str, Any] = {}  # key -> array (N, T, ...), tensor or list of N
        self.stacked = False  # env values carry the time axis T already; otherwise T = 1 is inserted
        self._num_envs, self._workers = num_envs, workers
        self._memory: SharedArrays | None = None
        self._layout: Layout = {}
        self._layouts: list[Layout] = [{} for _ in range(workers)]
        self._objects: dict[str, list[Any]] = {}  # list columns
        self.is_stale = False  # a worker has something that the memory cannot hold

    @property
    def is_mapped(self) -> bool:
        return self._memory is not None

    def forget(self) -> None:
        """A full reset begins: whatever the workers come up with needs new memory."""
        self.close()
        self._layouts = [{} for _ in range(self._workers)]
        self._objects = {}

    def take(self, w: int, reply: Reply) -> None:
        """Note what worker w says: its layout, if it changed, and its new objects."""
        if reply.layout is not None:
            self._layouts[w] = reply.layout
            self.is_stale = True
        for key, j, value in reply.objects:
            column = self._objects.get(key)
            if column is None:
                column = self._objects[key] = [None] * self._num_envs
            column[w + j * self._workers] = value

    def allocate(self, full: bool) -> tuple[tuple, tuple[int, ...]]:
        """New memory for all that the workers have; the request by which they move there, as `mapping`.

        `full`: forget the old columns instead of going on with the same dictionary.
        """
        layout: Layout = {}
        for w, own in enumerate(self._layouts):
            for key, spec in own.items():
                known = layout.get(key)
                where = f"info key {key!r} of worker {w}, envs {w}, {w + self._workers}, …"
                layout[key] = spec if known is None else known.joined(spec, where)
        self.close()
        self._layout = layout
        self._memory = SharedArrays(self._shapes())
        self._layouts = [layout] * self._workers
        self.is_stale = False
        if full:
            self.data = {}
        for key, spec in layout.items():
            if spec.is_object:
                self.data[key] = self._objects.setdefault(key, [None] * self._num_envs)
            else:
                self.data[key] = as_column(spec, self._memory.arrays[key])
        return self.mapping(keep=False)

    def mapping(self, keep: bool) -> tuple[tuple, tuple[int, ...]]:
        """Arguments and descriptors of a `map` request; `keep`: what the memory holds counts."""
        assert self._memory is not None
        return (self._layout, self._shapes(), keep), (self._memory.descriptor,)

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        return {
            key: (column_shape(spec, self._num_envs, self.stacked), _numpy_dtype(key, spec))
            for key, spec in self._layout.items()
            if not spec.is_object
        }

    def close(self) -> None:
        """Close the descriptor; the arrays stay valid."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def _numpy_dtype(key: str, spec: ColumnSpec) -> np.dtype:
    if not spec.is_tensor:
        return spec.dtype
    try:
        return sys.modules["torch"].empty(0, dtype=spec.dtype).numpy().dtype
    except TypeError as error:
        raise ContractError(f"info key {key!r}: {spec.dtype} cannot be shared between processes") from error
