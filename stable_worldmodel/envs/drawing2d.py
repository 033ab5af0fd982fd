"""A small anti-aliased rasteriser: shapes in world coordinates, painted straight at the size of the picture.

A shape is cut into thin horizontal spans; each span covers its pixels by exact length, and a pixel by the average of
its spans. So a small picture looks like a large one averaged down, and edges on pixel boundaries stay sharp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_SPANS = 8  # per pixel row

Color = tuple[int, int, int]
Vector = Sequence[float] | np.ndarray
Points = Sequence[Vector] | np.ndarray


class Painter:
    """Paints on `picture`, uint8 (H, W, 3), in place. Shapes may reach out of the picture.

    The picture shows the world from `left` to `right` and from `top` to `bottom`; `top > bottom` makes y point up.
    The two axes are scaled independently, so in a picture of another aspect a circle is an ellipse.
    """

    def __init__(self, picture: np.ndarray, left: float, top: float, right: float, bottom: float):
        self.picture = picture
        height, width = picture.shape[:2]
        self._origin = np.array([left, top], np.float64)
        self._scale = np.array([width / (right - left), height / (bottom - top)])

    def disc(self, center: Vector, radius: float, color: Sequence[int], alpha: float = 1.0) -> None:
        """A filled circle."""
        (x, y), (rx, ry) = self._pixels(center).tolist(), np.abs(radius * self._scale).tolist()
        spans = self._spans(y - ry, y + ry)
        half = rx * np.sqrt(np.maximum(1.0 - ((spans.heights - y) / ry) ** 2, 0.0))
        self._fill(spans, x - half, x + half, color, alpha)

    def rectangle(self, x: Sequence[float], y: Sequence[float], color: Sequence[int]) -> None:
        """An axis-aligned rectangle, covered exactly. `x` and `y` are its extents in any order."""
        (x0, x1), (y0, y1) = (sorted(side) for side in self._pixels(np.array([x, y]).T).T.tolist())
        height, width = self.picture.shape[:2]
        rows, down = _covered(y0, y1, height)
        columns, right = _covered(x0, x1, width)
        if len(down) and len(right):
            _blend(self.picture[rows, columns], down[:, None] * right, color)

    def polygon(self, points: Points, color: Sequence[int], alpha: float = 1.0) -> None:
        """A filled convex polygon, (N, 2) vertices in either direction."""
        corners = self._pixels(points)
        spans = self._spans(corners[:, 1].min(), corners[:, 1].max())
        heights = spans.heights
        left, right = np.full(len(heights), np.inf), np.full(len(heights), -np.inf)
        for (x0, y0), (x1, y1) in zip(corners.tolist(), np.roll(corners, -1, axis=0).tolist(), strict=True):
            if y0 == y1:
                continue
            crossed = (heights >= min(y0, y1)) & (heights <= max(y0, y1))
            x = x0 + (heights[crossed] - y0) * ((x1 - x0) / (y1 - y0))
            left[crossed] = np.minimum(left[crossed], x)
            right[crossed] = np.maximum(right[crossed], x)
        missed = left > right
        left[missed] = right[missed] = 0.0
        self._fill(spans, left, right, color, alpha)

    def line(self, start: Vector, end: Vector, width: float, color: Sequence[int]) -> None:
        """A straight line with square ends."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        if length == 0:
            return
        x, y = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
        self.polygon([(x0 + x, y0 + y), (x1 + x, y1 + y), (x1 - x, y1 - y), (x0 - x, y0 - y)], color)

    def arc(self, center: Vector, radius: float, width: float, start: float, turn: float, color: Sequence[int]) -> None:
        """A part of a ring from angle `start` on for `turn` radians; both count from the x axis to the y axis."""
        reach = radius + width / 2
        corners = self._pixels([np.subtract(center, reach), np.add(center, reach)])
        low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(axis=0)), self.picture.shape[1::-1]).astype(int)
        if (low >= high).any():
            return
        x, y = (
            (np.arange(first, stop) + 0.5) / scale + origin - middle
            for first, stop, scale, origin, middle in zip(low, high, self._scale, self._origin, center, strict=True)
        )
        per_unit = math.sqrt(abs(self._scale.prod()))
        offset = np.abs(np.hypot(x, y[:, None]) - radius)
        coverage = np.clip(0.5 + (width / 2 - offset) * per_unit, 0.0, min(1.0, width * per_unit))
        angles = np.arctan2(y[:, None], x) - start
        coverage *= (np.sign(turn) * angles) % (2 * np.pi) <= abs(turn)
        _blend(self.picture[low[1] : high[1], low[0] : high[0]], coverage, color)

    def _pixels(self, points: Points | Vector) -> np.ndarray:
        return (np.asarray(points, np.float64) - self._origin) * self._scale

    def _spans(self, top: float, bottom: float) -> _Spans:
        """The spans of a shape between two heights, in pixels from the top."""
        first = max(0, math.floor(top))
        rows = max(0, min(self.picture.shape[0], math.ceil(bottom)) - first)
        edges = np.clip(first + np.arange(rows * _SPANS + 1) / _SPANS, top, bottom)
        return _Spans(first, rows, (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1])

    def _fill(self, spans: _Spans, left: np.ndarray, right: np.ndarray, color: Sequence[int], alpha: float) -> None:
        """Paint every span from `left` to `right`."""
        if not spans.rows:
            return
        start = max(0, math.floor(left.min()))
        stop = min(self.picture.shape[1], math.ceil(right.max()))
        if start >= stop:
            return
        pixels = np.arange(start, stop)
        coverage = np.minimum(right[:, None], pixels + 1)
        coverage -= np.maximum(left[:, None], pixels)
        np.maximum(coverage, 0.0, out=coverage)
        coverage *= spans.thickness[:, None] * alpha
        coverage = coverage.reshape(spans.rows, _SPANS, -1).sum(axis=1)
        _blend(self.picture[spans.first : spans.first + spans.rows, start:stop], coverage, color)


