"""The picture: a cached layer of everything that stands still, and a soft dot on top of it.

Everything is drawn directly at the size asked for. Edges are covered by area, so a small picture looks like the
224x224 one averaged down, and at 224x224 every edge falls on a pixel boundary and the picture is the published one,
except that colours are rounded where the published ones are cut off (a difference of at most 1/255).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stable_worldmodel.envs.two_room.geometry import (
    BORDER_SIZE,
    WALL_CENTER,
    WORLD_SIZE,
    Interval,
    Layout,
    Point,
    merged,
)

BORDER_WIDTH = 4
_VISIBLE = math.sqrt(2 * math.log(2 * 255))  # in sigmas: beyond it a Gaussian changes no colour by half a level

Color = tuple[int, int, int]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Palette:
    """Colours of what stands still."""

    background: Color
    door: Color
    wall: Color
    border: Color


def draw_rooms(layout: Layout, palette: Palette, shape: Shape) -> np.ndarray:
    """Background, wall with its doors, and the border lines: uint8 (H, W, 3)."""
    row = np.empty((shape[1], 3), np.uint8)
    row[:] = palette.background
    picture = np.tile(row, (shape[0], 1, 1))

    view, (length, thickness) = (picture, shape) if layout.axis == 1 else (picture.swapaxes(0, 1), shape[::-1])
    openings = _coverage(((center - size, center + size + 1) for center, size in layout.doors), length)
    colors = openings[:, None] * np.subtract(palette.door, palette.wall) + palette.wall  # (length, 3)
    wall = (WALL_CENTER - layout.half, WALL_CENTER + layout.half + 1)
    _paint_stripes(view, _coverage([wall], thickness), colors)
    draw_borders(picture, palette.border)
    return picture


def draw_borders(picture: np.ndarray, color: Color) -> None:
    """Paint the four lines around the room on `picture`, uint8 (H, W, 3)."""
    low, high = BORDER_SIZE, WORLD_SIZE - BORDER_SIZE
    lines = [(low - BORDER_WIDTH, low), (high, high + BORDER_WIDTH)]
    for view in (picture, picture.swapaxes(0, 1)):
        _paint_stripes(view, _coverage(lines, view.shape[1]), np.array([color], np.float64))


def _coverage(intervals: Iterable[Interval], pixels: int) -> np.ndarray:
    """How much of each of `pixels` equal parts of the world's side lies in the union of `intervals`, (pixels,)."""
    left = np.arange(pixels)
    covered = np.zeros(pixels)
    for low, high in merged(intervals):
        low, high = (edge * pixels / WORLD_SIZE for edge in (low, high))
        covered += np.clip(np.minimum(left + 1, high) - np.maximum(left, low), 0.0, 1.0)
    return covered


def _paint_stripes(picture: np.ndarray, coverage: np.ndarray, colors: np.ndarray) -> None:
    """Paint over the columns of `picture` by their `coverage` (W,) in `colors`, one per row (H, 3) or (1, 3)."""
    columns = np.flatnonzero(coverage)
    below = picture[:, columns]
    picture[:, columns] = np.rint(below + coverage[columns, None] * (colors[:, None] - below))


class Dot:
    """A Gaussian spot of one colour and size, ready to be blended into pictures of one shape.

    Args:
        color: RGB.
        sigma: standard deviation in world pixels; the spot is opaque in its middle.
        shape: (H, W) of the pictures.
    """

    def __init__(self, color: Color, sigma: float, shape: Shape):
        self._shape = shape
        self._native = shape == (WORLD_SIZE, WORLD_SIZE)
        self._scale = [pixels / WORLD_SIZE for pixels in shape]
        scale = np.array(self._scale)
        # Averaging over a pixel of a small picture, that is over 1/scale points, adds their variance to the
        # Gaussian's and lowers its peak by as much.
        variance = (sigma * scale) ** 2
        blurred = variance + np.maximum(0.0, 1.0 - scale**2) / 12.0
        self._peak = np.sqrt(variance / blurred)[:, None].astype(np.float32)
        self._decay = (-0.5 / blurred)[:, None].astype(np.float32)
        self._reach = math.ceil(_VISIBLE * math.sqrt(blurred.max()))
        self._offsets = np.arange(-self._reach, self._reach + 1, dtype=np.float32)
        self._color = np.tile(np.array(color, np.float32), len(self._offsets))

    def draw(self, picture: np.ndarray, center: Point) -> None:
        """Blend the spot into `picture`, uint8 (H, W, 3) and contiguous, at `center` (x, y) in world pixels."""
        # A world pixel's coordinate is that of its middle.
        y, x = ((c + 0.5) * scale - 0.5 for c, scale in zip((center[1], center[0]), self._scale, strict=True))
        row, column = round(y), round(x)
        profile = self._offsets - np.array([[y - row], [x - column]], np.float32)  # (2, length)
        profile *= profile
        profile *= self._decay
        np.exp(profile, out=profile)
        if self._native:
            profile /= profile[:, self._reach, None]  # published pictures have the full colour at the nearest pixel
        else:
            profile *= self._peak
        rows, down = self._clip(row, 0, profile[0])
        columns, right = self._clip(column, 1, profile[1])
        # Colours of one row side by side keep NumPy's inner loops long.
        flat = picture.reshape(len(picture), -1)[rows, 3 * columns.start : 3 * columns.stop]
        blend = self._color[: flat.shape[1]] - flat
        blend *= down[:, None] * right.repeat(3)
        blend += flat
        blend += 0.5  # to the nearest level
        flat[...] = blend

    def _clip(self, middle: int, axis: int, profile: np.ndarray) -> tuple[slice, np.ndarray]:
        """The part of a profile around pixel `middle` that lies in the picture."""
        first = middle - self._reach
        start = max(0, first)
        stop = max(start, min(self._shape[axis], first + len(profile)))
        return slice(start, stop), profile[start - first : stop - first]
