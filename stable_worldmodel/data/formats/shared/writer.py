"""What the writers of all formats promise in the same way: modes, one writer at a time, checks, replacement.

A new dataset is built in a hidden sibling folder and moved into place with its first episode inside; one that replaces
another is moved when it is closed. How an episode is committed is up to the format.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.episode import Columns, check_schema, prepare_episode
from stable_worldmodel.data.formats.shared.swap import discard, finish_publish, publish
from stable_worldmodel.data.journal import building_path, check_metadata
from stable_worldmodel.data.lock import WriterLock, lock_path
from stable_worldmodel.data.registry import PathLike, validate_write_mode

logger = logging.getLogger(__name__)

Episode = Mapping[str, Sequence[Any] | np.ndarray]
Self = TypeVar("Self", bound="EpisodeWriter")


class EpisodeWriter:
    """Appends complete episodes to the dataset at `path`; used as a context manager.

    mode: `append` continues an existing dataset after dropping what an interrupted writer left uncommitted, or creates
        it. `overwrite` builds a replacement beside the old dataset and swaps it in when the writer is closed; after an
        exception or a kill the old one is still there. `error` raises FileExistsError when there is one.
    metadata: what the run was (env id, policy, seed, versions ...), JSON values; kept in the journal of a new dataset.
    fsync_every: seconds after which a commit also waits for the disk, so that it survives a power loss.

    Raises DatasetLockedError while another writer is alive, ContractError when something else is at `path`. Not
    thread-safe.

    Attributes:
        num_episodes: committed ones, those of earlier sessions included.
        metadata: as the dataset keeps it.
    """

    def __init__(
        self,
        path: PathLike,
        mode: str = "append",
        *,
        metadata: Mapping[str, Any] | None = None,
        fsync_every: float = 60.0,
    ) -> None:
        self.path = Path(path).expanduser().resolve()
        self.mode = validate_write_mode(mode)
        self.num_episodes = 0
        self.metadata = check_metadata(metadata)
        self._fsync_every = fsync_every
        self._last_sync = time.monotonic()
        self._schema: dict[str, Column] = {}
        self._target = self.path  # what is being written to, while `_is_open`
        self._is_open = False
        self._new = building_path(self.path)  # its journal lies beside it
        self._partial = self._new.parent
        self._warned: set[str] = set()
        self._closed = False
        ensure_dir_exists(self.path.parent)
        with ExitStack() as stack:
            self._crashed = lock_path(self.path).exists()
            self._lock = stack.enter_context(WriterLock(self.path))
            finish_publish(self.path, self._identity)
            exists = self._exists()
            if exists and mode == "error":
                raise FileExistsError(f"{self.path} exists; choose another path, or mode 'append' or 'overwrite'")
            self._discard_partial()
            self._replacing = exists and mode == "overwrite"
            if exists and not self._replacing:
                self._open(self.path)
            self._held = stack.pop_all()

    # -- what a format supplies ---------------------------------------------------------------------------------------

    def _exists(self) -> bool:
        """Whether there is a dataset to continue or to replace. ContractError when there is anything else."""
        raise NotImplementedError

    def _identity(self) -> str | None:
        """The identity of the dataset at `path`, if it is quick to find; may raise."""
        return None

    def _check(self, columns: Columns) -> None:
        """Raise ContractError for names or values that the format cannot hold."""

    def _create(self, columns: Columns) -> None:
        """Build a dataset around its first episode and `_open` it; `_publish` it first unless it is a replacement."""
        raise NotImplementedError

    def _open(self, target: Path) -> None:
        """Continue `target` after its last commit: set `_target`, `_is_open`, `_schema` and `num_episodes`."""
        raise NotImplementedError

    def _commit(self, columns: Columns) -> None:
        """Append one episode."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Bring everything to the disk and close it; unset `_is_open`."""
        raise NotImplementedError

    # -- writing ------------------------------------------------------------------------------------------------------

    def write_episode(self, episode: Episode) -> None:
        """Check `episode` and commit it. Raises ContractError, before anything is written, when it does not fit."""
        if self._closed:
            raise RuntimeError(f"{self.path}: the writer is closed; open a new one with mode 'append'")
        self._lock.check()
        columns = prepare_episode(episode, self._warned)
        if not self._is_open:
            self._check(columns)
            self._create({name: columns[name] for name in sorted(columns)})
            return
        columns = check_schema(columns, self._schema)
        self._check(columns)
        self._commit(columns)

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        """Commit the episodes one by one, as they come."""
        for episode in episodes:
            self.write_episode(episode)

    def close(self) -> None:
        """Write everything to the disk, put a replacement in place and release the lock. Twice is once."""
        self._close(publish=True)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(publish=exc_type is None)

    def _close(self, publish: bool) -> None:
        self._closed = True
        with self._held:  # releases the lock, whatever happens
            if not self._is_open:
                return
            self._finish()
            if self._replacing and publish:
                self._publish()
            elif self._replacing:
                logger.warning(
                    "%s was not replaced; the %d new episodes are in %s until the next writer opens",
                    self.path, self.num_episodes, self._partial,
                )  # fmt: skip

    def _adopt_metadata(self, stored: dict[str, Any]) -> None:
        """The metadata of an existing dataset stays; say so when the caller brought other values."""
        changed = sorted(key for key in self.metadata if self.metadata[key] != stored.get(key))
        if changed:
            logger.warning("%s keeps the metadata it was created with; other values given for %s", self.path, changed)
        self.metadata = stored

    def _frame_rate(self, given: float | None, default: int) -> int:
        """Frames per second of videos: `given`, else `fps` or `render_fps` of the metadata, else `default`."""
        rate = given or self.metadata.get("fps") or self.metadata.get("render_fps")
        return max(1, round(rate)) if isinstance(rate, (int, float)) else default

    # -- the hidden folder --------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Move what was built into place."""
        publish(self.path)
        self._discard_partial()

    def _discard_partial(self) -> None:
        """Remove what an earlier writer left in the hidden folder."""
        discard(self.path)
