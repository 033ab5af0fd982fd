"""A dataset in Lance tables as it was at one moment: tables, episodes still in the log, where the columns are."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.location import Location, datasets_in
from stable_worldmodel.data.formats.lance.log import Logs, Pending, Rows
from stable_worldmodel.data.formats.lance.schema import (
    EPISODE,
    EPISODES,
    FORMS_IN_FRAMES,
    FORMS_IN_SIDE_TABLE,
    FRAMES,
    STEP,
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
from stable_worldmodel.data.journal import Record, journal_path, read_header, read_journal
from stable_worldmodel.errors import ContractError, NotFoundError

if TYPE_CHECKING:
    import pyarrow as pa

EPISODE_DATA = "_episode_data"  # the entry of the checksums for all of it
OPEN_TRIES = 5  # a writer may compact tables away while they are being opened


@dataclass
class Store:
    """What readers, writers and checks work on. Episodes `in_tables`, `in_tables` + 1 ... are in `pending`."""

    location: Location
    frames: Table
    side: Table | None
    videos: Table | None
    places: Places
    data_names: list[str]  # of per-episode data
    in_tables: int
    lengths: np.ndarray  # (E,) int64
    side_rows: np.ndarray  # (in_tables,) row of each episode in the side table
    video_rows: dict[str, np.ndarray]  # by key: (in_tables,) row of each episode's video
    pending: list[Pending] = field(default_factory=list)
    records: dict[int, Record] = field(default_factory=dict)  # the journal's, by episode

    @property
    def rows_in_tables(self) -> int:
        return int(self.lengths[: self.in_tables].sum())

    def pending_arrays(self, table: str, name: str) -> list[pa.Array]:
        """What the log holds of a field, one array per episode."""
        return [episode.rows[table].column(name) for episode in self.pending]

    def pending_videos(self, key: str) -> list[pa.Array]:
        """What the log holds of a column of videos, one array per episode."""
        return [_video(episode.rows[VIDEOS], key) for episode in self.pending]

    def check(self, name: str, found: Mapping[int, int]) -> None:
        """Raise ContractError when the checksum of a column in one of the episodes `found` is not the journal's."""
        for episode, crc in found.items():
            record = self.records.get(episode)
            if record is not None and record["crc32"].get(name, crc) != crc:
                raise ContractError(
                    f"{self.location.frames}: column {name!r} of episode {episode} differs from what was recorded"
                )


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
    frames = Path(location.frames)
    for attempt in range(OPEN_TRIES):
        before = None if location.remote else tables.versions(frames)
        if before == []:
            raise NotFoundError(_absence(location))
        try:
            return _open(location, options, episode_column, image_columns)
        except (ContractError, RuntimeError):
            if attempt + 1 == OPEN_TRIES or before in (None, tables.versions(frames)):
                raise
    raise AssertionError  # the last try returns or raises


def _absence(location: Location) -> str:
    if Path(location.frames).is_dir():
        return f"{location.frames}: no episode is complete yet"
    return f"{location.frames} does not exist; in {location.folder} there is {datasets_in(Path(location.folder))}"


def _open(
    location: Location,
    options: Mapping[str, str] | None,
    episode_column: str,
    image_columns: Collection[str] | None,
) -> Store:
    # The log first: what a writer moves from it into the tables in between is then seen twice, never missed.
    logs = None if location.remote else Logs(location.log)
    frames = Table(location.frames, options=options)
    lengths = _lengths(frames, episode_column)
    side = _table_beside(location.episodes, frames, location.remote)
    videos = _table_beside(location.videos, frames, location.remote)
    places, data_names = places_of(frames.schema, side and side.schema, videos and videos.schema)
    if image_columns is not None:
        places = {name: place for name, place in places.items() if place.form != "image" or name in image_columns}
    side_rows, video_rows = np.zeros(0, dtype=np.int64), {}
    if side is not None:
        side_rows = _rows_by_episode(side, side.read([EPISODE])[EPISODE].to_numpy(), len(lengths), "")
    if videos is not None:
        video_rows = _video_rows(videos, len(lengths))
        known = {place.field for place in places.values() if place.form == "video"}
        for key in sorted(video_rows.keys() - known):
            places[key] = Place(UNKNOWN_IMAGE, "video", key, foreign=True)
    store = Store(location, frames, side, videos, places, data_names, len(lengths), lengths, side_rows, video_rows)
    if logs is not None and frames.id is not None:
        _add_pending(store, logs)
        store.records = _journal_records(store)
    store.places = {name: _with_size(store, name, place) for name, place in sorted(places.items())}
    return store


