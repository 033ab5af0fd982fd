"""Writes episodes into Lance tables that are a valid dataset at every instant.

A version of a table per episode would cost more than encoding the episode does. Episodes are first appended to the log
beside the dataset, which is what commits them and which readers know, and folded into the tables many at a time: rows
of the side tables first, those of the frames last. Public tools see an episode once it has been folded; all are when
the writer is closed.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import EPISODE_DATA_KEY
from stable_worldmodel.data.episode import Columns, prepare_episode
from stable_worldmodel.data.formats.directory.row_log import RowLog, log_content, logged_episodes
from stable_worldmodel.data.formats.hdf5.columns import UNIQUE_COLUMNS, check_patterns
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.fitting import as_stored, fit, fit_data
from stable_worldmodel.data.formats.lance.location import Location
from stable_worldmodel.data.formats.lance.rows import Encoder, Rows, make_record
from stable_worldmodel.data.formats.lance.schema import (
    EPISODE,
    EPISODES,
    FRAMES,
    STEP,
    TABLES,
    VIDEOS,
    Places,
    data_value,
    identity,
    plan,
    schemas_of,
    video_schema,
)
from stable_worldmodel.data.formats.lance.store import Store, open_store, rows_of
from stable_worldmodel.data.formats.lance.swap import publish_tables
from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.data.formats.shared.writer import Episode, EpisodeWriter
from stable_worldmodel.data.journal import Journal, journal_path, make_header
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

GROUP_BYTES, GROUP_SECONDS = 64 << 20, 30.0  # what is logged at most before it is folded
TIDY_EVERY = 64  # folds
FPS = 10  # as in the public package; nominal, readers go by frame number


class LanceWriter(EpisodeWriter):
    """Appends complete episodes to the tables at `location`; see `EpisodeWriter` for `mode` and the other arguments.

    unique_columns: names and patterns (`goal.*`) of image columns; a new dataset holds a frame of these once for all
        rows in sequence that show it. Public tools find them among the per-episode data; `()` stores every column row
        by row. An existing dataset goes on as it was created.
    quality: of JPEG, 1..100.
    commit_every: fold when so many episodes are logged; default: at 64 MiB or after 30 s.
    video: arguments of `mp4.encode_video`, to store images as one MP4 per episode and column; None stores JPEG.

    Episodes may carry per-episode constants under `_episode_data`; their keys are those of the first episode.
    """

    def __init__(
        self,
        location: Location,
        mode: str = "append",
        *,
        unique_columns: Sequence[str] = UNIQUE_COLUMNS,
        quality: int = 95,
        commit_every: int | None = None,
        video: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not 1 <= quality <= 100 or (commit_every is not None and commit_every < 1):
            raise ContractError(f"quality={quality}, commit_every={commit_every}: expected 1..100 and 1 or more")
        tables.library()  # an error about it should come before the first episode
        self._location = location
        self._unique_columns = check_patterns(unique_columns)
        self._quality, self._video = quality, video
        self._commit_every = commit_every
        super().__init__(location.anchor, mode, **kwargs)

    def write_episode(self, episode: Episode) -> None:
        """Check `episode` and commit it. Raises ContractError, before anything is written, when it does not fit."""
        if self._closed:
            raise RuntimeError(f"{self.path}: the writer is closed; open a new one with mode 'append'")
        columns = as_stored(prepare_episode(episode, self._warned))
        data: Any = episode.get(EPISODE_DATA_KEY) or {}
        if not self._is_open and (self._replacing or not tables.versions(self._location.path(FRAMES))):
            self._create_from({name: columns[name] for name in sorted(columns)}, data)
            return
        if not self._is_open:  # an error came after the first episode had been published
            self._open(self.path)
        dropped: set[str] = set()
        columns = fit(columns, self._store.places, dropped)
        for name in sorted(dropped - self._warned):
            logger.warning("column %r is not stored: the tables, made by another tool, have no place for it", name)
        self._warned |= dropped
        data = fit_data(data, self._schemas.get(EPISODES), self._store.data_names)
        self._append(self._encoder.encode(self._log.first + self._log.size, columns, data))

    # -- creating, opening, closing -----------------------------------------------------------------------------------

    def _exists(self) -> bool:
        if tables.versions(self._location.path(FRAMES)):
            others = self._location.others()
            if self.mode == "overwrite" and others:
                raise ContractError(f"{self.path} also holds {others}, which would be lost; write to another path")
            return True
        if not _is_table(self._location.path(FRAMES)):
            raise ContractError(f"{self._location.path(FRAMES)} exists and is no Lance table; choose another path")
        for side in map(self._location.path, (EPISODES, VIDEOS)):
            if tables.versions(side) and STEP in tables.Table(str(side)).schema.names:
                raise ContractError(f"{side} is a dataset and would belong to {self.path.name}; choose another name")
        return False

    def _create_from(self, columns: Columns, data: Mapping[str, Any]) -> None:
        """Build tables around the first episode."""
        self._discard_partial()  # of an attempt that failed
        places = plan(columns, self._unique_columns, self._video is not None)
        dataset_id, data = uuid.uuid4().hex, {key: data_value(key, value) for key, value in data.items()}
        schemas = schemas_of(places, data, dataset_id, self._video is not None)
        rows = self._encoder_of(places, schemas).encode(0, columns, data)
        location = self._location.moved(self._new)
        ensure_dir_exists(Path(location.folder))
        _append_rows(location, schemas, [rows])
        with Journal(journal_path(self._new)) as journal:
            schema = {name: place.column for name, place in places.items()}
            journal.begin(make_header(dataset_id, schema, self.metadata, first_episode=0), 1)
            journal.append(make_record(0, rows, places, sorted(data)))
            journal.sync()
        if not self._replacing:
            self._publish()
        self._open(self._new if self._replacing else self.path)

    def _open(self, target: Path) -> None:
        """Continue the tables at `target`, after dropping what an interrupted fold left in them."""
        store = _recovered(self._location.moved(target))
        self._store, self._schemas = store, _schemas(store)
        self.num_episodes = len(store.lengths)
        schema = {name: place.column for name, place in store.places.items()}
        header = make_header(store.frames.id or "", schema, {}, first_episode=self.num_episodes)
        self._journal = Journal(journal_path(target))
        self._journal.begin(header, self.num_episodes)  # nobody knows how the episodes before a journal were made
        first = self._journal.num_episodes
        if first < self.num_episodes:  # committed, then killed before the journal
            for i, rows in enumerate(store.episodes(first, self.num_episodes, [*store.places]), first):
                self._journal.append(make_record(i, rows, store.places, store.data_names))
        self._log = RowLog(target, store.frames.id or "", self.num_episodes)
        self._target, self._is_open = target, True
        self._folds, self._last_fold, self._interrupted = 0, time.monotonic(), False
        self._group: list[Rows] = []  # what is in the log
        self._adopt_metadata(self._journal.header["metadata"])
        self._encoder = self._encoder_of(store.places, self._schemas)

    def _encoder_of(self, places: Places, schemas: Mapping[str, pa.Schema]) -> Encoder:
        video = dict(self._video or {})
        video["fps"] = self._frame_rate(video.get("fps"), FPS)
        return Encoder(places, schemas, self._quality, video)

    def _finish(self) -> None:
        """Fold what is left, tidy up and close; an episode that cannot be folded stays in the log."""
        try:
            if self._log.size:
                self._fold()
            self._tidy()
            self._sync()
        finally:
            self._journal.close()
            self._log.close() if self._log.size else self._log.remove()
            self._is_open = False

    def _identity(self) -> str | None:
        frames = self._location.path(FRAMES)
        return tables.Table(str(frames)).id if tables.versions(frames) else None

    def _publish(self) -> None:
        publish_tables(self._location)
        self._discard_partial()

    # -- one episode --------------------------------------------------------------------------------------------------

    def _append(self, rows: Rows) -> None:
        """Commit one episode: it is complete when the log has it."""
        i = self._log.first + self._log.size
        record = make_record(i, rows, self._store.places, self._store.data_names)
        self._log.append(rows[FRAMES].num_rows, {table: _stream(batch) for table, batch in rows.items()}, {})
        self._group.append(rows)
        self.num_episodes = i + 1
        self._journal.append(record)
        try:
            if self._group_is_complete():
                self._fold()
            if time.monotonic() - self._last_sync >= self._fsync_every:
                self._sync()
        except (OSError, ContractError) as error:  # the episode is safe: a full disk is the next one's trouble
            self._last_fold = time.monotonic()
            logger.warning("%s: %d episodes stay in the log for now: %s", self.path, self._log.size, error)

    def _group_is_complete(self) -> bool:
        if self._commit_every is not None:
            return self._log.size >= self._commit_every
        return self._log.bytes >= GROUP_BYTES or time.monotonic() - self._last_fold >= GROUP_SECONDS

    def _fold(self) -> None:
        """Move the log into the tables. The new version of the frames is what counts."""
        if self._interrupted:
            keep_episodes(self._store.location, self._log.first)
        self._interrupted = True
        if len(self._group) != self._log.size:  # an interrupt came in between
            self._group = [rows_of(episode) for episode in self._log.episodes()]
        _append_rows(self._store.location, self._schemas, self._group)
        self._log.restart(self.num_episodes)
        self._interrupted, self._group = False, []
        self._last_fold = time.monotonic()
        self._folds += 1
        if self._folds % TIDY_EVERY == 0:
            self._tidy()

    def _sync(self) -> None:
        """Wait until the log has reached the disk; the tables have."""
        sync([self._log.path, self._log.path.parent])
        self._journal.sync()
        self._last_sync = time.monotonic()

    def _tidy(self) -> None:
        """Join small fragments and remove old versions."""
        for table in self._schemas:
            tables.tidy(self._store.location.path(table), join=table != VIDEOS)  # whose rows are large


def _is_table(path: Path) -> bool:
    """Whether nothing else than a table, or what became none, is at a path."""
    if not path.is_dir():
        return not path.exists()
    return {entry.name for entry in path.iterdir()} <= {"data", "_transactions", "_versions"}


def _stream(batch: pa.RecordBatch) -> np.ndarray:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return np.frombuffer(sink.getvalue(), np.uint8)


def _append_rows(location: Location, schemas: Mapping[str, pa.Schema], episodes: Sequence[Rows]) -> None:
    for table in TABLES:
        if table in schemas:
            tables.append(location.path(table), schemas[table], [rows[table] for rows in episodes])


def keep_episodes(location: Location, episodes: int) -> None:
    """Cut the tables after their first `episodes` episodes, frames first."""
    for path in map(location.path, reversed(TABLES)):
        if tables.versions(path):
            tables.keep_episodes(path, episodes, EPISODE)


def _recovered(location: Location) -> Store:
    """Open tables as a writer continues them: with all episodes in them, and nothing of an interrupted fold."""
    for path in map(location.path, TABLES):
        tables.drop_torn_versions(path)
    store = open_store(location)
    if store.losses:
        logger.warning("%s; they are written again", store.losses)
    known = {EPISODE, STEP, *(place.copy or place.field for place in store.places.values())}
    unknown = sorted(set(store.frames.schema.names) - known)
    if unknown:
        raise ContractError(
            f"{store.frames.uri}: cannot be appended to, the types of {unknown} are unknown; copy its episodes into a "
            "new dataset: writer.write_episodes(load_dataset(path).iter_episodes())"
        )
    if store.frames.id is None:  # tables of another tool
        about = identity(uuid.uuid4().hex, [*store.tables])
        for table in store.tables:  # the frames last
            tables.set_metadata(location.path(table), about)
        store = open_store(location)
    for opened in store.tables.values():
        tables.restore(opened)
    keep_episodes(location, store.in_tables)
    logged = logged_episodes(log_content(Path(location.anchor)), store.frames.id, store.in_tables)
    if logged:
        _append_rows(location, _schemas(store), [rows_of(episode) for episode in logged])
    return store


def _schemas(store: Store) -> dict[str, pa.Schema]:
    """The schemas in which rows are appended."""
    found = {name: table.schema for name, table in store.tables.items()}
    if VIDEOS in found:  # of which newer storage versions tell another type
        found[VIDEOS] = video_schema(found[VIDEOS].metadata or {})
    return found
