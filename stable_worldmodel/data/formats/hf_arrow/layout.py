"""Reads the `hf_arrow` layout: rows in Arrow files, images as paths to files beside them. See `hf_arrow.files`.

A dataset may be nested: every directory below it that holds Arrow files is a part, whose episodes are numbered on from
those of the parts before it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import DERIVED_COLUMNS, Column, decode_text
from stable_worldmodel.data.formats.directory.record import Recordings, find_losses
from stable_worldmodel.data.formats.directory.row_log import log_content, logged_episodes
from stable_worldmodel.data.formats.hf_arrow import files
from stable_worldmodel.data.formats.shared.frames import (
    STILL_SUFFIXES,
    VIDEO_SUFFIX,
    Directory,
    Frames,
    StillFrames,
    VideoFrames,
)
from stable_worldmodel.data.formats.shared.stored import RowIndex
from stable_worldmodel.errors import ContractError, NotFoundError, require

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

EPISODE, STEP = "episode_idx", "step_idx"
_NOT_COLUMNS = (*DERIVED_COLUMNS, "data_dir")
_ATTEMPTS = 50  # a writer renames files from time to time
_DEPTH = 3  # of nested datasets


def part_folders(path: Path) -> list[Path]:
    """Return the directories at and below `path` that hold Arrow files of a dataset."""
    return list(_search(path, _DEPTH)) if path.is_dir() else []


def _search(path: Path, depth: int) -> Iterator[Path]:
    if _is_part(path):
        yield path
    elif depth:
        for entry in sorted(path.iterdir()):
            if entry.is_dir() and entry.name not in (files.IMAGES, "videos") and entry.name[0] != ".":
                yield from _search(entry, depth - 1)


def _is_part(path: Path) -> bool:
    described = (path / files.STATE).is_file() and (path / files.INFO).is_file()
    return described or next(path.glob(files.SHARD_PATTERN), None) is not None


def image_path(episode: int, step: int, column: str, suffix: str) -> str:
    """Path of an image file, as it stands in the rows."""
    return f"{files.IMAGES}/{episode}/{step}_{column.replace('.', '_')}{suffix}"


class ArrowLayout:
    """The content of a dataset and its log, at one moment. See `stored.Layout`.

    damage: takes what is wrong with the Arrow files; episodes from there on are left out. Default: ContractError.
    """

    def __init__(self, path: Path, damage: list[str] | None = None) -> None:
        self.path = path
        self._damage = damage
        self._intact: list[str] = []  # file names
        self._directory = Directory(path)
        self.parts = part_folders(path) or [path]
        recordings = Recordings(path)  # before the dataset, which a writer may be adding to
        self._rows, notes, log = self._read_consistently()
        self._images: dict[str, str] | None = notes.get("images")  # column -> suffix, in files of this package
        self.generated: list[str] = notes.get("generated", [])
        self._order, lengths = self._find_episodes()
        self.sealed_from: int = notes.get("sealed_from", len(lengths))  # the first episode whose images have a seal
        self._sealed_row = int(lengths[: self.sealed_from].sum())
        self.logged = logged_episodes(log, self.dataset_id, len(lengths))
        lengths = np.append(lengths, [episode.rows for episode in self.logged]).astype(np.int64)
        if not len(lengths):
            raise ContractError(f"{path}: no episode is complete yet")
        self.index = RowIndex(lengths, np.cumsum(lengths) - lengths)
        recorded = recordings.of(self.dataset_id)
        self.metadata: Mapping[str, Any] = recorded.metadata
        self.columns: dict[str, Column] = {}
        self.frames: dict[str, Frames] = {}
        self.suffixes: dict[str, str] = {}  # of the image files
        self._paths: dict[str, ImagePaths] = {}
        for name in sorted(self._rows.column_names):
            if name not in _NOT_COLUMNS and name not in self.generated:
                self._add_column(name)
        self.lost = find_losses(recorded, self.columns, len(lengths))
        self._check_info()

    def _read_consistently(self) -> tuple[pa.Table, dict[str, Any], bytes]:
        """Read the log and all files; a writer may fold the one into the others meanwhile.

        The log is of the time of `state.json`. The files are of that time or later, with more episodes of the log in.
        """
        for _ in range(_ATTEMPTS):
            states = [files.read_state(part) for part in self.parts]
            self.dataset_id = states[0].dataset_id if len(self.parts) == 1 else None
            log = log_content(self.path)
            if states != [files.read_state(part) for part in self.parts]:
                continue
            try:
                return *self._read(states), log
            except NotFoundError as error:
                if states == [files.read_state(part) for part in self.parts]:
                    raise ContractError(f"{self.path}: {error}") from error
        raise RuntimeError(f"{self.path}: the files keep changing; is another program rewriting them?")

    def _read(self, states: Sequence[files.State]) -> tuple[pa.Table, dict[str, Any]]:
        """Return the rows of all parts, episodes numbered through, with a column for the part."""
        pa = require("pyarrow", "data")
        tables: list[Any] = []
        notes: dict[str, Any] = {}
        self._intact = []
        for number, (part, state) in enumerate(zip(self.parts, states, strict=True)):
            first = len(tables)
            for name in state.files:
                known = _next_episode(tables[first:])
                try:
                    table = files.read_shard(part / name)
                    notes = files.notes_of(table)
                    if notes and not state.dataset_id:
                        raise ContractError(f"{part / files.STATE}: damaged or missing")
                    if notes.get("first_episode", known) != known:
                        raise ContractError(f"{part / name}: begins at episode {notes['first_episode']}, not {known}")
                except (ContractError, NotFoundError) as error:
                    if self._damage is not None:
                        self._damage.append(str(error))
                        break
                    if isinstance(error, NotFoundError):
                        raise
                    raise ContractError(f"{error} (from episode {known} on)") from error
                self._intact.append(name)
                tables.append(table.replace_schema_metadata(None))
            if len(tables) > first and len(self.parts) > 1:
                tables[first:] = [_numbered_on(pa.concat_tables(tables[first:]), tables[:first], number)]
        if not tables:
            raise ContractError(f"{self.path}: expected Arrow files {files.SHARD_PATTERN}, found no rows")
        try:
            return pa.concat_tables(tables), notes
        except pa.ArrowInvalid as error:
            raise ContractError(f"{self.path}: the files differ in their columns: {error}") from error

    def _check_info(self) -> None:
        """What nobody reads here, other programs may need."""
        if not self.dataset_id or self._damage is None:
            return
        if not files.is_info(self.path / files.INFO, self.columns, self.generated):
            self._damage.append(f"{self.path / files.INFO}: damaged: does not describe the columns")

    def _find_episodes(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the order that sorts the rows by episode and step, None if they are sorted, and the lengths (E,)."""
        if EPISODE not in self._rows.column_names:
            raise ContractError(f"{self.path}: expected a column {EPISODE!r}, found {self._rows.column_names}")
        episodes = files.numpy_numbers(self._rows[EPISODE])
        steps = np.zeros_like(episodes)
        if STEP in self._rows.column_names:
            steps = files.numpy_numbers(self._rows[STEP])
        rising = (np.diff(episodes) > 0) | ((np.diff(episodes) == 0) & (np.diff(steps) >= 0))
        order = None if rising.all() else np.lexsort((steps, episodes))
        numbers, lengths = np.unique(episodes, return_counts=True)
        self.numbered = np.array_equal(numbers, np.arange(len(numbers)))
        return order, lengths.astype(np.int64)

    def _add_column(self, name: str) -> None:
        pa = require("pyarrow", "data")
        array = self._rows[name]
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            first = array[0].as_py() or ""
            suffix = self._image_suffix(name, first)
            if suffix:
                self._add_image_column(name, suffix)
            else:
                self.columns[name] = Column(np.dtype(object), (), "text")
            return
        try:
            sample = files.numpy_numbers(array.slice(0, 1))
        except ContractError as error:
            logger.warning("%s: column %r is ignored: %s", self.path, name, error)
            return
        self.columns[name] = Column.numeric(self._dtype(name, sample.dtype), sample.shape[1:])

    def _dtype(self, name: str, dtype: np.dtype) -> np.dtype:
        """Early recordings have 32-bit step numbers, where all other formats have 64."""
        early = name == STEP and self._images is None and dtype == np.int32
        return np.dtype(np.int64) if early else dtype

    def _image_suffix(self, name: str, first: str) -> str | None:
        """What the image files of a text column end in; None for ordinary text."""
        if self._images is not None:
            return self._images.get(name)
        suffix = Path(first).suffix
        return suffix if suffix in (*STILL_SUFFIXES, VIDEO_SUFFIX) else None

    def _add_image_column(self, name: str, suffix: str) -> None:
        pa = require("pyarrow", "data")
        paths = self._in_order(self._rows[name]).combine_chunks()
        logged = [
            image_path(episode.i, 0 if name in episode.notes["constant"] else step, name, suffix)
            for episode in self.logged
            for step in range(episode.rows)
        ]
        if logged:
            paths = pa.concat_arrays([paths, pa.array(logged, paths.type)])
        names = ImagePaths(paths, *self._prefixes(str(paths[0])))
        self._paths[name] = names
        where = self.index.describe, 0, self._sealed_row
        if suffix == VIDEO_SUFFIX:
            self.frames[name] = VideoFrames(self._directory, names, self._step_of, *where)
        else:
            self.frames[name] = StillFrames(self._directory, names, *where)
        self.columns[name] = self.frames[name].column
        self.suffixes[name] = suffix

    def paths(self, name: str, rows: np.ndarray) -> list[str]:
        """Return the paths of the image files of `rows`, below the directory."""
        return self._paths[name](rows)

    def _step_of(self, rows: np.ndarray) -> np.ndarray:
        return self.index.locate(rows)[1]

    def _prefixes(self, first: str) -> tuple[np.ndarray, list[str]]:
        """Return the first row of each part, and what leads from the directory to where its paths begin."""
        numbers = np.zeros(1, np.int64)
        if len(self.parts) > 1:
            of_row = files.numpy_numbers(self._in_order(self._rows["data_dir"]))
            numbers, starts = np.unique(of_row, return_index=True)
        else:
            starts = numbers
        prefixes = []
        for number in numbers.tolist():
            folder = self.parts[number]
            # The oldest sets have the Arrow files in a sub-directory `records`, beside the images.
            beside = number == 0 and not (folder / first).exists() and (folder.parent / first).exists()
            prefix = (folder.parent if beside else folder).relative_to(self.path.parent)
            prefixes.append("" if prefix == Path(self.path.name) else f"{Path('..') / prefix}/")
        return starts, prefixes

    def _in_order(self, array: pa.ChunkedArray) -> pa.ChunkedArray:
        return array if self._order is None else array.take(self._order)

    def load(self, name: str) -> np.ndarray:
        self._directory.check()
        column, array = self.columns[name], self._rows[name]
        logged = [episode.columns[name] for episode in self.logged]
        if column.kind == "text":
            texts = [array.to_pylist(), *(part.tolist() for part in logged)]
            values = decode_text(["" if text is None else text for part in texts for text in part])
            return values if self._order is None else np.concatenate([values[self._order], values[len(array) :]])
        try:
            numbers = files.numpy_numbers(array)
        except ContractError as error:
            raise ContractError(f"{self.path}: column {name!r}: {error}") from error
        if numbers.shape[1:] != column.shape:
            raise ContractError(f"{self.path}: column {name!r}: expected rows of {column.shape}, found {numbers.shape}")
        numbers = numbers if self._order is None else numbers[self._order]
        return np.concatenate([numbers, *logged]).astype(column.dtype, copy=False)

    def restore(self, table: Mapping[str, np.ndarray]) -> None:
        """Leave damaged files out of `state.json`; under the lock of the dataset."""
        episodes = len(self.index.lengths)
        if self.dataset_id and len(self._intact) < len(files.read_state(self.path).files):
            new = self.path.with_name(f".{self.path.name}.{files.STATE}")
            files.write_state(new, self._intact, self.dataset_id, episodes)
            new.replace(self.path / files.STATE)