def _add_pending(store: Store, logs: Logs) -> None:
    for episode in logs.episodes(store.frames.id, store.in_tables):
        if checksums(store.places, store.data_names, episode.rows) != episode.record["crc32"]:
            break
        store.pending.append(episode)
    more = np.array([episode.record["len"] for episode in store.pending], dtype=np.int64)
    store.lengths = np.concatenate([store.lengths, more])


def _journal_records(store: Store) -> dict[int, Record]:
    anchor = Path(store.location.anchor)
    if read_header(anchor, store.frames.id) is None:
        return {}
    records = {record["i"]: record for record, _ in read_journal(journal_path(anchor)) if record["kind"] == "episode"}
    for i, length in enumerate(store.lengths.tolist()):
        if i in records and records[i]["len"] != length:
            raise ContractError(f"{store.frames.uri}: episode {i} has {length} rows, {records[i]['len']} were recorded")
    return records


def _with_size(store: Store, name: str, place: Place) -> Place:
    """Look at the first picture of a column whose size is not recorded."""
    if place.column != UNKNOWN_IMAGE or not store.in_tables:
        return place
    try:
        if place.form == "video" and store.videos is not None:
            shape = index_video(store.videos.blobs(VIDEO_BYTES, [store.video_rows[place.field][0]])[0]).shape
        else:
            shape = image_shape(bytes(slices(store.frames.take(place.field, np.array([0])))[0]))
    except ContractError as error:
        raise ContractError(f"{store.frames.uri}: column {name!r}, episode 0, row 0: {error}") from error
    return replace(place, column=Column.numeric(np.dtype(np.uint8), (*shape[:2], 3)))


def _table_beside(uri: str, frames: Table, remote: bool) -> Table | None:
    if remote:
        try:
            return tables.of_dataset(uri, frames.id, frames.options)
        except ContractError:  # there is no cheaper way to ask whether it exists
            return None
    return tables.of_dataset(uri, frames.id) if tables.exists(Path(uri)) else None


def _lengths(frames: Table, column: str) -> np.ndarray:
    """Return the rows of each episode, (E,) int64; ContractError when episodes are not in order."""
    if column not in frames.schema.names:
        raise ContractError(f"{frames.uri}: no column {column!r}; it has {frames.schema.names}")
    episodes = frames.read([column])[column].to_numpy()
    steps = np.diff(episodes)
    if (steps < 0).any():
        row = int(np.argmax(steps < 0)) + 1
        raise ContractError(f"{frames.uri}: column {column!r} decreases at row {row}; its rows must be sorted by it")
    ends = np.append(np.flatnonzero(steps) + 1, len(episodes)) if len(episodes) else np.zeros(0, dtype=np.int64)
    return np.diff(ends, prepend=0).astype(np.int64)


def _rows_by_episode(table: Table, episodes: np.ndarray, count: int, what: str) -> np.ndarray:
    """Return the row of each of `count` episodes; rows of later ones belong to an interrupted commit."""
    order = np.argsort(episodes, kind="stable")
    order = order[(episodes[order] >= 0) & (episodes[order] < count)]
    if not np.array_equal(episodes[order], np.arange(count)):
        wrong = np.flatnonzero(np.bincount(episodes[order], minlength=count) != 1)
        raise ContractError(f"{table.uri}: expected one row{what} per episode, not so for episode {wrong[0]}")
    return order


