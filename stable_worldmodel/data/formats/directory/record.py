"""What the journal says about a directory dataset, and how that compares with what lies there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode
from stable_worldmodel.data.formats.shared.stored import Layout
from stable_worldmodel.data.journal import Record, episode_record, look_for, parse_line
from stable_worldmodel.errors import ContractError

_TAIL_BYTES = 1 << 20  # of the journal, which has the line about the last episode in it


@dataclass(frozen=True)
class FileSums:
    """The image files of one column in one episode, each counted once."""

    crcs: tuple[int, ...]
    size: int  # bytes of all
    constant: bool = False  # all rows show the same frame


@dataclass(frozen=True)
class Recorded:
    """What the journal of a dataset says, at one moment. Empty where there is none."""

    header: Record = field(default_factory=dict)
    episodes: int = 0  # as many were committed

    @property
    def metadata(self) -> dict[str, Any]:
        return self.header.get("metadata", {})


@dataclass(frozen=True)
class Losses:
    """What the journal describes and is not there."""

    columns: tuple[str, ...] = ()
    episodes: range = range(0)

    def __bool__(self) -> bool:
        return bool(self.columns or self.episodes)

    def __str__(self) -> str:
        parts = [f"columns {[*self.columns]} were recorded and are not there"] if self.columns else []
        if self.episodes:
            parts.append(f"episodes {self.episodes[0]} to {self.episodes[-1]} were recorded and are not there")
        return "; ".join(parts)


class DirectoryLayout(Layout, Protocol):
    """A layout that a writer can continue."""

    path: Path
    dataset_id: str | None
    logged: list[LoggedEpisode]  # the last episodes of the index
    lost: Losses

    def restore(self, table: Mapping[str, np.ndarray]) -> None:
        """Write what was found damaged anew from `table`, as far as it goes."""
        ...


LayoutType = TypeVar("LayoutType", bound=DirectoryLayout)


def without_losses(layout: LayoutType) -> LayoutType:
    """Return the layout; ContractError when something is lost, because the rest would look like everything."""
    if layout.lost:
        raise ContractError(f"{layout.path}: {layout.lost}; look with data.verify(path), accept it with repair=True")
    return layout


class Recordings:
    """What the journals beside `dataset` say, at one moment: its own, and that of a replacement being written.

    Writers add to the journal last, so what is read before the dataset never promises more than the dataset has.
    """

    def __init__(self, dataset: Path) -> None:
        self._found = look_for(dataset, _read_ends)

    def of(self, dataset_id: str | None) -> Recorded:
        """Return what is said about the dataset with this identity."""
        known = (found for found in self._found if found and found.header.get("dataset_id") == dataset_id)
        return Recorded() if dataset_id is None else next(known, Recorded())


def _read_ends(journal: Path) -> Recorded | None:
    """Read the first line of a journal and the last ones. None when it is damaged."""
    with journal.open("rb") as file:  # one file, should another one be put in its place meanwhile
        header = parse_line(file.readline())
        if header is None or header.get("kind") != "header":
            return None
        file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        records = [record for line in file if (record := parse_line(line))]
    numbers = [record["i"] for record in records if record["kind"] == "episode"]
    return Recorded(header, max(numbers) + 1 if numbers else header["first_episode"])


def find_losses(recorded: Recorded, found: Iterable[str], episodes: int) -> Losses:
    """Compare the columns and the number of episodes that were found with what was recorded."""
    columns = recorded.header.get("columns", {}).keys() - set(found)
    return Losses(tuple(sorted(columns)), range(episodes, max(episodes, recorded.episodes)))


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
