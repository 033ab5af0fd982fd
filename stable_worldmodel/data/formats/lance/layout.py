"""The columns of a store as a dataset reads them; what the journal has checksums of is compared on the way."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import Column, decode_text
from stable_worldmodel.data.formats.lance.frames import ImageFrames, NumberFrames, UniqueFrames, VideoFrames
from stable_worldmodel.data.formats.lance.rows import EPISODE_DATA, crc_of, numbers, texts_of, value_bytes
from stable_worldmodel.data.formats.lance.schema import EPISODES, LARGE_ROW, VIDEO_BYTES, Place, Places
from stable_worldmodel.data.formats.lance.store import Store
from stable_worldmodel.data.formats.lance.values import Values, slices
from stable_worldmodel.data.formats.shared.stored import Frames, RowIndex
from stable_worldmodel.errors import ContractError

INDEXES_KEPT = 4096  # packet tables of videos, a few KiB each


class TableLayout:
    """What `StoredDataset` reads. `places`: the columns of items; `indexes`: packet tables of videos that are kept."""

    def __init__(self, store: Store, places: Places, step_column: str, indexes: int = INDEXES_KEPT) -> None:
        self._store, self._places = store, dict(places)
        self._indexes = indexes
        if step_column in store.frames.schema.names and step_column not in places:
            step = Column(np.dtype(np.int32), (), "number")  # may be asked for by name
            self._places[step_column] = Place(step, "number", step_column, foreign=True)
        self.index = RowIndex(store.lengths, np.cumsum(store.lengths) - store.lengths)
        self.columns = {name: place.column for name, place in self._places.items()}
        self.metadata: Mapping[str, Any] = store.header["metadata"] if store.header else {}
        # Opened now: a writer may compact the files away later, and a forked process cannot ask pylance.
        self.frames = {name: frames for name in self._places if (frames := self._frames(name)) is not None}

    def _frames(self, name: str) -> Frames | None:
        store, place = self._store, self._places[name]
        if place.form == "number" and place.column.row_bytes >= LARGE_ROW:
            return NumberFrames(store.frames, place.field, place.column)
        table = store.tables[place.table]
        if place.column.kind != "image":
            return None
        order = {"unique": store.side_rows, "video": store.video_rows.get(place.field)}.get(place.form)
        values = Values(table, VIDEO_BYTES if place.form == "video" else place.field, order)
        parts = f"{store.frames.uri}: column {name!r}", place.column, values, self.index, not place.foreign
        if place.form == "video":
            return VideoFrames(*parts, kept=self._indexes)
        return UniqueFrames(*parts) if place.form == "unique" else ImageFrames(*parts)

    def load(self, name: str) -> np.ndarray:
        """Return a column of numbers or text over all rows."""
        store, place = self._store, self._places[name]
        if place.form in ("exact", "text"):
            values = store.side_values([place.field])[place.field].combine_chunks()
            store.check(name, {i: zlib.crc32(piece) for i, piece in enumerate(value_bytes(values))})
            if place.form == "text":
                return self._texts(place, values.to_pylist())
            return self._exact(place, slices(values))
        values = store.frames.read([place.field])[place.field]
        if place.form == "strings":
            return decode_text([text or "" for text in values.to_pylist()])
        if store.records and not place.foreign:
            self._check_rows(name, np.concatenate([chunk.flatten().to_numpy() for chunk in values.chunks]))
        parts = [numbers(chunk, place.column) for chunk in values.chunks]
        return np.concatenate([np.empty((0, *place.column.shape), place.column.dtype), *parts])

    def _check_rows(self, name: str, flat: np.ndarray) -> None:
        """Compare the rows of float32 of a column, all in one array."""
        data, lengths = memoryview(flat.tobytes()), self._store.lengths
        ends = np.cumsum(lengths) * (len(data) // int(lengths.sum()))
        pieces = enumerate(zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True))
        self._store.check(name, {i: zlib.crc32(data[start:end]) for i, (start, end) in pieces})

    def _exact(self, place: Place, values: Sequence[Any]) -> np.ndarray:
        sizes = (self.index.lengths * place.column.row_bytes).tolist()
        wrong = [i for i, value in enumerate(values) if len(value) != sizes[i]]
        if wrong:
            raise self._damaged(place, wrong[0], f"expected {sizes[wrong[0]]} bytes, found {len(values[wrong[0]])}")
        return np.frombuffer(b"".join(values), place.column.dtype).reshape(-1, *place.column.shape)

    def _texts(self, place: Place, values: Sequence[str]) -> np.ndarray:
        texts: list[str] = []
        for i, value in enumerate(values):
            try:
                texts += texts_of(value, int(self.index.lengths[i]))
            except ValueError as error:
                raise self._damaged(place, i, error) from error
        return decode_text(texts)

    def _damaged(self, place: Place, episode: int, error: object) -> ContractError:
        return ContractError(f"{self._store.location.uri(EPISODES)}: {place.field!r} of episode {episode}: {error}")

    def episode_data(self, episodes: np.ndarray) -> dict[str, list[Any]]:
        """Return the per-episode values of `episodes`, in any order and with repeats."""
        store = self._store
        if not store.data_names:
            return {}
        unique, inverse = np.unique(episodes, return_inverse=True)
        found = store.side_values(sorted(store.data_names), unique)
        pieces = [value_bytes(column.combine_chunks()) for column in found.columns]
        store.check(EPISODE_DATA, {i: crc_of(p) for i, *p in zip(unique.tolist(), *pieces, strict=True)})
        values = {name: [self._restored(name, value) for value in found[name].to_pylist()] for name in store.data_names}
        return {name: [entries[i] for i in inverse.tolist()] for name, entries in values.items()}

    def _restored(self, name: str, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        about = self._store.tables[EPISODES].schema.field(name).metadata or {}
        array = np.array(value, dtype=np.float32)
        if b"swm.dtype" not in about:
            return array
        return array.astype(np.dtype(about[b"swm.dtype"].decode())).reshape(json.loads(about[b"swm.shape"]))
