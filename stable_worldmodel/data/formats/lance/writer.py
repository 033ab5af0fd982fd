"""Writes episodes into Lance tables that are a valid dataset at every instant.

The unit of commit is the episode. The first one makes the tables, built in a hidden sibling directory and renamed into
place. The following ones are appended to a log beside the dataset, which readers know, and are moved into the tables
many at a time, see `lance.append`. Public tools see an episode once it has been moved; all are when the writer is
closed.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import EPISODE_DATA_KEY
from stable_worldmodel.data.episode import prepare_episode
from stable_worldmodel.data.formats.hdf5.columns import UNIQUE_COLUMNS, check_patterns
from stable_worldmodel.data.formats.lance import append, tables
from stable_worldmodel.data.formats.lance.append import Appender, make_record, table_path
from stable_worldmodel.data.formats.lance.location import Location
from stable_worldmodel.data.formats.lance.rows import Encoder, as_stored, fit, fit_data
from stable_worldmodel.data.formats.lance.schema import EPISODES, Places, plan, schemas_of
from stable_worldmodel.data.formats.lance.store import checksums
from stable_worldmodel.data.journal import Journal, check_metadata, journal_path, make_header
from stable_worldmodel.data.lock import WriterLock
from stable_worldmodel.data.registry import validate_write_mode
from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

Episode = Mapping[str, Sequence[Any] | np.ndarray]


class LanceWriter:
    """Appends complete episodes to the tables at `location`.

    mode: `append` continues an existing dataset after dropping what an interrupted writer left uncommitted, or creates
        it. `overwrite` builds a replacement beside the old tables and puts it in their place when the writer is
        closed; after an exception or a kill the old dataset is still there. `error` raises FileExistsError when there
        is one.
    metadata: what the run was (env id, policy, seed, versions ...), JSON values; kept in the journal of a new dataset.
    unique_columns: names and patterns (`goal.*`) of image columns; a new dataset holds a frame of these once for all
        rows in sequence that show it. Public tools find them among the per-episode data; `()` stores every column row
        by row. An existing dataset goes on as it was created.
    quality: of JPEG, 1..100.
    commit_every: move episodes into the tables when so many are logged; default: at 64 MiB or after 30 s.
    fsync_every: seconds after which a commit also waits for the disk, so that it survives a power loss.
    video: arguments of `mp4.encode_video`, to store images as one MP4 per episode and column; None stores JPEG.

    Episodes may carry per-episode constants under `_episode_data`; their keys are those of the first episode. Raises
    DatasetLockedError while another writer is alive. Not thread-safe.
    """

    def __init__(
        self,
        location: Location,
        mode: str = "append",
        *,
        metadata: Mapping[str, Any] | None = None,
        unique_columns: Sequence[str] = UNIQUE_COLUMNS,
        quality: int = 95,
        commit_every: int | None = None,
        fsync_every: float = 60.0,
        video: Mapping[str, Any] | None = None,
    ) -> None:
        if not 1 <= quality <= 100 or (commit_every is not None and commit_every < 1):
            raise ContractError(f"quality={quality}, commit_every={commit_every}: expected 1..100 and 1 or more")
        self.path = Path(location.anchor)
        self.mode = validate_write_mode(mode)
        self.num_episodes = 0
        self.metadata = check_metadata(metadata)
        self._location = location
        self._unique_columns = check_patterns(unique_columns)
        self._quality, self._video = quality, video
        self._commit_every, self._fsync_every = commit_every, fsync_every
        self._closed = False
        self._warned: set[str] = set()
        self._appender: Appender | None = None
        ensure_dir_exists(self.path.parent)
        with ExitStack() as stack:
            stack.enter_context(WriterLock(self.path))
            exists = tables.exists(Path(location.frames))
            if exists and mode == "error":
                raise FileExistsError(f"{self.path} exists; choose another path, or mode 'append' or 'overwrite'")
            self._discard_partial()
            self._replacing = exists and mode == "overwrite"
            if exists and not self._replacing:
                self._open(location)
            self._held = stack.pop_all()

    def write_episode(self, episode: Episode) -> None:
        """Check `episode` and commit it. Raises ContractError, before anything is written, when it does not fit."""
        if self._closed:
            raise RuntimeError(f"{self.path}: the writer is closed; open a new one with mode 'append'")
        columns = as_stored(prepare_episode(episode, self._warned))
        data: Any = episode.get(EPISODE_DATA_KEY)
        if self._appender is None and (self._replacing or not tables.exists(Path(self._location.frames))):
            self._create(columns, data or {})
            return
        appender = self._appender or self._open(self._location)  # the latter after an error in `_create`
        dropped: set[str] = set()
        columns = fit(columns, appender.places, dropped)
        self._warn_of(dropped)
        values = fit_data(data, appender.schemas.get(EPISODES), appender.data_names)
        rows = self._encoder.encode(appender.num_episodes, columns, values)
        crc32 = checksums(appender.places, appender.data_names, rows)
        appender.append(make_record(appender.num_episodes, rows, columns.get("seed"), crc32), rows)
        self.num_episodes = appender.num_episodes
        appender.commit_if_due(self._fsync_every)

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        """Commit the episodes one by one, as they come."""
        for episode in episodes:
            self.write_episode(episode)

    def close(self) -> None:
        """Move everything into the tables and to the disk, put a replacement in place, release the lock.

        Twice is once.
        """
        self._close(publish=True)

    def __enter__(self) -> LanceWriter:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(publish=exc_type is None)

    def _close(self, publish: bool) -> None:
        appender, self._closed = self._appender, True
        with self._held:  # releases the lock, whatever happens
            if appender is None:
                return
            self._appender = None
            try:
                appender.finish()
            except (OSError, ValueError, RuntimeError) as error:  # as pylance may call a full disk
                if publish:
                    raise
                logger.warning("%s: %d episodes are still in its log: %s", self.path, appender.logged, error)
            if self._replacing and publish:
                append.replace(appender.location, self._location, appender.schemas)
                self._discard_partial()
            elif self._replacing:
                logger.warning(
                    "%s was not replaced; the %d new episodes are in %s until the next writer opens",
                    self.path, appender.num_episodes, self._location.partial,
                )  # fmt: skip

    def _create(self, columns: dict[str, np.ndarray], data: Mapping[str, Any]) -> None:
        """Build tables around the first episode; then continue them like any others."""
        columns = {name: columns[name] for name in sorted(columns)}
        places = plan(columns, self._unique_columns, self._video is not None)
        dataset_id = uuid.uuid4().hex
        schemas = schemas_of(places, data, dataset_id)
        values = fit_data(data, schemas.get(EPISODES), sorted(data))
        rows = self._encoder_of(places, schemas).encode(0, columns, values)
        record = make_record(0, rows, columns.get("seed"), checksums(places, sorted(data), rows))
        self._discard_partial()  # of an attempt that failed
        partial = self._partial_location()
        ensure_dir_exists(Path(partial.folder))
        for table in append.COMMIT_ORDER:
            if table in rows:
                tables.write(table_path(partial, table), schemas[table], [rows[table]])
                tables.sync(table_path(partial, table), 0)
        with Journal(journal_path(Path(partial.anchor))) as journal:
            schema = {name: place.column for name, place in places.items()}
            journal.begin(make_header(dataset_id, schema, self.metadata, first_episode=0), 1)
            journal.append(record)
            journal.sync()
        if not self._replacing:
            append.publish(partial, self._location, schemas)
            self._discard_partial()
        self._open(partial if self._replacing else self._location)

    def _partial_location(self) -> Location:
        """The same names, in a hidden directory."""
        anchor = self._location.partial / self.path.name
        inside = self._location.folder == self._location.anchor
        return Location(str(anchor if inside else anchor.parent), self._location.stem, str(anchor))

    def _open(self, location: Location) -> Appender:
        """Continue the tables at `location`."""
        self._appender = appender = Appender(location, self.metadata, self._commit_every)
        self._encoder = self._encoder_of(appender.places, appender.schemas)
        self.num_episodes = appender.num_episodes
        self._adopt_metadata(appender.journal.header["metadata"])
        return appender

    def _encoder_of(self, places: Places, schemas: Mapping[str, Any]) -> Encoder:
        return Encoder(places, schemas, self._quality, self._video or {})

    def _adopt_metadata(self, stored: dict[str, Any]) -> None:
        """The metadata of an existing dataset stays; say so when the caller brought other values."""
        changed = sorted(key for key in self.metadata if self.metadata[key] != stored.get(key))
        if changed:
            logger.warning("%s keeps the metadata it was created with; other values given for %s", self.path, changed)
        self.metadata = stored

    def _warn_of(self, dropped: set[str]) -> None:
        for name in sorted(dropped - self._warned):
            logger.warning("column %r is not stored: the tables, made by another tool, have no place for it", name)
        self._warned |= dropped

    def _discard_partial(self) -> None:
        if self._location.partial.exists():
            shutil.rmtree(self._location.partial)
