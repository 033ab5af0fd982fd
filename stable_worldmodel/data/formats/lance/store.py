"""A dataset in Lance tables as it was at one moment: its tables, the logged episodes behind them, its columns."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.directory.row_log import LoggedEpisode, log_content, logged_episodes
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.location import Location, datasets_in
from stable_worldmodel.data.formats.lance.rows import Rows
from stable_worldmodel.data.formats.lance.schema import (
    EPISODE,
    EPISODES,
    FRAMES,
    STEP,
    TABLES,
    UNKNOWN_IMAGE,
    VIDEO_BYTES,
    VIDEO_KEY,
    VIDEOS,
    Place,
    Places,
    places_of,
)
from stable_worldmodel.data.formats.lance.tables import Table
from stable_worldmodel.data.formats.lance.values import slices
from stable_worldmodel.data.formats.shared.images import image_shape
from stable_worldmodel.data.formats.shared.mp4 import index_video
from stable_worldmodel.data.journal import Record, all_records, look_for
from stable_worldmodel.errors import ContractError, NotFoundError

if TYPE_CHECKING:
    import pyarrow as pa

OPEN_TRIES = 10


@dataclass
class Store:
    """What readers, writers and checks work on. Rows of tables are numbered with the logged ones behind the others."""

    location: Location
    tables: dict[str, Table]  # by name, the frames always among them
    places: Places
    data_names: list[str]  # of per-episode data
    lengths: np.ndarray  # (E,) int64
    side_rows: np.ndarray  # (E,) row of each episode in the table of episodes
    video_rows: dict[str, np.ndarray]  # by key: (E,) row of each episode's video
    header: Record | None = None  # of the journal
    records: dict[int, Record] = field(default_factory=dict)  # the journal's, by episode
    losses: str = ""  # what was recorded and is not there

    @property
    def frames(self) -> Table:
        return self.tables[FRAMES]

    @property
    def in_tables(self) -> int:
        """Episodes that are not only in the log."""
        return int(np.searchsorted(np.cumsum(self.lengths), self.frames.stored, side="right"))

    def side_values(self, names: Sequence[str], episodes: np.ndarray | None = None) -> pa.Table:
        """Return fields of the table of episodes, one row for each of `episodes`; default: of all."""
        side = self.tables[EPISODES]
        if episodes is not None:
            return side.take(names, self.side_rows[episodes])
        found = side.read(names)
        return found if np.array_equal(self.side_rows, np.arange(len(found))) else found.take(self.side_rows)

    def check(self, name: str, crcs: Mapping[int, int]) -> None:
        """Raise ContractError when the checksum of a column in one of these episodes is not the journal's."""
        for episode, crc in crcs.items():
            if episode in self.records and self.records[episode]["crc32"].get(name, crc) != crc:
                raise ContractError(
                    f"{self.frames.uri}: column {name!r} of episode {episode} differs from what was recorded"
                )

    def episodes(self, first: int, last: int, names: Collection[str]) -> Iterator[Rows]:
        """Yield the rows of episodes [first, last), with the columns `names` and their per-episode data."""
        places = [self.places[name] for name in names]
        fields = {table: [place.field for place in places if place.table == table] for table in TABLES}
        fields[FRAMES] += [place.copy for place in places if place.copy]
        edges = np.append(0, np.cumsum(self.lengths))[first : last + 1]
        count = np.arange(last - first + 1)
        found = {FRAMES: self.frames.take([EPISODE, STEP, *fields[FRAMES]], np.arange(edges[0], edges[-1]))}
        bounds = {FRAMES: edges - edges[0], EPISODES: count, VIDEOS: count * len(fields[VIDEOS])}
        if EPISODES in self.tables:
            names = [EPISODE, *fields[EPISODES], *self.data_names]
            found[EPISODES] = self.tables[EPISODES].take(names, self.side_rows[first:last])
        if fields[VIDEOS]:
            rows = np.stack([self.video_rows[key][first:last] for key in fields[VIDEOS]], axis=1).reshape(-1)
            found[VIDEOS] = self.tables[VIDEOS].take([EPISODE, VIDEO_KEY, VIDEO_BYTES], rows)
        for i in range(last - first):
            yield {table: _batch(rows, *bounds[table][i : i + 2].tolist()) for table, rows in found.items()}


def _batch(table: pa.Table, start: int, end: int) -> pa.RecordBatch:
    (batch,) = table.slice(start, end - start).combine_chunks().to_batches()
    return batch


