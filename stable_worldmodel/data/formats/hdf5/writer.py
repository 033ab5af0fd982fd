"""Writes episodes into one HDF5 file that is a valid dataset at every instant.

The unit of commit is the episode: once `write_episode` returns, the episode survives a kill of the process, and every
reader sees a prefix of complete episodes. A new file is built in a hidden sibling folder and renamed into place with
its first episode inside; from then on it is open in HDF5's single-writer/multiple-reader mode, and an episode becomes
visible when its length is flushed into `ep_len`, after everything else.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns, check_schema, prepare_episode
from stable_worldmodel.data.formats.hdf5 import layout, repair
from stable_worldmodel.data.formats.hdf5.columns import UNIQUE_COLUMNS, StoredColumn, check_patterns, is_unique
from stable_worldmodel.data.journal import Journal, check_metadata, episode_record, journal_path, make_header
from stable_worldmodel.data.lock import WriterLock
from stable_worldmodel.data.registry import validate_write_mode

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

Episode = Mapping[str, Sequence[Any] | np.ndarray]


class HDF5Writer:
    """Appends complete episodes to the file `path`.

    mode: `append` continues an existing file after dropping what an interrupted writer left uncommitted, or creates
        it. `overwrite` builds a replacement beside the old file and swaps it in when the writer is closed; after an
        exception or a kill the old file is still there. `error` raises FileExistsError when the file exists.
    metadata: what the run was (env id, policy, seed, versions ...), JSON values; kept in the journal of a new file.
    text_width: bytes per text; raised to the next multiple when the first episode holds longer texts.
    unique_columns: names and patterns (`goal.*`) of image columns; a new file holds a frame of these once for all rows
        in sequence that show it. `()` stores every column row by row, which other programs read. Columns of another
        kind are always stored row by row, and an existing file goes on as it was created.
    fsync_every: seconds after which a commit also waits for the disk, so that it survives a power loss.

    Raises DatasetLockedError while another writer is alive. Not thread-safe.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "append",
        *,
        metadata: Mapping[str, Any] | None = None,
        text_width: int = 64,
        unique_columns: Sequence[str] = UNIQUE_COLUMNS,
        fsync_every: float = 60.0,
    ) -> None:
        self.path = Path(path).expanduser().resolve()
        self.mode = validate_write_mode(mode)
        self.num_episodes = 0
        self.metadata = check_metadata(metadata)
        self._text_width = text_width
        self._unique_columns = check_patterns(unique_columns)
        self._fsync_every = fsync_every
        self._last_sync = time.monotonic()
        self._closed = False
        self._rows = 0
        self._schema: dict[str, Column] = {}
        self._stored: dict[str, StoredColumn] = {}
        self._sizes: dict[str, int] = {}  # committed lengths of `_datasets`
        self._widths: dict[str, int] = {}
        self._warned: set[str] = set()
        self._file: h5py.File | None = None
        self._partial = self.path.with_name(f".{self.path.name}.partial")  # same file system, hidden from readers
        ensure_dir_exists(self.path.parent)
        with ExitStack() as stack:
            stack.enter_context(WriterLock(self.path))
            exists = self.path.exists()
            if exists and mode == "error":
                raise FileExistsError(f"{self.path} exists; choose another path, or mode 'append' or 'overwrite'")
            self._discard_partial()
            self._replacing = exists and mode == "overwrite"
            if exists and not self._replacing:
                self._open(self.path)
            self._held = stack.pop_all()

    def write_episode(self, episode: Episode) -> None:
        """Check `episode` and commit it. Raises ContractError, before anything is written, when it does not fit."""
        if self._closed:
            raise RuntimeError(f"{self.path}: the writer is closed; open a new one with mode 'append'")
        columns = prepare_episode(episode, self._warned)
        if self._file is None:
            self._create(columns)
            return
        self._commit(layout.encode_texts(check_schema(columns, self._schema), self._widths))

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        """Commit the episodes one by one, as they come."""
        for episode in episodes:
            self.write_episode(episode)

    def close(self) -> None:
        """Write everything to the disk, put a replacement in place and release the lock. Twice is once."""
        self._close(publish=True)

    def __enter__(self) -> HDF5Writer:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(publish=exc_type is None)

    def _close(self, publish: bool) -> None:
        self._closed = True
        with self._held:  # releases the lock, whatever happens
            if self._file is None:
                return
            self._finish(self._file)
            if self._replacing and publish:
                self._publish()
            elif self._replacing:
                logger.warning(
                    "%s was not replaced; the %d new episodes are in %s until the next writer opens",
                    self.path, self.num_episodes, self._partial,
                )  # fmt: skip

    def _create(self, columns: Columns) -> None:
        """Build a file around its first episode; then continue it like any other."""
        self._schema = {name: Column.of(values) for name, values in sorted(columns.items())}
        step = self._text_width
        for name, column in self._schema.items():
            if column.kind == "text":
                longest = max(len(text.encode()) for text in columns[name])
                self._widths[name] = step * max(1, -(-longest // step))
        ensure_dir_exists(self._partial)
        target = self._partial / self.path.name
        stored = layout.encode_texts(columns, self._widths)
        unique = [name for name, column in self._schema.items() if is_unique(name, column, self._unique_columns)]
        dataset_id = layout.create_file(target, stored, unique)
        with Journal(journal_path(target)) as journal:
            journal.begin(make_header(dataset_id, self._schema, self.metadata, first_episode=0), 1)
            journal.append(episode_record(0, stored))
            journal.sync()
        _sync(target)
        if not self._replacing:
            self._publish()
        self._open(target if self._replacing else self.path)

    def _open(self, target: Path) -> None:
        """Continue `target` after its last committed episode."""
        block = repair.read_superblock(target)
        if repair.needs_repair(target, block):  # we hold the lock, so its writer is dead
            with Journal(journal_path(target)) as journal:
                journal.append({"kind": "repair", "superblock": block.hex()})
            repair.repair_superblock(target)
        dataset_id = layout.prepare_append(target)
        self._journal = Journal(journal_path(target))
        self._file = file = layout.open_for_append(target)
        lengths, offsets = layout.episode_index(file)
        self.num_episodes, self._rows = len(lengths), int((offsets + lengths).max(initial=0))
        self._stored = layout.columns_of(file)
        self._schema = {name: stored.column for name, stored in self._stored.items()}
        self._widths = {
            name: stored.entries.dtype.itemsize for name, stored in self._stored.items() if stored.column.kind == "text"
        }
        self._datasets = layout.datasets_of(file, self._stored)  # kept open: warm chunk caches
        self._sizes = layout.sizes_of(self._stored, self._rows, self.num_episodes)
        layout.cut(self._datasets, self._sizes)  # what an interrupted commit left behind
        known = {} if self.num_episodes else self.metadata  # nobody knows how the episodes before a journal were made
        header = make_header(dataset_id, self._schema, known, first_episode=self.num_episodes)
        self._journal.begin(header, self.num_episodes)
        for i in range(self._journal.num_episodes, self.num_episodes):  # committed, then killed before the journal
            rows = slice(offsets[i], offsets[i] + lengths[i])
            self._journal.append(episode_record(i, {name: column.read(rows) for name, column in self._stored.items()}))
        self._adopt_metadata(self._journal.header["metadata"])

    def _adopt_metadata(self, stored: dict[str, Any]) -> None:
        """The metadata of an existing dataset stays; say so when the caller brought other values."""
        changed = sorted(key for key in self.metadata if self.metadata[key] != stored.get(key))
        if changed:
            logger.warning("%s keeps the metadata it was created with; other values given for %s", self.path, changed)
        self.metadata = stored

    def _commit(self, stored: Columns) -> None:
        """Append one episode. The flush of `ep_len` is the commit; rows before it are invisible to every reader."""
        rows = len(next(iter(stored.values())))
        parts: Columns = {}
        for name, values in stored.items():
            parts.update(self._stored[name].extension(values, self._sizes))
        parts["ep_offset"] = np.array([self._rows])
        parts["ep_len"] = np.array([rows])  # the last one
        for path, values in parts.items():
            self._extend(path, values)
        for path, values in parts.items():
            self._sizes[path] += len(values)
        self._rows += rows
        self.num_episodes += 1
        self._journal.append(episode_record(self.num_episodes - 1, stored))
        if time.monotonic() - self._last_sync >= self._fsync_every:
            self._sync_all()

    def _extend(self, path: str, values: np.ndarray) -> None:
        dataset, start = self._datasets[path], self._sizes[path]
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values
        dataset.flush()

    def _finish(self, file: h5py.File) -> None:
        try:
            layout.cut(self._datasets, self._sizes)  # what an interrupted commit left behind
        finally:
            self._datasets.clear()
            self._stored.clear()
            file.close()
            self._file = None
        self._sync_all()
        self._journal.close()

    def _sync_all(self) -> None:
        _sync(self._partial / self.path.name if self._replacing else self.path)
        self._journal.sync()
        self._last_sync = time.monotonic()

    def _publish(self) -> None:
        """Move what was built beside `path` into place. A journal without its file, or beside another, is ignored."""
        target = self._partial / self.path.name
        journal_path(target).replace(journal_path(self.path))
        target.replace(self.path)
        _sync(self.path.parent)
        self._discard_partial()

    def _discard_partial(self) -> None:
        if self._partial.exists():
            shutil.rmtree(self._partial)


def _sync(path: Path) -> None:
    """Wait until a file or directory has reached the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
