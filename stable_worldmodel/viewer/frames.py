"""Frames as JPEG, encoded when they are asked for and kept as long as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from stable_worldmodel.data.formats.shared.images import encode_jpeg
from stable_worldmodel.errors import ContractError
from stable_worldmodel.viewer.sources import Source, check_episode
from stable_worldmodel.world.video import to_rgb

CACHE_BYTES = 64 << 20
MOST_THUMBNAILS, MOST_HEIGHT = 16, 256
_QUALITY = 88
_SMALL = 192  # px; smaller frames are enlarged by a whole factor, since JPEG halves the resolution of colours
_GAP, _GRAY = 2, 128  # px between thumbnails
_BLOCK_PIXELS = 1 << 19  # read at once, because the next frame is asked for next


class Cache:
    """Values by key; those used longest ago leave when `limit` bytes are reached. Safe for threads."""

    def __init__(self, limit: int):
        self._limit, self._size = limit, 0
        self._entries: OrderedDict[object, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> bytes | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: object, value: bytes) -> None:
        with self._lock:
            self._size += len(value) - len(self._entries.pop(key, b""))
            self._entries[key] = value
            while self._size > self._limit and len(self._entries) > 1:
                self._size -= len(self._entries.popitem(last=False)[1])


class Frames:
    """Pictures of the episodes of several sources."""

    def __init__(self, sources: Mapping[str, Source], limit: int = CACHE_BYTES):
        self._sources = sources
        self._cache = Cache(limit)
        self._block: dict[tuple[str, str], int] = {}  # rows to read at once, by source and column

    def frame(self, source: str, column: str, episode: int, row: int) -> bytes:
        """One frame. MissingKeyError for a column or episode, ContractError for a row that does not exist."""
        length = int(self._sources[source].lengths[check_episode(self._sources[source], episode)])
        if not 0 <= row < length:
            raise ContractError(f"no row {row}: episode {episode} has rows 0..{length - 1}")

        def encode() -> bytes:
            size = self._block.get((source, column), 1)
            rows = list(range(row, min(row + size, length)))
            images = self._read(source, column, episode, rows)
            self._block[source, column] = max(1, min(8, _BLOCK_PIXELS // (images.shape[1] * images.shape[2])))
            encoded = [_encode(image) for image in images]
            for t, picture in zip(rows, encoded, strict=True):
                self._cache.put((source, column, episode, t), picture)
            return encoded[0]

        return self._cached((source, column, episode, row), encode)

    def strip(self, source: str, column: str, episode: int, count: int, height: int) -> bytes:
        """`count` frames from begin to end side by side, `height` pixels high. ContractError outside of 1..most."""
        if not (1 <= count <= MOST_THUMBNAILS and 1 <= height <= MOST_HEIGHT):
            raise ContractError(
                f"{count} thumbnails of height {height}: expected 1..{MOST_THUMBNAILS} and 1..{MOST_HEIGHT}"
            )
        length = int(self._sources[source].lengths[check_episode(self._sources[source], episode)])

        def encode() -> bytes:
            rows = np.linspace(0, length - 1, count).round().astype(int)
            images = self._read(source, column, episode, np.unique(rows).tolist())
            chosen = images[np.searchsorted(np.unique(rows), rows)]
            tiles = [_resized(image, height) for image in chosen]
            gap = np.full((height, _GAP, 3), _GRAY, np.uint8)
            return _encode(np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1), enlarge=False)

        return self._cached((source, column, episode, count, height), encode)

    def _read(self, source: str, column: str, episode: int, rows: list[int]) -> np.ndarray:
        return self._sources[source].read_images(column, episode, rows)

    def _cached(self, key: object, encode: Callable[[], bytes]) -> bytes:
        found = self._cache.get(key)
        if found is None:
            found = encode()
            self._cache.put(key, found)
        return found


def _encode(image: np.ndarray, enlarge: bool = True) -> bytes:
    rgb = to_rgb(image)
    factor = max(1, _SMALL // max(rgb.shape[:2])) if enlarge else 1
    if factor > 1:
        rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    return encode_jpeg(np.ascontiguousarray(rgb), _QUALITY)


def _resized(image: np.ndarray, height: int) -> np.ndarray:
    from PIL import Image

    rgb = to_rgb(image)
    width = max(1, round(rgb.shape[1] * height / rgb.shape[0]))
    how = Image.Resampling.BOX if rgb.shape[0] > height else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(rgb).resize((width, height), how, reducing_gap=2.0))
