"""The journal's line about an episode of a directory dataset, made from what is written or from what lies there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode
from stable_worldmodel.data.formats.shared.stored import Layout
from stable_worldmodel.data.journal import Record, episode_record


@dataclass(frozen=True)
class FileSums:
    """The image files of one column in one episode, each counted once."""

    crcs: tuple[int, ...]
    size: int  # bytes of all
    constant: bool = False  # all rows show the same frame


class DirectoryLayout(Layout, Protocol):
    """A layout that a writer can continue."""

    dataset_id: str | None
    logged: list[LoggedEpisode]  # the last episodes of the index

    def restore(self, table: Mapping[str, np.ndarray]) -> None:
        """Write what was found damaged anew from `table`, as far as it goes."""
        ...


def record_of(i: int, rows: int, table: Mapping[str, np.ndarray], files: Mapping[str, FileSums]) -> Record:
    """Describe episode `i`. The checksum of an image column is that of the checksums of its files."""
    stored = {name: _plain(values) for name, values in table.items()}
    sums = {name: np.array(file.crcs, dtype="<u4") for name, file in files.items()}
    size = sum(values.nbytes for values in stored.values()) + sum(file.size for file in files.values())
    return {**episode_record(i, {**stored, **sums}), "len": rows, "bytes": size}


def stored_record(layout: Layout, table: Mapping[str, np.ndarray], i: int) -> Record:
    """Describe episode `i` as it lies on disk; `table` has the numbers and texts of all rows. May raise OSError."""
    rows = layout.index.rows_of(i)
    files = {}
    for name, frames in layout.frames.items():
        contents = [path.read_bytes() for path in frames.files(rows)]
        files[name] = FileSums(tuple(map(zlib.crc32, contents)), sum(map(len, contents)))
    return record_of(i, len(rows), {name: values[rows] for name, values in table.items()}, files)


def _plain(values: np.ndarray) -> np.ndarray:
    """Text as bytes that do not depend on the width it is stored with; numbers as they are."""
    return np.frombuffer("\0".join(values).encode(), np.uint8) if values.dtype.kind in "OU" else values
