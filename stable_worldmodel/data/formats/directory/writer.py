"""What the writers of directory datasets share: modes, lock, checks, the commit of an episode, recovery.

The unit of commit is the episode. Its image files are written first, where no reader looks for them yet; then one
record with everything else is appended to the log beside the directory (see `directory.row_log`), and from that moment
on the episode is there: for this package's readers at once, for other programs with the next fold, which moves the
log's content into the dataset's own files. Folds happen when the dataset has doubled, so that all of them together cost
no more than a few writes of the final files, and when the writer is closed.

A new dataset is built in a hidden sibling folder and renamed into place with its first episode inside.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns
from stable_worldmodel.data.formats.directory.record import DirectoryLayout, FileSums, record_of, stored_record
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode, RowLog, log_path
from stable_worldmodel.data.formats.shared.disk import MANY_FILES, sync
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.data.formats.shared.writer import EpisodeWriter
from stable_worldmodel.data.journal import Journal, journal_path, make_header
from stable_worldmodel.data.registry import PathLike
from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 200
LOG_BYTES = 64 << 20  # a larger log is folded, unless the fold would write more than that


class DirectoryWriter(EpisodeWriter):
    """Appends complete episodes to the dataset in the directory `path`.

    keep: drop all episodes from this number on; for repairs.
    The other arguments are those of `EpisodeWriter`.
    """

    format_name = ""
    fold_episodes = 1 << 62  # as many in the log are folded in any case

    def __init__(self, path: PathLike, mode: str = "append", *, keep: int | None = None, **options: Any) -> None:
        self._keep = keep
        self._unsynced: list[Path] = []
        super().__init__(path, mode, **options)

    # -- what a format supplies ---------------------------------------------------------------------------------------

    def _recognises(self, path: Path) -> bool:
        """Whether the directory `path` holds a dataset of this format."""
        raise NotImplementedError

    def _identity(self) -> str | None:
        return self._read_identity(self.path) if self._recognises(self.path) else None

    def _read_identity(self, path: Path) -> str | None:
        """Return the identity of a dataset of this format; may raise."""
        raise NotImplementedError

    def _open_layout(self, path: Path, keep: int | None) -> DirectoryLayout:
        """Look at an existing dataset; ContractError when it cannot be continued, after the first `keep` episodes."""
        raise NotImplementedError

    def _check(self, columns: Columns) -> None:
        """Raise ContractError for names or values that the format cannot hold."""
        for name, values in columns.items():
            if name.startswith(".") or len(name.encode()) > MAX_NAME_BYTES:
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

    def _fold_bytes(self, target: Path) -> int:
        """About how many bytes of the files in `target` a fold writes anew."""
        return 0

    def _fold_into(self, target: Path, scratch: Path, logged: Sequence[LoggedEpisode], keep: int | None) -> list[Path]:
        """Add the logged episodes to the dataset's own files, prepared in `scratch` and renamed into place.

        A reader at any instant, and one after a kill at any instant, finds the episodes before or after. `keep` cuts
        to the first episodes instead. Returns what was renamed.
        """
        raise NotImplementedError

    # -- writing ------------------------------------------------------------------------------------------------------

    def _create(self, columns: Columns) -> None:
        try:
            self._schema = {name: Column.of(values) for name, values in columns.items()}
            ensure_dir_exists(self._new)
            self._continue(self._new, uuid.uuid4().hex, self.metadata, 0)
            self._commit(columns)
            if not self._replacing:
                self._finish()
                self._publish()
                self._open(self.path)
        except BaseException:
            if self._is_open:
                self._log.close()
                self._journal.close()
            self._is_open, self.num_episodes = False, 0
            self._discard_partial()
            raise

    def _open(self, target: Path) -> None:
        layout = self._open_layout(target, self._keep)
        if self._keep is None and layout.lost.columns:
            raise ContractError(f"{self.path}: {layout.lost}; restore a copy, nothing can be added without them")
        if self._keep is None and layout.lost:
            logger.warning("%s: %s; new ones take their numbers", self.path, layout.lost)
        self._schema = layout.columns
        episodes = len(layout.index.lengths) if self._keep is None else self._keep
        self._dataset_id = layout.dataset_id or uuid.uuid4().hex
        if layout.logged or layout.dataset_id is None or self._keep is not None:
            self._replace_files(target, layout.logged, self._keep)
        # Nobody knows how the episodes before a journal were made.
        self._continue(target, self._dataset_id, {}, episodes)
        unknown = range(self._journal.num_episodes, episodes)  # committed, then killed before the journal
        table = {name: layout.load(name) for name in self._schema if name not in layout.frames} if unknown else {}
        for i in unknown:
            self._journal.append(stored_record(layout, table, i))
        self._adopt_metadata(self._journal.header["metadata"])
        if self._crashed or layout.lost or self._keep is not None:
            self._remove_leftovers(target)

    def _continue(self, target: Path, dataset_id: str, metadata: dict[str, Any], episodes: int) -> None:
        """Open log and journal of `target`, which has this many episodes in its files."""
        self._dataset_id = dataset_id
        self._log = RowLog(target, dataset_id, episodes)
        self._log_limit = max(LOG_BYTES, self._fold_bytes(target))
        self._journal = Journal(journal_path(target))
        self._journal.begin(make_header(dataset_id, self._schema, metadata, episodes), episodes)
        self._target, self._is_open, self.num_episodes = target, True, episodes

    def _commit(self, columns: Columns) -> None:
        """Append one episode. The record in the log is the commit; files without it are invisible to every reader."""
        target = self._target
        i = self._log.first + self._log.size
        rows = len(next(iter(columns.values())))
        images = [name for name, column in self._schema.items() if column.kind == "image"]
        table = {name: _as_stored(columns[name]) for name in self._schema if name not in images}
        files: dict[str, FileSums] = {}
        unsynced = len(self._unsynced)

        def write(start: int, stop: int) -> None:
            for name in images[start:stop]:
                files[name] = self._write_frames(target, i, name, columns[name])

        try:
            in_threads(write, len(images), 1)
            self._log.append(rows, table, {"constant": sorted(name for name in images if files[name].constant)})
        except BaseException:
            if self._log.first + self._log.size == i:  # else it came between the commit and here
                del self._unsynced[unsynced:]
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
            log = self._log
            if log.size >= log.first or log.size >= self.fold_episodes or log.bytes > self._log_limit:
                self._fold()
            elif time.monotonic() - self._last_sync >= self._fsync_every:
                self._sync_all()
        except OSError as error:
            logger.warning("%s: committed, but not folded yet: %s", self.path, error)

    def _fold(self) -> None:
        """Move the log into the files of the dataset."""
        self._replace_files(self._target, self._log.episodes(mapped=True), None)
        self._log.restart(self.num_episodes)
        self._log_limit = max(LOG_BYTES, self._fold_bytes(self._target))

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
        sync([*self._unsynced, *{path.parent for path in self._unsynced}, *new])
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
            self._is_open = False

    def _sync_all(self) -> None:
        self._synced([self._log.path])
        self._journal.sync()

    def _publish(self) -> None:
        super()._publish()
        log_path(self.path).unlink(missing_ok=True)  # of what was there before

    def _exists(self) -> bool:
        if self._recognises(self.path):
            return True
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if self.mode == "error":
            return True
        raise ContractError(f"{self.path} exists and is not a {self.format_name!r} dataset; choose another path")


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