def open_store(
    location: Location,
    options: Mapping[str, str] | None = None,
    episode_column: str = EPISODE,
    image_columns: Collection[str] | None = None,
) -> Store:
    """Open tables and log so that together they hold a prefix of the episodes.

    `image_columns` are the binary fields that hold images, by default all. NotFoundError when there is no table of
    frames, ContractError when something in it is wrong.
    """
    frames = location.path(FRAMES)
    for _ in range(OPEN_TRIES):
        before = [] if location.remote else tables.versions(frames)
        if not before and not location.remote:
            there = datasets_in(frames.parent)
            raise NotFoundError(f"{frames}: no dataset is there; the tables in {frames.parent} are {there}")
        try:
            return _open(location, options, episode_column, image_columns)
        except ContractError:
            if location.remote or tables.versions(frames) == before:  # else it was replaced meanwhile
                raise
    raise ContractError(f"{frames}: is being replaced again and again")


def _open(
    location: Location,
    options: Mapping[str, str] | None,
    episode_column: str,
    image_columns: Collection[str] | None,
) -> Store:
    # First what promises something, then what holds it: a writer goes the other way, from the log to the tables.
    anchor = Path(location.anchor)
    journals = [] if location.remote else look_for(anchor, all_records)
    log = b"" if location.remote else log_content(anchor)
    frames = Table(location.uri(FRAMES), options=options)
    if episode_column not in frames.schema.names:
        raise ContractError(f"{frames.uri}: no column {episode_column!r}; it has {frames.schema.names}")
    beside = {name: _table_beside(location.uri(name), name, frames) for name in (EPISODES, VIDEOS)}
    found = {name: table for name, table in {**beside, FRAMES: frames}.items() if table is not None}
    lengths = _lengths(frames, episode_column)
    committed = len(lengths)
    logged = logged_episodes(log, frames.id, committed)
    if logged:
        _add_logged(logged, found)
        lengths = _lengths(frames, episode_column)
    try:
        places, data_names = places_of({name: table.schema for name, table in found.items()})
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{frames.uri}: the description of its columns is damaged: {error}") from error
    side_rows = _side_rows(found, len(lengths), committed)
    video_rows = _video_rows(found, len(lengths), committed)
    known = {place.field for place in places.values() if place.form == "video"}
    places |= {key: Place(UNKNOWN_IMAGE, "video", key, foreign=True) for key in sorted(video_rows.keys() - known)}
    store = Store(location, found, places, data_names, lengths, side_rows, video_rows)
    shown = places if image_columns is None else image_columns
    hidden = {name for name, place in places.items() if place.form == "image"}.difference(shown)
    places = {name: place for name, place in places.items() if name not in hidden}
    store.places = {name: _with_size(store, name, place) for name, place in sorted(places.items())}
    own = (journal for journal in journals if frames.id is not None and journal[0].get("dataset_id") == frames.id)
    if journal := next(own, None):
        _compare(store, journal, hidden)
    return store


def _table_beside(uri: str, table: str, frames: Table) -> Table | None:
    """Open a table that belongs to the frames. ContractError when they say that there is one and there is not."""
    expected = table in (frames.metadata("tables") or "").split(",")
    found = None
    if "://" not in uri:
        found = tables.of_dataset(uri, frames.id) if tables.versions(Path(uri)) else None
    elif expected or frames.id is None:
        with contextlib.suppress(ContractError):  # there is no cheaper way to ask whether it exists
            found = tables.of_dataset(uri, frames.id, frames.options)
    if expected and found is None:
        raise ContractError(f"{uri}: there is no such table of the dataset {frames.uri}")
    return found


def _add_logged(logged: Sequence[LoggedEpisode], known: Mapping[str, Table]) -> None:
    """Put the rows of logged episodes behind those of the tables."""
    import pyarrow as pa

    rows = [rows_of(episode) for episode in logged]
    for name, table in known.items():
        if rows[0][name].schema.names != table.schema.names:
            raise ContractError(f"{table.uri}: its fields are not those of the log beside it")
        table.logged = pa.Table.from_batches([batches[name] for batches in rows]).combine_chunks()


def rows_of(episode: LoggedEpisode) -> Rows:
    """Return the rows of a logged episode."""
    import pyarrow as pa

    return {  # copied, because pylance wants it aligned
        table: pa.ipc.open_stream(pa.py_buffer(stream.tobytes())).read_next_batch()
        for table, stream in episode.columns.items()
    }


