"""What the writers of directory datasets share: modes, lock, checks, the commit of an episode, recovery.

The unit of commit is the episode. Its image files are written first, where no reader looks for them yet; then one
record with everything else is appended to the log beside the directory (see `directory.row_log`), and from that moment on the
episode is there: for this package's readers at once, for other programs with the next fold, which moves the log's
content into the dataset's own files. Folds happen when the dataset has doubled, so that all of them together cost no
more than a few writes of the final files, and when the writer is closed.

A new dataset is built in a hidden sibling folder and renamed into place with its first episode inside.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns, check_schema, prepare_episode
from stable_worldmodel.data.formats.directory.record import DirectoryLayout, FileSums, record_of, stored_record
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode, RowLog, log_path
from stable_worldmodel.data.formats.shared.disk import MANY_FILES, put_in_place, sync
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.data.journal import Journal, check_metadata, journal_path, make_header
from stable_worldmodel.data.lock import WriterLock, lock_path
from stable_worldmodel.data.registry import validate_write_mode
from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 200
LOG_BYTES = 64 << 20  # the log is read as a whole

Episode = Mapping[str, Sequence[Any] | np.ndarray]


class DirectoryWriter:
    """Appends complete episodes to the dataset in the directory `path`.

    mode: `append` continues an existing dataset after dropping what an interrupted writer left uncommitted, or creates
        it. `overwrite` builds a replacement beside the old directory and swaps it in when the writer is closed; after
        an exception or a kill the old dataset is still there. `error` raises FileExistsError when there is one.
    metadata: what the run was (env id, policy, seed, versions ...), JSON values; kept in the journal of a new dataset.
    fsync_every: seconds after which a commit also waits for the disk, so that it survives a power loss.
    keep: drop all episodes from this number on; for repairs.

    Raises DatasetLockedError while another writer is alive, ContractError when the directory holds something else. Not
    thread-safe.
    """

    format_name = ""
    fold_episodes = 1 << 62  # as many in the log are folded in any case

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "append",
        *,
        metadata: Mapping[str, Any] | None = None,
        fsync_every: float = 60.0,
        keep: int | None = None,
    ) -> None:
        self.path = Path(path).expanduser().resolve()
        self.mode = validate_write_mode(mode)
        self.num_episodes = 0
        self.metadata = check_metadata(metadata)
        self._fsync_every = fsync_every
        self._last_sync = time.monotonic()
        self._unsynced: list[Path] = []
        self._closed = False
        self._schema: dict[str, Column] = {}
        self._warned: set[str] = set()
        self._target: Path | None = None  # the directory that is being written to
        self._partial = self.path.with_name(f".{self.path.name}.partial")  # same file system, hidden from readers
        ensure_dir_exists(self.path.parent)
        with ExitStack() as stack:
            crashed = lock_path(self.path).exists()
            stack.enter_context(WriterLock(self.path))
            self._clean_up()
            exists = self._dataset_exists()
            if exists and mode == "error":
                raise FileExistsError(f"{self.path} exists; choose another path, or mode 'append' or 'overwrite'")
            self._replacing = exists and mode == "overwrite"
            if exists and not self._replacing:
                self._open(self.path, keep)
                if crashed or keep is not None:
                    self._remove_leftovers(self.path)
            self._held = stack.pop_all()

    # -- what a format supplies ---------------------------------------------------------------------------------------

    def _recognises(self, path: Path) -> bool:
        """Whether the directory `path` holds a dataset of this format."""
        raise NotImplementedError

    def _open_layout(self, path: Path, keep: int | None) -> DirectoryLayout:
        """Look at an existing dataset; ContractError when it cannot be continued, after the first `keep` episodes."""
        raise NotImplementedError

    def _check(self, columns: Columns) -> None:
        """Raise ContractError for names or values that the format cannot hold."""
        for name, values in columns.items():
            if "\0" in name or name.startswith(".") or len(name.encode()) > MAX_NAME_BYTES:
                raise ContractError(f"column name {name!r} cannot be the name of a file; rename it")
            if values.dtype == object:
                _check_texts(name, values)

    def _write_frames(self, target: Path, i: int, name: str, values: np.ndarray) -> FileSums:
        """Write the image files of one column of episode `i`."""
        raise NotImplementedError

    def _frame_files(self, target: Path, i: int, name: str, rows: int) -> Iterable[Path]:
        """Return all files that `_write_frames` may have written."""
        raise NotImplementedError

    def _remove_leftovers(self, target: Path) -> None:
        """Remove files of episodes from number `num_episodes` on."""
        raise NotImplementedError

    def _fold_into(self, target: Path, scratch: Path, logged: Sequence[LoggedEpisode], keep: int | None) -> list[Path]:
        """Add the logged episodes to the dataset's own files, prepared in `scratch` and renamed into place.

        A reader at any instant, and one after a kill at any instant, finds the episodes before or after. `keep` cuts
        to the first episodes instead. Returns what was renamed.
        """
        raise NotImplementedError

    # -- writing ------------------------------------------------------------------------------------------------------

    def write_episode(self, episode: Episode) -> None:
        """Check `episode` and commit it. Raises ContractError, before anything is written, when it does not fit."""
        if self._closed:
            raise RuntimeError(f"{self.path}: the writer is closed; open a new one with mode 'append'")
        columns = prepare_episode(episode, self._warned)
        if self._schema:
            columns = check_schema(columns, self._schema)
        self._check(columns)
        if self._schema:
            self._commit(columns)
        else:
            self._create({name: columns[name] for name in sorted(columns)})

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        """Commit the episodes one by one, as they come."""
        for episode in episodes:
            self.write_episode(episode)

    def close(self) -> None:
        """Write everything to the disk, put a replacement in place and release the lock. Twice is once."""
        self._close(publish=True)

    def __enter__(self) -> DirectoryWriter:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(publish=exc_type is None)

    def _close(self, publish: bool) -> None:
        self._closed = True
        with self._held:  # releases the lock, whatever happens
            if self._target is None:
                return
            self._finish()
            if self._replacing and publish:
                self._publish()
            elif self._replacing:
                logger.warning(
                    "%s was not replaced; the %d new episodes are in %s until the next writer opens",
                    self.path, self.num_episodes, self._partial,
                )  # fmt: skip

    def _create(self, columns: Columns) -> None:
        """Build a dataset around its first episode; then continue it like any other."""
        target = self._partial / self.path.name
        try:
            self._schema = {name: Column.of(values) for name, values in columns.items()}
            ensure_dir_exists(target)
            self._continue(target, uuid.uuid4().hex, self.metadata, 0)
            self._commit(columns)
            if not self._replacing:
                self._finish()
                self._publish()
                self._open(self.path, None)
        except BaseException:
            if self._target == target:
                self._log.close()
                self._journal.close()
            self._target = None
            self._clean_up()
            self._schema, self.num_episodes = {}, 0
            raise

    def _open(self, target: Path, keep: int | None) -> None:
        """Continue `target` after its last committed episode."""
        layout = self._open_layout(target, keep)
        self._schema = layout.columns
        episodes = len(layout.index.lengths) if keep is None else keep
        self._dataset_id = layout.dataset_id or uuid.uuid4().hex
        if layout.logged or layout.dataset_id is None or keep is not None:
            self._replace_files(target, layout.logged, keep)
        # Nobody knows how the episodes before a journal were made.
        self._continue(target, self._dataset_id, {}, episodes)
        unknown = range(self._journal.num_episodes, episodes)  # committed, then killed before the journal
        table = {name: layout.load(name) for name in self._schema if name not in layout.frames} if unknown else {}
        for i in unknown:
            self._journal.append(stored_record(layout, table, i))
        self._adopt_metadata(self._journal.header["metadata"])

    def _continue(self, target: Path, dataset_id: str, metadata: dict[str, Any], episodes: int) -> None:
        """Open log and journal of `target`, which has this many episodes in its files."""
        self._dataset_id = dataset_id
        self._log = RowLog(target, dataset_id, episodes)
        self._journal = Journal(journal_path(target))
        self._journal.begin(make_header(dataset_id, self._schema, metadata, episodes), episodes)
        self._target, self.num_episodes = target, episodes

    def _adopt_metadata(self, stored: dict[str, Any]) -> None:
        """The metadata of an existing dataset stays; say so when the caller brought other values."""
        changed = sorted(key for key in self.metadata if self.metadata[key] != stored.get(key))
        if changed:
            logger.warning("%s keeps the metadata it was created with; other values given for %s", self.path, changed)
        self.metadata = stored

    def _commit(self, columns: Columns) -> None:
        """Append one episode. The record in the log is the commit; files without it are invisible to every reader."""
        target = self._writing_to()
        i = self._log.first + self._log.size
        rows = len(next(iter(columns.values())))
        images = [name for name, column in self._schema.items() if column.kind == "image"]
        table = {name: _as_stored(columns[name]) for name in self._schema if name not in images}
        files: dict[str, FileSums] = {}

        def write(start: int, stop: int) -> None:
            for name in images[start:stop]:
                files[name] = self._write_frames(target, i, name, columns[name])

        try:
            in_threads(write, len(images), 1)
            self._log.append(rows, table, {"constant": sorted(name for name in images if files[name].constant)})
        except BaseException:
            if self._log.first + self._log.size == i:  # else it came between the commit and here
                for name in images:
                    for path in self._frame_files(target, i, name, rows):
                        path.unlink(missing_ok=True)
            raise
        self.num_episodes = i + 1
        self._journal.append(record_of(i, rows, table, files))
        self._after_commit()

    def _after_commit(self) -> None:
        """Fold or synchronise when it is time. The episode is safe: a full disk is the next one's trouble."""
        try:
            if self._log.size >= self._log.first or self._log.size >= self.fold_episodes or self._log.bytes > LOG_BYTES:
                self._fold()
            elif time.monotonic() - self._last_sync >= self._fsync_every:
                self._sync_all()
        except OSError as error:
            logger.warning("%s: committed, but not folded yet: %s", self.path, error)

    def _fold(self) -> None:
        """Move the log into the files of the dataset."""
        self._replace_files(self._writing_to(), self._log.episodes(), None)
        self._log.restart(self.num_episodes)

    def _replace_files(self, target: Path, logged: Sequence[LoggedEpisode], keep: int | None) -> None:
        scratch = self._partial / f"{self.path.name}.files"
        ensure_dir_exists(scratch)
        try:
            renamed = self._fold_into(target, scratch, logged, keep)
            sync([*renamed, target])
        finally:
            shutil.rmtree(scratch)
            if not any(self._partial.iterdir()):
                self._partial.rmdir()

    def _synced(self, new: Sequence[Path]) -> None:
        """Wait for frames and for `new`, before an index that names them is renamed into place."""
        sync([*self._unsynced, *new])
        self._unsynced.clear()
        self._last_sync = time.monotonic()

    def _written(self, files: Iterable[Path]) -> None:
        """Note new frames, which the next synchronisation waits for."""
        if len(self._unsynced) <= MANY_FILES:  # above that it waits for everything
            self._unsynced.extend(files)

    def _finish(self) -> None:
        """Fold what is left and close log and journal; an episode that cannot be folded stays in the log."""
        try:
            if self._log.size:
                self._fold()
            self._sync_all()
        finally:
            self._journal.close()
            if self._log.size:
                self._log.close()
            else:
                self._log.remove()
            self._target = None

    def _sync_all(self) -> None:
        self._synced([self._log.path])
        self._journal.sync()

    def _publish(self) -> None:
        """Move what was built beside `path` into place. A journal or log beside another dataset is ignored."""
        new = self._partial / self.path.name
        journal_path(new).replace(journal_path(self.path))
        put_in_place(new, self.path)
        log_path(self.path).unlink(missing_ok=True)  # of what was there before
        sync([self.path.parent])
        self._clean_up()

    # -- what is on disk ----------------------------------------------------------------------------------------------

    def _writing_to(self) -> Path:
        if self._target is None:
            raise RuntimeError(f"{self.path}: the writer lost its dataset after an error; open a new one")
        return self._target

    def _dataset_exists(self) -> bool:
        """Whether there is a dataset to continue or to replace. ContractError when there is anything else."""
        if self._recognises(self.path):
            return True
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if self.mode == "error":
            return True
        raise ContractError(f"{self.path} exists and is not a {self.format_name!r} dataset; choose another path")

    def _clean_up(self) -> None:
        """Remove what an earlier writer left in the hidden folder."""
        old = self._partial / f"{self.path.name}.old"
        if old.exists() and not self.path.exists():  # killed in the middle of a swap
            old.replace(self.path)
        if self._partial.exists():
            shutil.rmtree(self._partial)


def _check_texts(name: str, texts: np.ndarray) -> None:
    for text in texts:
        if text.endswith("\0"):
            raise ContractError(f"column {name!r}: text {text!r} ends with a NUL character, which would be lost")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ContractError(f"column {name!r}: text {text!r} is not valid Unicode ({error})") from error


def _as_stored(values: np.ndarray) -> np.ndarray:
    """Text in fixed width, numbers as they are."""
    return values.astype(np.str_) if values.dtype == object else values
