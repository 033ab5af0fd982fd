"""Columns of Lance tables that are read when they are asked for: images, videos, and rows of many numbers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.lance.rows import numbers, unpack_frame
from stable_worldmodel.data.formats.lance.schema import FRAMES
from stable_worldmodel.data.formats.lance.store import Store
from stable_worldmodel.data.formats.lance.values import Values
from stable_worldmodel.data.formats.shared.disk import check_seal
from stable_worldmodel.data.formats.shared.images import decode_image
from stable_worldmodel.data.formats.shared.mp4 import VideoIndex, decode_frames, index_video
from stable_worldmodel.data.formats.shared.stored import RowIndex
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import ContractError

IMAGES_PER_BLOCK, VIDEOS_PER_BLOCK = 8, 2  # that a thread takes at a time


class TableFrames:
    """A column of encoded images of which every picture is decoded once per read, and copied where it recurs.

    `values` holds what is encoded, by row or by episode, see the subclasses; `uri` names it in messages.
    """

    block = 16  # see stored.Frames

    def __init__(self, uri: str, name: str, column: Column, values: Values, index: RowIndex) -> None:
        self.column = column
        self._uri, self._name = uri, name
        self._values, self._index = values, index

    def files(self, rows: np.ndarray) -> list[Path]:
        return []  # tables are not checked file by file

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is None:
            out = np.empty((len(rows), *self.column.shape), dtype=np.uint8)
        order = np.argsort(rows, kind="stable")
        new = np.diff(rows[order], prepend=-1) > 0
        first = order[new]
        self._decode(rows[first], [out[i] for i in first.tolist()])
        source = first[np.cumsum(new) - 1]
        for i, j in zip(order[~new].tolist(), source[~new].tolist(), strict=True):
            out[i] = out[j]
        return out

    def _decode(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        """Decode ascending, distinct rows, each into its array (H, W, C)."""
        raise NotImplementedError

    def _damaged(self, row: int, error: Exception) -> ContractError:
        return ContractError(f"{self._uri}: column {self._name!r}, {self._index.describe(row)}: {error}")


class ImageFrames(TableFrames):
    """One image per row."""

    def _decode(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        self._decode_images(rows, self._values.get(rows), out)

    def _decode_images(self, rows: np.ndarray, encoded: Sequence[Any], out: Sequence[np.ndarray]) -> None:
        recurs = [i > 0 and _same(encoded[i], encoded[i - 1]) for i in range(len(encoded))]
        distinct = [i for i, again in enumerate(recurs) if not again]

        def work(start: int, stop: int) -> None:
            for i in distinct[start:stop]:
                try:
                    check_seal(encoded[i])
                    decode_image(encoded[i], out[i])
                except ContractError as error:
                    raise self._damaged(int(rows[i]), error) from error

        in_threads(work, len(distinct), IMAGES_PER_BLOCK)
        for i, again in enumerate(recurs):
            if again:
                out[i][...] = out[i - 1]


def _same(one: Any, other: Any) -> bool:
    return one is other or (len(one) == len(other) and bytes(one) == bytes(other))


class UniqueFrames(ImageFrames):
    """The images of an episode in one value, each once."""

    def _decode(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        episodes, steps = self._index.locate(rows)
        wanted, which = np.unique(episodes, return_inverse=True)
        packed = self._values.get(wanted)
        encoded = []
        for k, step, row in zip(which.tolist(), steps.tolist(), rows.tolist(), strict=True):
            try:
                encoded.append(unpack_frame(packed[k], step))
            except ValueError as error:
                raise self._damaged(row, error) from error
        self._decode_images(rows, encoded, out)


class VideoFrames(TableFrames):
    """One video per episode. The packet tables of the latest `indexes` videos are kept."""

    def __init__(self, *args: Any, indexes: int) -> None:
        super().__init__(*args)
        self._kept = indexes
        self._indexes: OrderedDict[int, VideoIndex] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _decode(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        episodes, steps = self._index.locate(rows)
        wanted, first = np.unique(episodes, return_index=True)
        videos = self._values.get(wanted)
        ends = [*first[1:].tolist(), len(rows)]

        def work(start: int, stop: int) -> None:
            for k in range(start, stop):
                begin, end = int(first[k]), ends[k]
                try:
                    self._decode_video(int(wanted[k]), videos[k], steps[begin:end], out[begin:end])
                except ContractError as error:
                    raise self._damaged(int(rows[begin]), error) from error

        in_threads(work, len(wanted), VIDEOS_PER_BLOCK)

    def _decode_video(self, episode: int, video: Any, steps: np.ndarray, out: Sequence[np.ndarray]) -> None:
        index = self._index_of(episode, video)
        if index.shape[:2] != self.column.shape[:2]:
            raise ContractError(f"expected frames of {self.column.shape}, found {index.shape}")
        place = {step: i for i, step in enumerate(steps.tolist())}

        def store(step: int, image: np.ndarray) -> None:
            out[place[step]][...] = image[..., : self.column.shape[-1]]

        decode_frames(index, lambda offset, size: video[offset : offset + size], steps, store)

    def _index_of(self, episode: int, video: Any) -> VideoIndex:
        index = self._indexes.get(episode)
        if index is None:
            index = index_video(video)
            with self._lock:
                self._indexes[episode] = index
                while len(self._indexes) > self._kept:
                    self._indexes.popitem(last=False)
        return index


class NumberRows:
    """A column of rows with so many numbers that they are read when they are asked for."""

    block = 16

    def __init__(self, store: Store, field: str, column: Column) -> None:
        self.column = column
        self._store, self._field = store, field

    def files(self, rows: np.ndarray) -> list[Path]:
        return []

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        unique, inverse = np.unique(rows, return_inverse=True)
        split = self._store.rows_in_tables
        found = np.empty((len(unique), *self.column.shape), dtype=self.column.dtype)
        in_table = int(np.searchsorted(unique, split))
        if in_table:
            found[:in_table] = numbers(self._store.frames.take(self._field, unique[:in_table]), self.column)
        if in_table < len(unique):
            logged = [numbers(array, self.column) for array in self._store.pending_arrays(FRAMES, self._field)]
            found[in_table:] = np.concatenate(logged)[unique[in_table:] - split]
        return np.take(found, inverse, axis=0, out=out, mode="raise" if out is None else "clip")
