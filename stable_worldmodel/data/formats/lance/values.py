"""Encoded images and videos by row: byte ranges of mapped files where the layout allows it, pylance otherwise.

In a Lance file, large binary values lie one after another, each after its length, and an index says where each one
begins. Reading them is then slicing a memory map: no copy, no lock, and safe in forked processes, where pylance is
not. Ranges are checked against the lengths in front of the values, and once per column against what pylance returns.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stable_worldmodel.data.formats.lance.tables import DataFile, Table

if TYPE_CHECKING:
    import pyarrow as pa

MAX_MAPS = 256  # files mapped at a time; each holds a file descriptor
FOOTER = struct.Struct("<QQQIIHH4s")  # positions of metadata and its table, ..., number of columns, version, magic
PAGE_LAYOUT = b"/lance.encodings21.PageLayout"


class Values(Protocol):
    """The values of a binary column."""

    def get(self, rows: np.ndarray) -> list[Any]:
        """Return the values of ascending, distinct rows, bytes or memoryviews."""
        ...


class Maps:
    """Memory maps of files, the latest `MAX_MAPS` of them open. Pickles as paths."""

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
            try:
                with Path(self.paths[number]).open("rb") as file:
                    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except FileNotFoundError as error:
                raise RuntimeError(
                    f"{self.paths[number]} was compacted or replaced since the dataset was opened; load it again"
                ) from error
            self._open[number] = data
            if len(self._open) > MAX_MAPS:
                self._open.popitem(last=False)
        return data


class TakenValues:
    """Values through pylance: remote tables and layouts that cannot be mapped."""

    def __init__(self, table: Table, name: str) -> None:
        self._table, self._name = table, name

    def get(self, rows: np.ndarray) -> list[memoryview]:
        return slices(self._table.take(self._name, rows)) if len(rows) else []


class MappedValues:
    """Values at known byte ranges of files; through pylance in files whose layout has none.

    The ranges of a file are looked up when it is first needed.
    """

    def __init__(self, table: Table, name: str, maps: Maps, files: Sequence[DataFile]) -> None:
        self._taken = TakenValues(table, name)
        self._maps, self._name = maps, name
        self._columns = [file.columns.get(name, -1) for file in files]
        self._rows = [file.rows for file in files]
        self._first = np.cumsum([0, *self._rows])
        self._fragments = {file.fragment: number for number, file in enumerate(files)}
        self._addresses = table.addresses()
        self._ranges: dict[int, tuple[np.ndarray, np.ndarray] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ranges": {}}

    def get(self, rows: np.ndarray) -> list[memoryview]:
        numbers, positions = self._locate(rows)
        out: list[Any] = []
        for number, position in zip(numbers.tolist(), positions.tolist(), strict=True):
            ranges = self._ranges_in(number)
            out.append(ranges and self._maps[number][ranges[0][position] : ranges[1][position]])
        left = [i for i, value in enumerate(out) if value is None]
        for i, value in zip(left, self._taken.get(rows[left]), strict=True):
            out[i] = value
        return out

    def agrees(self, row: int) -> bool:
        """Whether the value of a row is what pylance returns."""
        rows = np.array([row])
        return bytes(self.get(rows)[0]) == bytes(self._taken.get(rows)[0])

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the file and the position in it of each row."""
        if self._addresses is None:
            numbers = np.searchsorted(self._first, rows, side="right") - 1
            return numbers, rows - self._first[numbers]
        addresses = self._addresses[rows]
        numbers = np.array([self._fragments[fragment] for fragment in (addresses >> np.uint64(32)).tolist()], np.int64)
        return numbers, (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def _ranges_in(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        if number not in self._ranges:
            found = value_ranges(self._maps[number], self._columns[number])
            self._ranges[number] = found if found and len(found[0]) == self._rows[number] else None
        return self._ranges[number]


class ArrowValues:
    """Values in memory, one array per episode."""

    def __init__(self, arrays: Sequence[pa.Array]) -> None:
        self._arrays = list(arrays)
        self._values: list[memoryview] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None}

    def get(self, rows: np.ndarray) -> list[memoryview]:
        if self._values is None:
            self._values = [value for array in self._arrays for value in slices(array)]
        return [self._values[row] for row in rows.tolist()]


class JoinedValues:
    """Rows below `split` from one place, the others from another."""

    def __init__(self, first: Values, split: int, rest: Values) -> None:
        self._first, self._split, self._rest = first, split, rest

    def get(self, rows: np.ndarray) -> list[Any]:
        cut = int(np.searchsorted(rows, self._split))
        return [*self._first.get(rows[:cut]), *self._rest.get(rows[cut:] - self._split)]


class MappedBlobs:
    """Values of a blob column, at byte ranges of data files."""

    def __init__(self, maps: Maps, files: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        self._maps, self._files, self._starts, self._ends = maps, files, starts, starts + sizes

    def get(self, rows: np.ndarray) -> list[memoryview]:
        places = zip(*(part[rows].tolist() for part in (self._files, self._starts, self._ends)), strict=True)
        return [self._maps[number][start:end] for number, start, end in places]


class ReadBlobs:
    """Values of a blob column through pylance."""

    def __init__(self, table: Table, name: str) -> None:
        self._table, self._name = table, name

    def get(self, rows: np.ndarray) -> list[bytes]:
        return self._table.blobs(self._name, rows.tolist()) if len(rows) else []


class ReorderedValues:
    """Value `order[i]` of other values as value i."""

    def __init__(self, values: Values, order: np.ndarray) -> None:
        self._values, self._order = values, order

    def get(self, rows: np.ndarray) -> list[Any]:
        return self._values.get(self._order[rows])


def slices(array: pa.Array) -> list[memoryview]:
    """Return the values of a binary array without copying them."""
    wide = str(array.type).startswith("large")
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64 if wide else np.int32)[array.offset : array.offset + len(array) + 1]
    view = memoryview(data or b"")
    return [view[start:end] for start, end in itertools.pairwise(bounds.tolist())]


def values_of(table: Table, name: str, maps: Maps | None, files: Sequence[DataFile]) -> Values:
    """The values of a binary column: mapped for local tables, whose `maps` and `files` are given."""
    if maps is None or not table.rows or len({file.fragment for file in files}) < len(files):
        return TakenValues(table, name)
    mapped = MappedValues(table, name, maps, files)
    return mapped if mapped.agrees(table.rows - 1) else TakenValues(table, name)


def blob_values(table: Table, name: str, maps: Maps | None, files: Sequence[DataFile]) -> Values:
    """The values of a blob column: mapped if they all lie in the data files of a local table."""
    read = ReadBlobs(table, name)
    if maps is None or not table.rows:
        return read
    fragments = {file.fragment: number for number, file in enumerate(files) if name in file.columns}
    found = table.descriptions(name)
    if found is None:
        return read
    addresses, starts, sizes = found
    numbers = np.array([fragments[fragment] for fragment in (addresses >> np.uint64(32)).tolist()], dtype=np.int64)
    mapped, last = MappedBlobs(maps, numbers, starts, sizes), np.array([table.rows - 1])
    return mapped if bytes(mapped.get(last)[0]) == read.get(last)[0] else read


# -- the file format --------------------------------------------------------------------------------------------------


def value_ranges(data: memoryview, column: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return where each value of a binary column begins and ends in the file, int64 (rows,).

    None when values are not stored plainly: compressed, nullable, in blocks, as a dictionary; or the file is damaged.
    """
    try:
        return _value_ranges(data, column)
    except (struct.error, IndexError, ValueError, KeyError, OverflowError):
        return None


def _value_ranges(data: memoryview, column: int) -> tuple[np.ndarray, np.ndarray] | None:
    _, table, _, _, columns, _, _, magic = FOOTER.unpack(data[-FOOTER.size :])
    if magic != b"LANC" or not 0 <= column < columns:
        return None
    position, size = struct.unpack_from("<QQ", data, table + 16 * column)
    starts, ends = [], []
    for tag, page in _fields(data[position : position + size]):
        if tag != 2:
            continue
        ranges = _page_ranges(data, dict(_fields(page)))
        if ranges is None:
            return None
        starts.append(ranges[0])
        ends.append(ranges[1])
    return (np.concatenate(starts), np.concatenate(ends)) if starts else None


def _page_ranges(data: memoryview, page: dict[int, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """The ranges of a page whose values follow each other, each after its length (u32)."""
    if not _is_plain(page[4]):
        return None
    (values, index), (values_size, index_size), rows = _varints(page[1]), _varints(page[2]), page[3]
    width = index_size // (rows + 1)
    if (
        width not in (1, 2, 4, 8)
        or index_size % (rows + 1)
        or max(values + values_size, index + index_size) > len(data)
    ):
        return None
    offsets = np.frombuffer(data, f"<u{width}", rows + 1, index).astype(np.int64)
    starts, ends = values + offsets[:-1] + 4, values + offsets[1:]
    if offsets[0] != 0 or offsets[-1] != values_size or (ends < starts).any():
        return None
    bytes_of_length = np.frombuffer(data, np.uint8)[(starts - 4)[:, None] + np.arange(4)]
    lengths = np.ascontiguousarray(bytes_of_length).view("<u4")[:, 0]
    return (starts, ends) if np.array_equal(lengths, ends - starts) else None


def _is_plain(encoding: memoryview) -> bool:
    """Whether an encoding is: full-zip layout, no repetition or definition levels, variable width, uncompressed."""
    direct = dict(_fields(encoding)).get(2)
    if direct is None:
        return False
    any_ = dict(_fields(dict(_fields(direct))[1]))
    layout = dict(_fields(any_[2])).get(3) if bytes(any_[1]) == PAGE_LAYOUT else None
    if layout is None:
        return False
    full_zip = dict(_fields(layout))
    if full_zip.get(1, 0) or full_zip.get(2, 0) or full_zip.get(4) != 32:
        return False
    variable = dict(_fields(full_zip[7])).get(2)
    return variable is not None and dict(_fields(variable)).get(2) is None


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of a protobuf message: integers, or the bytes of strings and messages."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif key & 7 == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("a message ends too early")
            yield key >> 3, message[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {key & 7}")


def _varints(packed: memoryview) -> list[int]:
    out, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        out.append(value)
    return out


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
