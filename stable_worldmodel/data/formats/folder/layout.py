"""Where a `folder` or `video` dataset keeps what: one directory, its files, and the log beside it.

    ep_len.npz, ep_offset.npz   the episodes, int32 and int64 (E,); ep_len.npz is renamed into place last
    <column>.npz                numbers and fixed-width text of all rows, in their own dtype
    <column>/ep_<i>_step_<j>.jpeg (or .png)   one image per row, or
    <column>/ep_<i>.mp4         one video per episode

Nothing else may lie in the directory, because other readers take every entry for a column. `ep_len.npz` has more arrays
that they do not look at: the identity of the dataset, which ties it to its log and journal; which image columns are
constant in which episode, the frames of those being links to one file, or frames of a video that are all equal; and the
first episode whose image files were written by this package, and have a seal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import INDEX_COLUMNS, Column, decode_text
from stable_worldmodel.data.formats.directory.record import Recordings, find_losses
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode, read_log
from stable_worldmodel.data.formats.folder import npz_table as npz
from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.data.formats.shared.frames import (
    STILL_SUFFIXES,
    VIDEO_SUFFIX,
    Directory,
    Frames,
    StillFrames,
    VideoFrames,
)
from stable_worldmodel.data.formats.shared.stored import RowIndex
from stable_worldmodel.errors import ContractError, NotFoundError

logger = logging.getLogger(__name__)

TABLE_SUFFIX = ".npz"
LENGTHS, OFFSETS = (f"{name}{TABLE_SUFFIX}" for name in INDEX_COLUMNS)
_ATTEMPTS = 50  # a writer renames the index from time to time; nobody is that unlucky
_GLANCE = 16  # entries of a directory that are looked at


def is_folder_dataset(path: Path) -> bool:
    return (path / LENGTHS).is_file()


def frame_suffixes(path: Path) -> set[str]:
    """What the frame files below `path` end in. Looks at a few names only."""
    return {entry.suffix for folder in image_folders(path) for entry in islice(folder.iterdir(), _GLANCE)}


def image_folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def frame_name(column: str, episode: int, step: int, suffix: str) -> str:
    """Name, below the directory, of the file that holds a frame."""
    return f"{column}/ep_{episode}{suffix}" if suffix == VIDEO_SUFFIX else f"{column}/ep_{episode}_step_{step}{suffix}"


@dataclass(frozen=True)
class FolderIndex:
    """The episodes in the files of the directory, those in the log not included."""

    lengths: np.ndarray  # (E,) int64
    offsets: np.ndarray  # (E,) int64
    dataset_id: str | None = None
    constant: Mapping[str, np.ndarray] = field(default_factory=dict)  # image column -> (E,) bool
    sealed_from: int = 0  # the first episode whose image files have a seal

    @property
    def num_rows(self) -> int:
        return int((self.offsets + self.lengths).max(initial=0))

    @property
    def sealed_row(self) -> int:
        """The first row whose images have a seal."""
        sealed = self.sealed_from < len(self.lengths)
        return int(self.offsets[self.sealed_from]) if sealed else self.num_rows

    def extended(self, episodes: Sequence[LoggedEpisode]) -> FolderIndex:
        """This index with logged episodes after it."""
        rows = np.array([episode.rows for episode in episodes], dtype=np.int64)
        names = {*self.constant, *(name for episode in episodes for name in episode.notes["constant"])}
        flags = {
            name: np.array([name in episode.notes["constant"] for episode in episodes], dtype=bool) for name in names
        }
        return FolderIndex(
            np.concatenate([self.lengths, rows]),
            np.concatenate([self.offsets, self.num_rows + np.cumsum(rows) - rows]),
            self.dataset_id,
            {name: np.concatenate([self.flags(name), flags[name]]) for name in sorted(names)},
            self.sealed_from,
        )

    def cut(self, episodes: int) -> FolderIndex:
        """This index of the first `episodes` episodes."""
        flags = {name: values[:episodes] for name, values in self.constant.items()}
        sealed_from = min(self.sealed_from, episodes)
        return FolderIndex(self.lengths[:episodes], self.offsets[:episodes], self.dataset_id, flags, sealed_from)

    def flags(self, name: str) -> np.ndarray:
        """In which episodes an image column is constant, (E,) bool."""
        return self.constant.get(name, np.zeros(len(self.lengths), dtype=bool))


def read_index(path: Path) -> FolderIndex:
    """Read the index files of the directory `path`. Raises ContractError when they are damaged."""
    arrays = npz.read_arrays(path / LENGTHS)
    lengths = arrays[npz.ARRAY]
    offsets = npz.read_arrays(path / OFFSETS)[npz.ARRAY]
    if lengths.ndim != 1 or offsets.ndim != 1 or {lengths.dtype.kind, offsets.dtype.kind} - {"i", "u"}:
        raise ContractError(
            f"{path / LENGTHS}: expected one integer per episode, found {lengths.dtype} {lengths.shape}"
        )
    if len(offsets) < len(lengths):  # more are there while a writer is at work
        raise ContractError(f"{path / OFFSETS}: {len(offsets)} episodes, {LENGTHS} has {len(lengths)}")
    names, flags = arrays.get("constant_columns"), arrays.get("constant")
    constant = {} if names is None or flags is None else dict(zip(names.tolist(), flags.T, strict=True))
    dataset_id = str(arrays["dataset_id"]) if "dataset_id" in arrays else None
    sealed_from = int(arrays.get("sealed_from", len(lengths)))
    return FolderIndex(
        lengths.astype(np.int64), offsets[: len(lengths)].astype(np.int64), dataset_id, constant, sealed_from
    )


def write_index(folder: Path, index: FolderIndex) -> None:
    """Write both index files into `folder`."""
    extra = {"dataset_id": np.array(index.dataset_id), "sealed_from": np.array(index.sealed_from)}
    if index.constant:
        extra["constant_columns"] = np.array(sorted(index.constant))
        extra["constant"] = np.stack([index.constant[name] for name in sorted(index.constant)], axis=1)
    shape = (len(index.lengths),)
    npz.write_arrays(folder / OFFSETS, np.dtype(np.int64), shape, [index.offsets])
    npz.write_arrays(folder / LENGTHS, np.dtype(np.int32), shape, [index.lengths], **extra)


class FolderLayout:
    """The content of a directory and its log, at one moment. See `stored.Layout`.

    folder_keys: the sub-directories that are image columns; default: all. ContractError when one is missing.
    damage: takes what is wrong with columns, which are then loaded as far as they can be read; default: ContractError.
    """

    def __init__(self, path: Path, folder_keys: Iterable[str] | None = None, damage: list[str] | None = None) -> None:
        self.path = path
        self._damage = damage
        self.damaged: list[str] = []  # columns
        self._directory = Directory(path)
        recordings = Recordings(path)  # before the dataset, which a writer may be adding to
        self.stored, self.logged = self._read_consistently()
        whole = self.stored.extended(self.logged)
        if not len(whole.lengths):
            raise ContractError(f"{path}: no episode is complete yet")
        self.index = RowIndex(whole.lengths, whole.offsets)
        self.dataset_id = whole.dataset_id
        self._sealed_row = whole.sealed_row
        recorded = recordings.of(whole.dataset_id)
        self.metadata: Mapping[str, Any] = recorded.metadata
        self.columns: dict[str, Column] = {}
        self.frames: dict[str, Frames] = {}
        self.suffixes: dict[str, str] = {}  # of the frame files
        for file in sorted(path.glob(f"*{TABLE_SUFFIX}")):
            if file.name not in (LENGTHS, OFFSETS) and file.is_file():
                self._add_table_column(file)
        folders = image_folders(path)
        for folder in folders if folder_keys is None else [path / _plain(name) for name in folder_keys]:
            self._add_image_column(folder, whole.flags(folder.name), required=folder_keys is not None)
        self.columns = dict(sorted(self.columns.items()))
        unwanted = () if folder_keys is None else (folder.name for folder in folders)
        self.lost = find_losses(recorded, [*self.columns, *unwanted], len(whole.lengths))

    def _read_consistently(self) -> tuple[FolderIndex, list[LoggedEpisode]]:
        """Read index and log as they belong together: a writer may fold the one into the other meanwhile."""
        for _ in range(_ATTEMPTS):
            before = _identity(self.path / LENGTHS)
            stored = read_index(self.path)
            logged = read_log(self.path, stored.dataset_id, len(stored.lengths))
            if before == _identity(self.path / LENGTHS):
                return stored, logged
        raise RuntimeError(f"{self.path}: the index keeps changing; is another program rewriting it?")

    def _add_table_column(self, file: Path) -> None:
        try:
            shape, dtype = npz.read_header(file)
        except ContractError:
            if self._damage is None:
                raise
            values = npz.read_unchecked(file)
            shape, dtype = values.shape, values.dtype
        name = file.name.removesuffix(TABLE_SUFFIX)
        if dtype.kind in "SU" and len(shape) == 1:
            self.columns[name] = Column(np.dtype(object), (), "text")
        elif dtype.kind in "biufc" and shape:
            self.columns[name] = Column.numeric(dtype.newbyteorder("="), shape[1:])
        else:
            logger.warning("%s: %s %s is not a column and is ignored", file, dtype, shape)

    def _add_image_column(self, folder: Path, constant: np.ndarray, required: bool) -> None:
        episode = int(np.argmax(self.index.lengths > 0))
        suffix = _frame_suffix(folder, episode)
        if suffix is None and not required:
            logger.warning("%s holds no frames and is ignored", folder)
            return
        suffix = suffix or STILL_SUFFIXES[0]
        names = EpisodeFiles(folder.name, suffix, self.index, constant)
        where = self.index.describe, int(self.index.offsets[episode]), self._sealed_row
        if suffix == VIDEO_SUFFIX:
            self.frames[folder.name] = VideoFrames(self._directory, names, names.numbers, *where)
        else:
            self.frames[folder.name] = StillFrames(self._directory, names, *where)
        self.columns[folder.name] = self.frames[folder.name].column
        self.suffixes[folder.name] = suffix

    def check_lengths(self) -> None:
        """Raise ContractError when a column is too short for the episodes."""
        for name in self.columns.keys() - self.frames.keys():
            self._check_length(name, npz.read_header(self._table_file(name))[0][0])

    def _check_length(self, name: str, rows: int) -> None:
        if rows < self.stored.num_rows:
            raise ContractError(
                f"{self._table_file(name)}: {rows} rows, the episodes need {self.stored.num_rows}; the first missing "
                f"is {self.index.describe(rows)}. Look with data.verify(path), cut with repair=True"
            )

    def _table_file(self, name: str) -> Path:
        return self.path / f"{name}{TABLE_SUFFIX}"

    def load(self, name: str) -> np.ndarray:
        self._directory.check()
        values = self._read(name)
        column = self.columns[name]
        parts = [values[: self.stored.num_rows]]
        if len(values) >= self.stored.num_rows:
            parts += [episode.columns[name] for episode in self.logged]
        if column.kind == "text":
            return decode_text([text for part in parts for text in part.tolist()])
        return np.concatenate(parts).astype(column.dtype, copy=False)

    def _read(self, name: str) -> np.ndarray:
        try:
            values = npz.read_arrays(self._table_file(name))[npz.ARRAY]
            self._check_length(name, len(values))
        except ContractError as error:
            if self._damage is None:
                raise
            self._damage.append(str(error))
            self.damaged.append(name)
            return npz.read_unchecked(self._table_file(name))
        return values

    def restore(self, table: Mapping[str, np.ndarray]) -> None:
        """Write the columns that were found damaged anew, with the rows of `table`; under the lock of the dataset."""
        for name in self.damaged:
            values = table[name] if self.columns[name].kind != "text" else table[name].astype(np.str_)
            new = self.path.with_name(f".{self.path.name}.{name}")
            npz.write_arrays(new, values.dtype, values.shape, [values])
            sync([new])
            new.replace(self._table_file(name))


@dataclass(frozen=True)
class EpisodeFiles:
    """Names of the files of one image column. Called with rows (n,)."""

    column: str
    suffix: str
    index: RowIndex
    constant: np.ndarray  # (E,) bool: all rows of the episode show its first frame

    def __call__(self, rows: np.ndarray) -> list[str]:
        episodes, steps = self.index.locate(rows)
        steps = np.where(self.constant[episodes], 0, steps)
        pairs = zip(episodes.tolist(), steps.tolist(), strict=True)
        return [frame_name(self.column, episode, step, self.suffix) for episode, step in pairs]

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """The frames of the videos that hold `rows`."""
        episodes, steps = self.index.locate(rows)
        return np.where(self.constant[episodes], 0, steps)


def _frame_suffix(folder: Path, episode: int) -> str | None:
    """What the frame files in `folder` end in, None when there are none."""
    for suffix in STILL_SUFFIXES:
        if (folder / f"ep_{episode}_step_0{suffix}").exists():
            return suffix
    names = (Path(file) for file in islice(folder.glob("ep_*"), _GLANCE))
    return next((name.suffix for name in names if name.suffix in (*STILL_SUFFIXES, VIDEO_SUFFIX)), None)


def _plain(name: str) -> str:
    if Path(name).name != name:
        raise ContractError(f"folder_keys: {name!r} is not the name of a sub-directory")
    return name


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist; expected a dataset directory") from None
    return found.st_ino, found.st_mtime_ns, found.st_size