@dataclass(frozen=True)
class ImagePaths:
    """Paths of the image files of one column, below the directory. Called with rows (n,)."""

    paths: Any  # Arrow strings, one per row
    starts: np.ndarray  # (parts,) first row of each part
    prefixes: list[str]  # what leads from the directory to the paths of each part

    def __call__(self, rows: np.ndarray) -> list[str]:
        pa = require("pyarrow", "data")
        names = self.paths.take(pa.array(rows)).to_pylist()
        for name, row in zip(names, rows, strict=True):
            if not name or name[0] == "/" or (".." in name and ".." in Path(name).parts):
                raise ContractError(f"row {row}: image path {name!r} leads out of the dataset")
        if self.prefixes == [""]:
            return names
        parts = np.searchsorted(self.starts, rows, side="right") - 1
        return [self.prefixes[part] + name for part, name in zip(parts.tolist(), names, strict=True)]


def _next_episode(tables: Sequence[pa.Table]) -> int:
    """The number that follows the last episode of `tables`."""
    found = EPISODE in tables[-1].column_names and len(tables[-1]) if tables else 0
    return int(tables[-1][EPISODE][-1].as_py()) + 1 if found else 0


def _numbered_on(table: pa.Table, before: Sequence[pa.Table], part: int) -> pa.Table:
    """Shift the episode numbers of one part behind those of the parts before it, and note the part of each row."""
    pa = require("pyarrow", "data")
    own = files.numpy_numbers(table[EPISODE]).astype(np.int64)
    last = max((int(files.numpy_numbers(other[EPISODE]).max()) for other in before if len(other)), default=-1)
    own = own - own.min(initial=own.max(initial=0)) + last + 1
    table = table.set_column(table.column_names.index(EPISODE), EPISODE, pa.array(own))
    if "data_dir" in table.column_names:
        table = table.drop_columns(["data_dir"])
    return table.append_column("data_dir", pa.array(np.full(len(table), part)))
