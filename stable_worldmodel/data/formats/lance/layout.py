"""The columns of Lance tables as a dataset reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.lance.columns import whole_column
from stable_worldmodel.data.formats.lance.frames import ImageFrames, NumberRows, UniqueFrames, VideoFrames
from stable_worldmodel.data.formats.lance.schema import EPISODES, FRAMES, LARGE_ROW, VIDEO_BYTES, Place, Places
from stable_worldmodel.data.formats.lance.store import Store
from stable_worldmodel.data.formats.lance.tables import DataFile, Table
from stable_worldmodel.data.formats.lance.values import (
    ArrowValues,
    JoinedValues,
    Maps,
    ReorderedValues,
    Values,
    blob_values,
    values_of,
)
from stable_worldmodel.data.formats.shared.stored import Frames, RowIndex
from stable_worldmodel.data.journal import read_header
from stable_worldmodel.errors import ContractError


class TableLayout:
    """What `StoredDataset` reads: the columns of a store. `indexes`: packet tables of videos that are kept."""

    def __init__(self, store: Store, places: Places, step_column: str, indexes: int = 0) -> None:
        self._store, self._places = store, dict(places)
        self._maps: dict[str, tuple[Maps, list[DataFile]]] = {}
        self._indexes = indexes
        self.default = [*places]  # the columns of items, if nobody asks for others
        if step_column in store.frames.schema.names and step_column not in places:
            step = Place(Column(np.dtype(np.int32), (), "number"), "number", step_column, foreign=True)
            self._places[step_column] = step
        self.index = RowIndex(store.lengths, np.cumsum(store.lengths) - store.lengths)
        self.columns = {name: place.column for name, place in self._places.items()}
        self.metadata = self._read_metadata()
        # Opened now: a writer may compact the files away later, and a forked process cannot ask pylance.
        self.frames = {name: frames for name in self._places if (frames := self._frames(name)) is not None}

    def load(self, name: str) -> np.ndarray:
        """Return a column of numbers or text over all rows."""
        return whole_column(self._store, name, self._places[name])

    def _read_metadata(self) -> Mapping[str, Any]:
        remote = self._store.location.remote
        header = None if remote else read_header(Path(self._store.location.anchor), self._store.frames.id)
        return header["metadata"] if header else {}

    def _frames(self, name: str) -> Frames | None:
        place = self._places[name]
        if place.form == "number":
            wide = place.column.row_bytes >= LARGE_ROW
            return NumberRows(self._store, place.field, place.column) if wide else None
        if place.column.kind != "image":
            return None
        encoded = self._video_values(place.field) if place.form == "video" else self._image_values(place)
        parts = self._store.location.frames, name, place.column, encoded, self.index
        if place.form == "video":
            return VideoFrames(*parts, indexes=self._indexes)
        return UniqueFrames(*parts) if place.form == "unique" else ImageFrames(*parts)

    def _image_values(self, place: Place) -> Values:
        """The encoded images of a column by row, those of a unique column by episode."""
        store = self._store
        if place.form != "unique":
            logged = ArrowValues(store.pending_arrays(FRAMES, place.field))
            return JoinedValues(self._in_table(store.frames, place.field), store.rows_in_tables, logged)
        logged = ArrowValues(store.pending_arrays(EPISODES, place.field))
        if store.side is None:
            raise ContractError(f"{store.location.episodes} is missing, which holds column {place.field!r}")
        return JoinedValues(
            ReorderedValues(self._in_table(store.side, place.field), store.side_rows), store.in_tables, logged
        )

    def _video_values(self, key: str) -> Values:
        """The videos of a column by episode."""
        store = self._store
        if store.videos is None:
            raise ContractError(f"{store.location.videos} is missing, which holds column {key!r}")
        maps, files = self._files_of(store.videos)
        in_table = ReorderedValues(blob_values(store.videos, VIDEO_BYTES, maps, files), store.video_rows[key])
        return JoinedValues(in_table, store.in_tables, ArrowValues(store.pending_videos(key)))

    def _in_table(self, table: Table, field: str) -> Values:
        maps, files = self._files_of(table)
        return values_of(table, field, maps, files)

    def _files_of(self, table: Table) -> tuple[Maps | None, list[DataFile]]:
        """The files of a local table, mapped."""
        if self._store.location.remote:
            return None, []
        if table.uri not in self._maps:
            files = table.files()
            self._maps[table.uri] = Maps([file.path for file in files]), files
        return self._maps[table.uri]
