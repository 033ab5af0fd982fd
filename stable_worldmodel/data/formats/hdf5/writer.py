"""Writes episodes into one HDF5 file that is a valid dataset at every instant.

The unit of commit is the episode: once `write_episode` returns, the episode survives a kill of the process, and every
reader sees a prefix of complete episodes. A new file is built in a hidden sibling folder and renamed into place with
its first episode inside; from then on it is open in HDF5's single-writer/multiple-reader mode, and an episode becomes
visible when its length is flushed into `ep_len`, after everything else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.hdf5 import layout, repair
from stable_worldmodel.data.formats.hdf5.checksums import crc32_of_rows
from stable_worldmodel.data.formats.hdf5.columns import (
    UNIQUE_COLUMNS,
    StoredColumn,
    check_patterns,
    has_plain_rows,
    is_unique,
)
from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.data.formats.shared.threads import in_background
from stable_worldmodel.data.formats.shared.writer import EpisodeWriter
from stable_worldmodel.data.journal import Journal, Record, episode_record, journal_path, make_header
from stable_worldmodel.data.lock import DatasetLockedError
from stable_worldmodel.data.registry import PathLike

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")

BACKGROUND_BYTES = 1 << 20  # checksums of smaller episodes take less time than handing them to another thread


class HDF5Writer(EpisodeWriter):
    """Appends complete episodes to the file `path`.

    text_width: bytes per text; raised to the next multiple when the first episode holds longer texts.
    unique_columns: names and patterns (`goal.*`) of image columns; a new file holds a frame of these once for all rows
        in sequence that show it. `()` stores every column row by row, which other programs read. Columns of another
        kind are always stored row by row, and an existing file goes on as it was created.
    The other arguments are those of `EpisodeWriter`.
    """

    def __init__(
        self,
        path: PathLike,
        mode: str = "append",
        *,
        text_width: int = 64,
        unique_columns: Sequence[str] = UNIQUE_COLUMNS,
        **options: Any,
    ) -> None:
        self._text_width = text_width
        self._unique_columns = check_patterns(unique_columns)
        self._rows = 0
        self._stored: dict[str, StoredColumn] = {}
        self._sizes: dict[str, int] = {}  # committed lengths of `_datasets`
        self._plain: set[str] = set()  # those whose rows are images that can be written as they are
        self._widths: dict[str, int] = {}
        super().__init__(path, mode, **options)

    def _exists(self) -> bool:
        return self.path.exists()

    def _create(self, columns: Columns) -> None:
        """Build a file around its first episode; then continue it like any other."""
        self._schema = {name: Column.of(values) for name, values in columns.items()}
        step = self._text_width
        for name, column in self._schema.items():
            if column.kind == "text":
                longest = max(len(text.encode()) for text in columns[name])
                self._widths[name] = step * max(1, -(-longest // step))
        ensure_dir_exists(self._partial)
        stored = layout.encode_texts(columns, self._widths)
        unique = [name for name, column in self._schema.items() if is_unique(name, column, self._unique_columns)]
        try:
            layout.create_file(self._new, stored, unique)
            self._open(self._new)
            self._commit(columns)
            if not self._replacing:
                self._finish()
                self._publish()
                self._open(self.path)
        except BaseException:
            with contextlib.suppress(Exception):  # it is not worth more than what has happened
                if self._is_open:
                    self._finish()
            self._is_open, self.num_episodes = False, 0
            self._discard_partial()
            raise

    def _open(self, target: Path) -> None:
        """Continue `target` after its last committed episode."""
        layout.check_size_limit(target)
        block = repair.read_superblock(target)
        if repair.needs_repair(target, block):  # we hold the lock, so its writer is dead
            with Journal(journal_path(target)) as journal:
                journal.append({"kind": "repair", "superblock": block.hex()})
            _patiently(partial(repair.repair_superblock, target))
        dataset_id = layout.prepare_append(target)
        self._journal = Journal(journal_path(target))
        self._file: h5py.File = _patiently(partial(layout.open_for_append, target))
        lengths, offsets = layout.episode_index(self._file)
        self.num_episodes, self._rows = len(lengths), int((offsets + lengths).max(initial=0))
        self._stored = layout.columns_of(self._file)
        self._schema = {name: stored.column for name, stored in self._stored.items()}
        self._widths = {
            name: stored.entries.dtype.itemsize for name, stored in self._stored.items() if stored.column.kind == "text"
        }
        self._datasets = layout.datasets_of(self._file, self._stored)  # kept open: warm chunk caches
        frames = [column for column in self._stored.values() if column.column.kind == "image"]
        self._plain = {column.entries_path for column in frames if has_plain_rows(column.entries)}
        self._sizes = layout.sizes_of(self._stored, self._rows, self.num_episodes)
        layout.cut(self._datasets, self._sizes)  # what an interrupted commit left behind
        known = {} if self.num_episodes else self.metadata  # nobody knows how the episodes before a journal were made
        header = make_header(dataset_id, self._schema, known, first_episode=self.num_episodes)
        self._journal.begin(header, self.num_episodes)
        for i in range(self._journal.num_episodes, self.num_episodes):  # committed, then killed before the journal
            rows = slice(offsets[i], offsets[i] + lengths[i])
            self._journal.append(episode_record(i, {name: column.read(rows) for name, column in self._stored.items()}))
        self._adopt_metadata(self._journal.header["metadata"])
        self._target, self._is_open = target, True

    def _commit(self, columns: Columns) -> None:
        """Append one episode. The flush of `ep_len` is the commit; rows before it are invisible to every reader."""
        stored = layout.encode_texts(columns, self._widths)
        rows = len(next(iter(stored.values())))
        parts: Columns = {}
        for name, values in stored.items():
            parts.update(self._stored[name].extension(values, self._sizes))
        record: Callable[[], Record] = partial(self._describe, self.num_episodes, stored, parts)
        if sum(values.nbytes for values in parts.values()) >= BACKGROUND_BYTES:
            record = in_background(record)
        for path, values in parts.items():
            self._extend(path, values)
        for path, value in (("ep_offset", self._rows), ("ep_len", rows)):  # `ep_len` is the last one
            parts[path] = np.array([value])
            self._extend(path, parts[path])
        for path, values in parts.items():
            self._sizes[path] += len(values)
        self._rows += rows
        self.num_episodes += 1
        self._journal.append(record())
        if time.monotonic() - self._last_sync >= self._fsync_every:
            self._sync_all()

    def _describe(self, i: int, stored: Columns, parts: Columns) -> Record:
        """Return `journal.episode_record`. Checksums cost more than writing: no frame is looked at twice."""
        paths = {name: [*self._stored[name].datasets] for name in stored if self._stored[name].shown is not None}
        short = {name: parts[row] for name, (_, row) in paths.items()}  # in place of the images, as many rows
        record = episode_record(i, {**stored, **short})
        for name, (frames, row) in paths.items():
            record["crc32"][name] = crc32_of_rows(parts[frames], parts[row] - parts[row][0])
        return {**record, "bytes": sum(values.nbytes for values in stored.values())}

    def _extend(self, path: str, values: np.ndarray) -> None:
        """Append to a dataset, by the library's plain functions: what h5py offers beyond takes longer than the work."""
        import h5py

        dataset, start = self._datasets[path], self._sizes[path]
        others = (0,) * (values.ndim - 1)
        dataset.id.set_extent((start + len(values), *values.shape[1:]))
        if path in self._plain:  # past the library's cache and a copy
            for i, frame in enumerate(values, start):
                dataset.id.write_direct_chunk((i, *others), np.ascontiguousarray(frame))
        else:
            place = dataset.id.get_space()
            place.select_hyperslab((start, *others), values.shape)
            dataset.id.write(h5py.h5s.create_simple(values.shape), place, np.ascontiguousarray(values))
        dataset.flush()

    def _finish(self) -> None:
        try:
            layout.cut(self._datasets, self._sizes)  # what an interrupted commit left behind
        finally:
            self._datasets.clear()
            self._stored.clear()
            self._file.close()
        self._sync_all()
        self._journal.close()
        self._is_open = False

    def _sync_all(self) -> None:
        sync([self._target])
        self._journal.sync()
        self._last_sync = time.monotonic()


def _patiently(work: Callable[[], T]) -> T:
    """Call `work`, again and again for a while where it is locked out: a reader that opens a file holds it briefly."""
    deadline = time.monotonic() + layout.OPEN_PATIENCE
    while True:
        try:
            return work()
        except (BlockingIOError, DatasetLockedError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)
