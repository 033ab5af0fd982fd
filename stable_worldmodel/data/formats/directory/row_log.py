"""The log beside a dataset directory: episodes that are committed but not yet in the files of the dataset.

`<name>.log` holds one record per episode: its numbers and texts as raw arrays, and a CRC-32. Appending a record is the
commit of the episode, at a cost that does not depend on the size of the dataset. From time to time, and when it is
closed, the writer folds the log into the dataset's own files and empties it. A record torn by a crash is ignored, and
so are records that were folded already and a log that belongs to another dataset.

Readers load the log as a whole: the writer may empty it under their hands.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_HEAD = struct.Struct("<4sIQ")  # tag, CRC-32 of the body, size of the body
_TAG = b"swmE"
_PARTS_AT_ONCE = 512  # systems take 1024 and more


@dataclass(frozen=True)
class LoggedEpisode:
    """One committed episode: `columns` (rows, ...) of numbers or fixed-width text, and what the format notes of it."""

    i: int
    rows: int
    notes: dict[str, Any]
    columns: dict[str, np.ndarray]


def log_path(dataset: Path) -> Path:
    """Where the log of `dataset` lies."""
    return dataset.with_name(dataset.name + ".log")


def log_content(dataset: Path) -> bytes:
    """What is in the log of `dataset` at this moment."""
    try:
        return log_path(dataset).read_bytes()
    except FileNotFoundError:
        return b""


def logged_episodes(content: bytes | mmap.mmap, dataset_id: str | None, first: int) -> list[LoggedEpisode]:
    """Return the episodes of this dataset in a log from number `first` on, without a gap."""
    return [] if dataset_id is None else list(_parse(content, dataset_id, first))


def _parse(data: bytes | mmap.mmap, dataset_id: str, first: int) -> Iterator[LoggedEpisode]:
    view, start = memoryview(data), 0
    while start + _HEAD.size <= len(view):
        tag, crc, size = _HEAD.unpack_from(view, start)
        body = view[start + _HEAD.size : start + _HEAD.size + size]
        if tag != _TAG or len(body) < size or zlib.crc32(body) != crc:
            return
        start += _HEAD.size + size
        head_size = int.from_bytes(body[:4], "little")
        head = json.loads(bytes(body[4 : 4 + head_size]))
        if head["id"] != dataset_id or head["i"] > first:
            return
        if head["i"] == first:
            first += 1
            yield LoggedEpisode(head["i"], head["rows"], head["notes"], _columns(head, body[4 + head_size :]))


def _columns(head: dict[str, Any], data: memoryview) -> dict[str, np.ndarray]:
    columns, start = {}, 0
    for name, (dtype, shape) in head["columns"].items():
        count = int(np.prod(shape, dtype=np.int64))
        columns[name] = np.frombuffer(data, dtype, count, start).reshape(shape)
        start += columns[name].nbytes
    return columns


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """The memory of an array, (n,) uint8; a copy only where it is not in one piece."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _write(file: io.FileIO, parts: Iterable[Any]) -> None:
    """Write all parts, which joined would take a copy. A full disk takes some of them before it refuses."""
    rest = [memoryview(part) for part in parts if len(part)]
    while rest:
        size = os.writev(file.fileno(), rest[:_PARTS_AT_ONCE]) if hasattr(os, "writev") else file.write(rest[0])
        while rest and size >= len(rest[0]):
            size -= len(rest.pop(0))
        if size:
            rest[0] = rest[0][size:]


def read_log(dataset: Path, dataset_id: str | None, first: int) -> list[LoggedEpisode]:
    """Return what `logged_episodes` finds in the log of `dataset` at this moment."""
    return logged_episodes(log_content(dataset), dataset_id, first)


class RowLog:
    """The writer's end of a log; the caller holds the lock of the dataset. It starts empty."""

    def __init__(self, dataset: Path, dataset_id: str, first: int) -> None:
        self.path = log_path(dataset)
        self.first = first  # number of the first episode in it
        self.size = 0  # episodes in it
        self._dataset, self._id = dataset, dataset_id
        self._file = self.path.open("w+b", buffering=0)  # nothing may wait in memory when the commit returns

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._file.tell()

    def append(self, rows: int, columns: Mapping[str, np.ndarray], notes: dict[str, Any]) -> None:
        """Commit the next episode. After an exception there is no trace of it."""
        head = json.dumps({
            "id": self._id,
            "i": self.first + self.size,
            "rows": rows,
            "notes": notes,
            "columns": {name: [values.dtype.str, values.shape] for name, values in columns.items()},
        }).encode()  # fmt: skip
        parts: list[Any] = [len(head).to_bytes(4, "little"), head, *map(_bytes_of, columns.values())]
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        begin, size = self._file.tell(), self.size
        try:
            _write(self._file, [_HEAD.pack(_TAG, crc, sum(map(len, parts))), *parts])
            self.size += 1
        except BaseException:
            if self.size == size:
                self._file.truncate(begin)
                self._file.seek(begin)
            raise

    def episodes(self, mapped: bool = False) -> list[LoggedEpisode]:
        """What has been appended; with `mapped`, arrays that take no memory and end with the next `restart`."""
        if not mapped or not self.size:
            return read_log(self._dataset, self._id, self.first)
        content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return logged_episodes(content, self._id, self.first)

    def restart(self, first: int) -> None:
        """Empty the log: everything before episode `first` is in the dataset's files."""
        self._file.seek(0)
        self._file.truncate()
        self.first, self.size = first, 0

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)