class _Spans(NamedTuple):
    """Horizontal strips of a shape, `_SPANS` per pixel row."""

    first: int  # pixel row
    rows: int
    heights: np.ndarray  # of the middle of what each strip has in common with the shape
    thickness: np.ndarray  # of that part; sums up to 1 per row that the shape fills


def _covered(low: float, high: float, pixels: int) -> tuple[slice, np.ndarray]:
    """The pixels that an interval touches, and how much of each it covers."""
    start, stop = max(0, math.floor(low)), min(pixels, math.ceil(high))
    left = np.arange(start, stop)
    return slice(start, max(start, stop)), np.minimum(left + 1, high) - np.maximum(left, low)


def _blend(patch: np.ndarray, coverage: np.ndarray, color: Sequence[int]) -> None:
    """Paint `color` over `patch`, a view (h, w, 3), by `coverage` (h, w) in 0..1."""
    mixed = np.asarray(color, np.float64) - patch
    mixed *= coverage[..., None]
    mixed += patch
    mixed += 0.5  # to the nearest level
    patch[...] = mixed


def draw_cells(colors: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A picture uint8 (H, W, 3) of a board whose cells have `colors` (rows, columns, 3), averaged by area."""
    rows, columns = colors.shape[:2]
    wide = _shares(columns, shape[1]) @ colors.astype(np.float32)  # (rows, W, 3)
    picture = _shares(rows, shape[0]) @ wide.reshape(rows, -1)
    picture += 0.5  # to the nearest level
    return picture.astype(np.uint8).reshape(*shape, 3)


@lru_cache(maxsize=64)
def _shares(cells: int, pixels: int) -> np.ndarray:
    """(pixels, cells): the share that each of `cells` equal parts of a line has in each of `pixels` ones."""
    edges = np.arange(pixels + 1) * (cells / pixels)
    left = np.arange(cells)
    covered = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return (np.maximum(covered, 0.0) * (pixels / cells)).astype(np.float32)
