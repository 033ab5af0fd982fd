"""How one column lies in an HDF5 file: row by row, or each image once.

Most columns are a root dataset with one entry per row. A column of images that rarely change, like the goal of an
episode, is a group of its name instead: `frames` holds the images, `row` (rows,) int64 the frame that each row shows.
Within an episode a frame equal to the one before is not stored again; an episode never refers to the frames of
another, so that what it puts into the file depends on nothing but itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import h5py

UNIQUE_COLUMNS = ("goal", "goal.*", "goal_*")  # names and patterns of what a new file holds in this way, if images
FRAMES, ROW = "frames", "row"  # what is in the group of such a column; a `/` is never part of a column's name


@dataclass(frozen=True)
class StoredColumn:
    """A column in an open file. Row `i` is entry `i`, or entry `shown[i]` where images are stored once."""

    name: str
    column: Column
    entries: h5py.Dataset
    shown: h5py.Dataset | None = None

    @property
    def datasets(self) -> dict[str, h5py.Dataset]:
        """What the column consists of, by path in the file."""
        if self.shown is None:
            return {self.name: self.entries}
        return {f"{self.name}/{FRAMES}": self.entries, f"{self.name}/{ROW}": self.shown}

    @property
    def entries_path(self) -> str:
        return next(iter(self.datasets))

    def entries_of(self, rows: int) -> np.ndarray:
        """Return the entry that each of the first `rows` rows shows, int64 (rows,)."""
        return np.arange(rows) if self.shown is None else self.shown[:rows].astype(np.int64, copy=False)

    def readable_rows(self) -> int:
        """Return the number of rows before the first one that is not there or shows no stored frame."""
        if self.shown is None:
            return len(self.entries)
        shown = self.shown[:]
        wrong = (shown < 0) | (shown >= len(self.entries))
        return int(np.argmax(wrong)) if wrong.any() else len(shown)

    def sizes(self, rows: int) -> dict[str, int]:
        """Return how long each of the datasets is when there are `rows` rows and no more."""
        if self.shown is None:
            return {self.name: rows}
        frames = int(self.shown[:rows].max(initial=-1)) + 1
        return dict(zip(self.datasets, (frames, rows), strict=True))

    def read(self, rows: slice) -> np.ndarray:
        """Return consecutive rows as they were given to the writer, (n, ...)."""
        if self.shown is None:
            return self.entries[rows]
        shown = self.shown[rows]
        first = shown.min(initial=len(self.entries))
        return self.entries[first : shown.max(initial=-1) + 1][shown - first]

    def extension(self, values: np.ndarray, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return what each of the datasets, now `sizes` long, grows by when an episode of rows (n, ...) is appended."""
        if self.shown is None:
            return {self.name: values}
        return dict(zip(self.datasets, split_frames(values, sizes[self.entries_path]), strict=True))


def stored_column(name: str, item: h5py.Dataset | h5py.Group) -> StoredColumn | None:
    """Describe the root entry `name`; None when it is not a column."""
    import h5py

    if isinstance(item, h5py.Dataset):
        column = _column_of(item)
        return None if column is None else StoredColumn(name, column, item)
    if not isinstance(item, h5py.Group):
        return None
    frames, row = item.get(FRAMES), item.get(ROW)
    if not isinstance(frames, h5py.Dataset) or not isinstance(row, h5py.Dataset):
        return None
    column = _column_of(frames)
    if column is None or column.kind != "image" or row.ndim != 1 or row.dtype.kind != "i":
        return None
    return StoredColumn(name, column, frames, row)


def _column_of(dataset: h5py.Dataset) -> Column | None:
    import h5py

    if not dataset.ndim:
        return None
    if h5py.check_string_dtype(dataset.dtype):
        return Column(np.dtype(object), dataset.shape[1:], "text") if dataset.ndim == 1 else None
    if dataset.dtype.kind not in "biufc":
        return None
    return Column.numeric(dataset.dtype.newbyteorder("="), dataset.shape[1:])


def has_plain_rows(dataset: h5py.Dataset) -> bool:
    """Whether each row is a chunk of its own, with the same bytes as in memory."""
    unfiltered = dataset.id.get_create_plist().get_nfilters() == 0
    return dataset.chunks == (1, *dataset.shape[1:]) and unfiltered and dataset.dtype.isnative


def split_frames(values: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of an episode without repetitions, and the number of the frame that each row shows.

    Frames are numbered from `first` on; one is left out when it equals the frame of the row before.
    """
    new = np.ones(len(values), dtype=bool)
    for i in range(1, len(values)):  # by row: two frames fit into the processor's cache, two episodes do not
        new[i] = not np.array_equal(values[i], values[i - 1])
    return values[new], np.cumsum(new, dtype=np.int64) + (first - 1)


def check_patterns(unique_columns: Sequence[str]) -> tuple[str, ...]:
    """Return names and patterns of columns as a tuple; ContractError for anything else than a list of texts."""
    if isinstance(unique_columns, str) or not all(isinstance(pattern, str) for pattern in unique_columns):
        raise ContractError(f"unique_columns={unique_columns!r}: expected names or patterns, like ('goal', 'goal.*')")
    return tuple(unique_columns)


def is_unique(name: str, column: Column, patterns: Sequence[str]) -> bool:
    """Whether a new file holds each image of this column once."""
    return column.kind == "image" and any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
