"""Tables open for appending: recovery of what a killed writer left, the log, and moving it into the tables."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.location import Location
from stable_worldmodel.data.formats.lance.log import Log, Logs, Rows
from stable_worldmodel.data.formats.lance.rows import numbers
from stable_worldmodel.data.formats.lance.schema import (
    EPISODE,
    EPISODES,
    FRAMES,
    STEP,
    VIDEO_BYTES,
    VIDEOS,
    video_schema,
)
from stable_worldmodel.data.formats.lance.store import Store, checksums, open_store, stored_rows
from stable_worldmodel.data.journal import Journal, journal_path, make_header
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

GROUP_BYTES, GROUP_SECONDS = 64 << 20, 30.0  # what is logged at most before it is moved into the tables
TIDY_EVERY = 64  # commits
COMMIT_ORDER = (EPISODES, VIDEOS, FRAMES)  # readers go by the frames


class Appender:
    """The tables at a location, continued after their last complete episode. The caller holds the lock.

    metadata: of a dataset without episodes. commit_every: see LanceWriter.
    """

    def __init__(self, location: Location, metadata: Mapping[str, Any], commit_every: int | None = None) -> None:
        self.location = location
        self._commit_every = commit_every
        self._log: Log | None = None
        self._last_commit = self.last_sync = time.time()
        self._on_disk = 0.0  # files changed before have reached the disk
        self._commits = 0  # since tables were tidied up
        self._failed = False  # whether the last commit left something in the tables
        store = recovered(location)
        self.places, self.data_names = store.places, store.data_names
        self.schemas = _schemas(store)
        _check_fields(store)
        self.num_episodes = len(store.lengths)
        self._group = [episode.rows for episode in store.pending]  # logged, and not in the tables yet
        self._group_bytes = 0
        self.dataset_id = store.frames.id or _adopt(store)
        self.journal = self._continued_journal(store, metadata)
        if location.log.is_dir():
            self._commit()
            self.sync()

    def _continued_journal(self, store: Store, metadata: Mapping[str, Any]) -> Journal:
        schema = {name: place.column for name, place in self.places.items()}
        known = {} if self.num_episodes else metadata  # nobody knows how the episodes before a journal were made
        journal = Journal(journal_path(Path(self.location.anchor)))
        journal.begin(make_header(self.dataset_id, schema, known, first_episode=self.num_episodes), self.num_episodes)
        for i in range(journal.num_episodes, self.num_episodes):  # committed, then killed before the journal
            rows = stored_rows(store, i, [*store.places])
            journal.append(make_record(i, rows, _seed(store, rows), checksums(store.places, store.data_names, rows)))
        return journal

    @property
    def logged(self) -> int:
        """Episodes that are not in the tables yet."""
        return len(self._group)

    def append(self, record: Mapping[str, Any], rows: Rows) -> None:
        """Log one episode. It is complete when the log has it; the journal then says so."""
        if self._log is None:
            self._log = Log(self.location.log, self.num_episodes, self.dataset_id)
        size = self._log.size
        try:
            self._log.append(record, rows)
            self.journal.append(dict(record))
        except BaseException:
            self._log.cut(size)
            raise
        self._group.append(rows)
        self._group_bytes += self._log.size - size
        self.num_episodes += 1

    def commit_if_due(self, fsync_every: float) -> None:
        """Move the group into the tables when it is complete; synchronise when it is time.

        The episodes are safe: a full disk is the next one's trouble.
        """
        try:
            if self._group_is_complete():
                self._commit()
            if time.time() - self.last_sync >= fsync_every:
                self.sync()
        except (OSError, ValueError, RuntimeError) as error:  # as pylance may call a full disk
            self._last_commit, self._group_bytes, self._failed = time.time(), 0, True  # tries again with the next group
            logger.warning("%s: %d episodes stay in the log for now: %s", self.location.anchor, self.logged, error)

    def _group_is_complete(self) -> bool:
        if self._commit_every is not None:
            return self.logged >= self._commit_every
        return self._group_bytes >= GROUP_BYTES or time.time() - self._last_commit >= GROUP_SECONDS

    def _commit(self) -> None:
        """Move the group into the tables. The new version of the frames is the commit."""
        if self._group:
            episodes = self.num_episodes - len(self._group)
            for table in (table for table in COMMIT_ORDER if table in self.schemas):
                path = table_path(self.location, table)
                if self._failed:
                    tables.keep_episodes(path, episodes)
                tables.write(path, self.schemas[table], [rows[table] for rows in self._group])
            self._commits += 1
        self._group, self._group_bytes, self._last_commit, self._failed = [], 0, time.time(), False
        if self._log is not None and self._log.size >= GROUP_BYTES:
            self._log.close()  # the file stays until the tables are on the disk
            self._log = None
        if self._commits >= TIDY_EVERY:
            self._tidy()

    def sync(self) -> None:
        """Wait until all episodes are on the disk, and remove the logs of those that are in the tables."""
        begun = time.time()
        if self._log is not None:
            self._log.sync()
        for table in self.schemas:
            tables.sync(table_path(self.location, table), self._on_disk)
        self.journal.sync()
        self.last_sync, self._on_disk = time.time(), begun - 1  # clocks of file systems are coarse
        if self._log is not None and not self._group:
            self._log.close()
            self._log = None
        for path in self.location.log.glob("*.log"):
            if self._log is None or path != self._log.path:
                path.unlink()
        if self._log is None and self.location.log.is_dir():
            self.location.log.rmdir()

    def _tidy(self) -> None:
        """Join small fragments, and remove what the newest versions of the tables do not need."""
        self._commits = 0
        for table in self.schemas:
            tables.compact(table_path(self.location, table), VIDEO_BYTES if table == VIDEOS else None)
        self.sync()
        for table in self.schemas:
            tables.clean(table_path(self.location, table))

    def finish(self) -> None:
        """Move everything into the tables, tidy up and close."""
        try:
            self._commit()
            self._tidy()
        finally:
            self.journal.close()
            if self._log is not None:
                self._log.close()


def table_path(location: Location, table: str) -> Path:
    """Where a table lies."""
    return Path({FRAMES: location.frames, EPISODES: location.episodes, VIDEOS: location.videos}[table])


def make_record(i: int, rows: Rows, seed: np.ndarray | None, crc32: Mapping[str, int]) -> dict[str, Any]:
    """Describe episode `i` for the journal; `seed` is its column of that name."""
    return {
        "kind": "episode",
        "i": i,
        "len": rows[FRAMES].num_rows,
        "seed": int(seed.flat[0]) if seed is not None and seed.dtype.kind in "iu" else None,
        "bytes": sum(batch.nbytes for batch in rows.values()),
        "crc32": dict(crc32),
    }


def _seed(store: Store, rows: Rows) -> np.ndarray | None:
    place = store.places.get("seed")
    if place is None or place.form != "number":
        return None
    if place.exact is None:
        return numbers(rows[FRAMES].column(place.field), place.column)
    return np.frombuffer(rows[EPISODES].column(place.exact)[0].as_py(), place.column.dtype)


def _check_fields(store: Store) -> None:
    """ContractError when a table has fields that we would not know how to fill."""
    known = {EPISODE, STEP, *(place.field for place in store.places.values())}
    unknown = sorted(set(store.frames.schema.names) - known)
    if unknown:
        raise ContractError(
            f"{store.frames.uri}: cannot be appended to, the types of {unknown} are unknown; copy its episodes into a "
            "new dataset: writer.write_episodes(load_dataset(path).iter_episodes())"
        )


def _schemas(store: Store) -> dict[str, pa.Schema]:
    """The schemas in which rows are appended."""
    schemas = {FRAMES: store.frames.schema}
    if store.side is not None:
        schemas[EPISODES] = store.side.schema
    if store.videos is not None:
        schemas[VIDEOS] = video_schema(store.videos.schema.metadata or {})
    return schemas


def _adopt(store: Store) -> str:
    """Give an identity to tables of another tool, the frames last."""
    dataset_id = uuid.uuid4().hex
    for table, known in ((EPISODES, store.side), (VIDEOS, store.videos), (FRAMES, store.frames)):
        if known is not None:
            tables.set_metadata(table_path(store.location, table), {"swm.dataset_id": dataset_id})
    return dataset_id


def recovered(location: Location) -> Store:
    """Open tables after dropping what an interrupted commit left in them."""
    tables.drop_torn_versions(Path(location.frames))
    store = open_store(location)
    damaged = _first_damaged(store)
    if damaged is not None:
        logger.warning("%s: the disk lost episode %d; it is taken from the log again", location.frames, damaged)
        keep(location, damaged)
        store = open_store(location)
    for table, known in ((EPISODES, store.side), (VIDEOS, store.videos)):
        if known is not None:
            tables.keep_episodes(table_path(location, table), store.in_tables)
    return store


def keep(location: Location, episodes: int) -> None:
    """Cut the tables after their first `episodes` episodes, frames first."""
    for table in reversed(COMMIT_ORDER):
        path = table_path(location, table)
        if tables.exists(path):
            tables.keep_episodes(path, episodes)


def _first_damaged(store: Store) -> int | None:
    """The first episode that the log still has and the tables hold otherwise: they never reached the disk."""
    for episode in Logs(store.location.log).episodes(store.frames.id) if store.frames.id else ():
        i = episode.record["i"]
        if i >= store.in_tables:
            break
        try:
            found = checksums(store.places, store.data_names, stored_rows(store, i, [*store.places]))
        except ContractError:
            return i
        if found != episode.record["crc32"]:
            return i
    return None


def publish(source: Location, target: Location, new: Mapping[str, Any]) -> None:
    """Put tables where there is no table of frames; without it nothing of them is visible."""
    journal_path(Path(source.anchor)).replace(journal_path(Path(target.anchor)))
    if target.folder == target.anchor:
        Path(source.folder).rename(target.folder)  # which does not exist, or is empty
        tables.sync_path(Path(target.folder).parent)
        return
    Path(target.folder).mkdir(parents=True, exist_ok=True)
    for table in COMMIT_ORDER:
        place = table_path(target, table)
        if place.exists():  # of a writer that was killed right here
            shutil.rmtree(place)
        if table in new:
            table_path(source, table).rename(place)
    tables.sync_path(Path(target.folder))


def replace(source: Location, target: Location, new: Mapping[str, Any]) -> None:
    """Put new tables in the place of old ones, whose frames are replaced last, in one commit."""
    for table in COMMIT_ORDER:
        place = table_path(target, table)
        if table not in new:
            continue
        if tables.exists(place):
            tables.replace(place, table_path(source, table))
        else:
            table_path(source, table).rename(place)
    journal_path(Path(source.anchor)).replace(journal_path(Path(target.anchor)))
    if target.log.is_dir():
        shutil.rmtree(target.log)
    for table in COMMIT_ORDER:
        place = table_path(target, table)
        if table in new:
            tables.sync(place, 0)
            tables.clean(place)
        elif place.exists():
            shutil.rmtree(place)