def _lengths(frames: Table, column: str) -> np.ndarray:
    """Return the rows of each episode, (E,) int64; ContractError when episodes are not in order."""
    episodes = _integers(frames, column)
    steps = np.diff(episodes)
    if (steps < 0).any():
        row = int(np.argmax(steps < 0)) + 1
        raise ContractError(f"{frames.uri}: column {column!r} decreases at row {row}; its rows must be sorted by it")
    ends = np.append(np.flatnonzero(steps) + 1, len(episodes)) if len(episodes) else np.zeros(0, dtype=np.int64)
    return np.diff(ends, prepend=0).astype(np.int64)


def _integers(table: Table, column: str) -> np.ndarray:
    found = table.read([column])[column].to_numpy()
    if found.dtype.kind not in "iu":
        raise ContractError(f"{table.uri}: column {column!r}: expected integers, found {found.dtype.name}")
    return found


def _rows_by_episode(
    table: Table, rows: np.ndarray, episodes: np.ndarray, count: int, committed: int, what: str = ""
) -> np.ndarray:
    """Return the row of each of `count` episodes, the first `committed` of which are in the frames.

    In the other tables there may be more: an interrupted commit leaves rows of later ones, which count once logged.
    """
    valid = (episodes >= 0) & (episodes < np.where(rows < table.stored, committed, count))
    rows, episodes = rows[valid], episodes[valid]
    order = np.argsort(episodes, kind="stable")
    if not np.array_equal(episodes[order], np.arange(count)):
        wrong = np.flatnonzero(np.bincount(episodes, minlength=count) != 1)
        raise ContractError(f"{table.uri}: expected one row{what} per episode, not so for episode {wrong[0]}")
    return rows[order]


def _side_rows(known: Mapping[str, Table], count: int, committed: int) -> np.ndarray:
    if EPISODES not in known:
        return np.zeros(0, dtype=np.int64)
    episodes = _integers(known[EPISODES], EPISODE)
    return _rows_by_episode(known[EPISODES], np.arange(len(episodes)), episodes, count, committed)


def _video_rows(known: Mapping[str, Table], count: int, committed: int) -> dict[str, np.ndarray]:
    if VIDEOS not in known:
        return {}
    episodes = _integers(known[VIDEOS], EPISODE)
    keys = np.array(known[VIDEOS].read([VIDEO_KEY])[VIDEO_KEY].to_pylist(), dtype=object)
    found = {}
    for key in sorted({*keys.tolist()}):
        rows = np.flatnonzero(keys == key)
        found[key] = _rows_by_episode(known[VIDEOS], rows, episodes[rows], count, committed, f" of {key!r}")
    return found


def _compare(store: Store, journal: Sequence[Record], hidden: Collection[str]) -> None:
    """Take over the journal of a dataset. ContractError when the tables contradict it."""
    store.header = journal[0]
    store.records = {record["i"]: record for record in journal if record["kind"] == "episode"}
    count = len(store.lengths)
    last = max(store.records, default=-1)
    if last >= count:
        store.losses = f"{store.frames.uri}: episodes {count} to {last} were recorded and are not there"
    for i, length in enumerate(store.lengths.tolist()):
        if i in store.records and store.records[i]["len"] != length:
            recorded = store.records[i]["len"]
            raise ContractError(f"{store.frames.uri}: episode {i} has {length} rows, {recorded} were recorded")
    found = {name: {"dtype": p.column.type_name, "shape": [*p.column.shape]} for name, p in store.places.items()}
    recorded = store.header["columns"].items()
    wrong = [name for name, about in recorded if name not in hidden and found.get(name) != about]
    wrong += [name for name, p in store.places.items() if not p.foreign and name not in store.header["columns"]]
    wrong += [STEP] if STEP not in store.frames.schema.names else []
    if wrong:
        raise ContractError(f"{store.frames.uri}: columns {wrong} are not as they were recorded")


def _with_size(store: Store, name: str, place: Place) -> Place:
    """Look at the first picture of a column whose size is not recorded."""
    if place.column != UNKNOWN_IMAGE or not len(store.lengths):
        return place
    try:
        if place.form == "video":
            video = store.tables[VIDEOS].take([VIDEO_BYTES], store.video_rows[place.field][:1])
            shape = index_video(bytes(slices(video[VIDEO_BYTES])[0])).shape
        else:
            image = store.frames.take([place.field], np.array([0]))
            shape = image_shape(bytes(slices(image[place.field])[0]))
    except ContractError as error:
        raise ContractError(f"{store.frames.uri}: column {name!r}, episode 0, row 0: {error}") from error
    return replace(place, column=Column.numeric(np.dtype(np.uint8), (*shape[:2], 3)))