def _video_rows(videos: Table, count: int) -> dict[str, np.ndarray]:
    index = videos.read([EPISODE, VIDEO_KEY])
    episodes, keys = index[EPISODE].to_numpy(), np.array(index[VIDEO_KEY].to_pylist(), dtype=object)
    found = {}
    for key in sorted({*keys.tolist()}):
        rows = np.flatnonzero(keys == key)
        found[key] = rows[_rows_by_episode(videos, episodes[rows], count, f" of {key!r}")]
    return found


# -- one episode at a time --------------------------------------------------------------------------------------------


def stored_rows(store: Store, episode: int, names: Collection[str]) -> Rows:
    """Read what is stored of one episode, for the columns `names` and its per-episode data."""
    if episode >= store.in_tables:
        return store.pending[episode - store.in_tables].rows
    places = [store.places[name] for name in names]
    in_frames = [place.field for place in places if place.form in FORMS_IN_FRAMES]
    first, rows = int(store.lengths[:episode].sum()), int(store.lengths[episode])
    out = {FRAMES: _batch(store.frames.read([EPISODE, STEP, *in_frames], first, rows))}
    if store.side is not None:
        fields = [place.field for place in places if place.form in FORMS_IN_SIDE_TABLE]
        fields += [place.exact for place in places if place.exact]
        row = int(store.side_rows[episode])
        out[EPISODES] = _batch(store.side.read([EPISODE, *fields, *store.data_names], row, 1))
    if store.videos is not None:
        out[VIDEOS] = _video_batch(store, episode, [place.field for place in places if place.form == "video"])
    return out


def _batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _video_batch(store: Store, episode: int, keys: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa

    rows = [int(store.video_rows[key][episode]) for key in keys]
    values = store.videos.blobs(VIDEO_BYTES, rows) if rows and store.videos else []
    index = pa.array([episode] * len(keys), pa.int32())
    columns = [index, pa.array(keys, pa.string()), pa.array(values, pa.large_binary())]
    return pa.RecordBatch.from_arrays(columns, names=[EPISODE, VIDEO_KEY, VIDEO_BYTES])


def _video(videos: pa.RecordBatch, key: str) -> pa.Array:
    row = videos.column(VIDEO_KEY).to_pylist().index(key)
    return videos.column(VIDEO_BYTES).slice(row, 1)


def checksums(places: Places, data_names: Sequence[str], rows: Rows) -> dict[str, int]:
    """Return the CRC-32 of an episode's stored bytes by column, and of its per-episode data in one more entry."""
    found = {name: _crc32(_stored_bytes(place, rows)) for name, place in sorted(places.items())}
    if data_names:
        arrays = [rows[EPISODES].column(name) for name in sorted(data_names)]
        found[EPISODE_DATA] = _crc32(piece for array in arrays for piece in bytes_of(array))
    return found


def _crc32(pieces: Iterator[Any] | Sequence[Any]) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _stored_bytes(place: Place, rows: Rows) -> Iterator[Any]:
    if place.form == "video":
        return bytes_of(_video(rows[VIDEOS], place.field))
    if place.exact:  # from which the rows of float32 follow
        return bytes_of(rows[EPISODES].column(place.exact))
    return bytes_of(rows[FRAMES if place.form in FORMS_IN_FRAMES else EPISODES].column(place.field))


def bytes_of(array: pa.Array) -> Iterator[Any]:
    """The bytes of an array: binary values one after another, texts, numbers of lists as they are, others in words."""
    import pyarrow.types as t

    if t.is_binary(array.type) or t.is_large_binary(array.type):
        yield from slices(array)
    elif t.is_fixed_size_list(array.type) or t.is_list(array.type):
        yield np.ascontiguousarray(array.flatten().to_numpy(zero_copy_only=False)).data
    else:
        yield repr(array.to_pylist()).encode()
