"""Columns of Lance tables that are read when they are asked for: images, videos, and rows of many numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.lance.rows import numbers, unpack_frame
from stable_worldmodel.data.formats.lance.tables import Table
from stable_worldmodel.data.formats.lance.values import Values
from stable_worldmodel.data.formats.shared.disk import check_seal
from stable_worldmodel.data.formats.shared.images import decode_image
from stable_worldmodel.data.formats.shared.mp4 import VideoIndex, decode_frames, index_video
from stable_worldmodel.data.formats.shared.stored import RowIndex
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import ContractError

IMAGES_PER_BLOCK, VIDEOS_PER_BLOCK = 8, 2  # that a thread takes at a time


class TableFrames:
    """A column of which every row is fetched once per read, and copied where it recurs. See `stored.Frames`."""

    block = 16
    column: Column

    def files(self, rows: np.ndarray) -> list[Path]:
        return []  # tables are not checked file by file

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is None:
            out = np.empty((len(rows), *self.column.shape), dtype=self.column.dtype)
        order = np.argsort(rows, kind="stable")
        new = np.diff(rows[order], prepend=-1) > 0
        first = order[new]
        self._fetch(rows[first], [out[i] for i in first.tolist()])
        source = first[np.cumsum(new) - 1]
        for i, j in zip(order[~new].tolist(), source[~new].tolist(), strict=True):
            out[i] = out[j]
        return out

    def _fetch(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        """Put ascending, distinct rows each into its array."""
        raise NotImplementedError


class NumberFrames(TableFrames):
    """Rows of so many numbers that they are not held in memory."""

    def __init__(self, table: Table, field: str, column: Column) -> None:
        self.column = column
        self._table, self._field = table, field

    def _fetch(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        found = self._table.take([self._field], rows)[self._field]
        values = (row for chunk in found.chunks for row in numbers(chunk, self.column))
        for target, value in zip(out, values, strict=True):
            target[...] = value


class ImageFrames(TableFrames):
    """One image per row, which `values` has encoded.

    where: names the column in messages. sealed: every image must have its seal.
    """

    def __init__(self, where: str, column: Column, values: Values, index: RowIndex, sealed: bool) -> None:
        self.column = column
        self._where, self._sealed = where, sealed
        self._values, self._index = values, index

    def _fetch(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        self._decode(rows, self._values.get(rows), out)

    def _decode(self, rows: np.ndarray, encoded: Sequence[Any], out: Sequence[np.ndarray]) -> None:
        distinct = [i for i in range(len(encoded)) if i == 0 or not _same(encoded[i], encoded[i - 1])]

        def work(start: int, stop: int) -> None:
            for i in distinct[start:stop]:
                try:
                    check_seal(encoded[i], required=self._sealed)
                    decode_image(encoded[i], out[i])
                except ContractError as error:
                    raise self._damaged(int(rows[i]), error) from error

        in_threads(work, len(distinct), IMAGES_PER_BLOCK)
        for i in sorted({*range(len(encoded))}.difference(distinct)):
            out[i][...] = out[i - 1]

    def _damaged(self, row: int, error: Exception) -> ContractError:
        return ContractError(f"{self._where}, {self._index.describe(row)}: {error}")


def _same(one: Any, other: Any) -> bool:
    return one is other or (len(one) == len(other) and bytes(one) == bytes(other))


class UniqueFrames(ImageFrames):
    """The images of an episode in one value, each once."""

    def _fetch(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
        episodes, steps = self._index.locate(rows)
        wanted, which = np.unique(episodes, return_inverse=True)
        packed = self._values.get(wanted)
        encoded = []
        for k, step, row in zip(which.tolist(), steps.tolist(), rows.tolist(), strict=True):
            try:
                encoded.append(unpack_frame(packed[k], step))
            except ValueError as error:
                raise self._damaged(row, error) from error
        self._decode(rows, encoded, out)


class VideoFrames(ImageFrames):
    """One video per episode. The packet tables of `kept` videos are kept."""

    def __init__(self, *args: Any, kept: int) -> None:
        super().__init__(*args)
        self._kept = kept
        self._indexes: dict[int, VideoIndex] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": {}}

    def _fetch(self, rows: np.ndarray, out: Sequence[np.ndarray]) -> None:
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
        index = self._indexes.get(episode)
        if index is None:
            if len(self._indexes) >= self._kept:
                self._indexes.clear()
            check_seal(video, required=self._sealed)
            index = self._indexes[episode] = index_video(video)
        if index.shape[:2] != self.column.shape[:2]:
            raise ContractError(f"expected frames of {self.column.shape}, found {index.shape}")
        place = {step: i for i, step in enumerate(steps.tolist())}

        def store(step: int, image: np.ndarray) -> None:
            out[place[step]][...] = image[..., : self.column.shape[-1]]

        decode_frames(index, lambda offset, size: video[offset : offset + size], steps, store)
