"""The encoded images and videos of a table: slices of its mapped data files where possible, through pylance otherwise.

Which part of which file a value is, is looked up when the table is opened, see `pages`; for blobs pylance tells it.
"""

from __future__ import annotations

import itertools
import mmap
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.formats.lance.pages import LENGTH_BYTES, value_ranges
from stable_worldmodel.data.formats.lance.tables import Table
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_MAPS = 256  # files mapped at a time; each holds a file descriptor


class Maps:
    """Memory maps of files, `MAX_MAPS` of them at a time. Pickles as paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)
        self._open: OrderedDict[int, memoryview] = OrderedDict()
        for number in range(min(len(self.paths), MAX_MAPS)):
            self[number]  # now: a writer may compact the files away later, and maps keep them

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __getitem__(self, number: int) -> memoryview:
        data = self._open.get(number)
        if data is None:
            data = self._open[number] = _mapped(self.paths[number])
            if len(self._open) > MAX_MAPS:
                self._open.popitem(last=False)
        return data


def _mapped(path: str) -> memoryview:
    try:
        with Path(path).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise ContractError(
            f"{path} is missing; if a writer has replaced the dataset since it was opened, load it again"
        ) from error
    except ValueError as error:
        raise ContractError(f"{path} is empty") from error


class Values:
    """The values of one binary field of a table.

    order: value `i` is in row `order[i]`; default: in row `i`.
    """

    def __init__(self, table: Table, field: str, order: np.ndarray | None = None) -> None:
        self._table, self._field, self._order = table, field, order
        self._prefixed = field not in table.blobs
        self._maps, self._ranges = Maps([]), np.full((table.stored, 3), -1)
        if table.stored and "://" not in table.uri:
            self._maps, self._ranges = _file_ranges(table, field)
            if not self._agrees(table.stored - 1):
                self._ranges[:, 0] = -1

    def get(self, numbers: np.ndarray) -> list[Any]:
        """Return values `numbers` (n,) as bytes or memoryviews. ContractError when a file is missing or damaged."""
        return self._get(numbers if self._order is None else self._order[numbers])

    def _agrees(self, row: int) -> bool:
        """Whether a value is what pylance returns; no when it is damaged."""
        rows = np.array([row])
        try:
            return bytes(self._get(rows)[0]) == bytes(slices(self._table.take([self._field], rows)[self._field])[0])
        except ContractError:
            return False

    def _get(self, rows: np.ndarray) -> list[Any]:
        ranges = np.full((len(rows), 3), -1)  # those of logged rows stay unknown
        stored = rows < len(self._ranges)
        ranges[stored] = self._ranges[rows[stored]]
        out = [self._slice(*place) if place[0] >= 0 else None for place in ranges.tolist()]
        left = np.flatnonzero(ranges[:, 0] < 0)
        if len(left):
            taken = slices(self._table.take([self._field], rows[left])[self._field])
            for i, value in zip(left.tolist(), taken, strict=True):
                out[i] = value
        return out

    def _slice(self, file: int, start: int, end: int) -> memoryview:
        data = self._maps[file]
        if self._prefixed and int.from_bytes(data[start - LENGTH_BYTES : start], "little") != end - start:
            raise ContractError(f"{self._maps.paths[file]} is damaged: a value has another length than its index says")
        return data[start:end]


def slices(column: pa.ChunkedArray | pa.Array) -> list[memoryview]:
    """Return the values of a binary column without copying them."""
    chunks = getattr(column, "chunks", [column])
    return [value for chunk in chunks for value in _slices(chunk)]


def _slices(array: pa.Array) -> list[memoryview]:
    wide = str(array.type).startswith("large")
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets or b"", np.int64 if wide else np.int32)[array.offset :][: len(array) + 1]
    view = memoryview(data or b"").cast("B")  # Arrow says that its bytes are signed
    return [view[start:end] for start, end in itertools.pairwise(bounds.tolist())]


def _file_ranges(table: Table, field: str) -> tuple[Maps, np.ndarray]:
    """Return the data files of a field and, for every row, [file, start, end]; file -1 where only pylance knows."""
    files = table.files(field)
    if not files or not all(Path(file.path).exists() for file in files):
        return Maps([]), np.full((table.stored, 3), -1)
    maps = Maps([file.path for file in files])
    fragments = np.array([file.fragment for file in files])
    address, blobs = table.addresses(field)
    order = np.argsort(fragments)
    number = order[np.searchsorted(fragments[order], address >> np.uint64(32))]
    if blobs is not None:
        beside, starts, sizes = blobs
        return maps, np.stack([np.where(beside, -1, number), starts, starts + sizes], axis=1)
    found = [value_ranges(maps[k], file.column) for k, file in enumerate(files)]
    rows = np.array([file.rows for file in files])
    known = np.array([ranges is not None and len(ranges[0]) == n for ranges, n in zip(found, rows, strict=True)])
    ranges = [pair if ok else (np.zeros(n, int),) * 2 for pair, ok, n in zip(found, known, rows, strict=True)]
    starts, ends = (np.concatenate(part) for part in zip(*ranges, strict=True))
    place = (np.cumsum(rows) - rows)[number] + (address & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return maps, np.stack([np.where(known[number], number, -1), starts[place], ends[place]], axis=1)
