"""pymunk's debug drawing on a pygame surface, in the look of the published PushT pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stable_worldmodel.envs import utils
from stable_worldmodel.errors import require

_pygame = require("pygame", "env")
_pymunk = require("pymunk", "env")

_RIM = 4.0  # px by which a disc's lighter core is smaller
_OUTLINE = 2.0  # px on either side of a polygon's edge

Point = Sequence[float]


class DrawOptions(_pymunk.SpaceDebugDrawOptions):  # type: ignore[name-defined]
    """Draws a `pymunk.Space` with `space.debug_draw(DrawOptions(surface))`.

    Discs have a lighter core and no radius line, polygons are light with an outline. Where bodies touch there are
    marks, unless the `flags` say otherwise. One unit of the space is one pixel; `utils.positive_y_is_up` turns the
    picture over.

    Args:
        surface: the `pygame.Surface` to draw on.
    """

    def __init__(self, surface: Any):
        self.surface = surface
        super().__init__()

    def draw_circle(self, pos: Point, angle: float, radius: float, outline_color: Any, fill_color: Any) -> None:
        """A disc in `fill_color` with a lighter core."""
        center = utils.to_pygame(pos, self.surface)
        self._disc(center, round(radius), fill_color.as_int())
        self._disc(center, round(radius - _RIM), utils.light_color(fill_color.as_int()))

    def draw_segment(self, a: Point, b: Point, color: Any) -> None:
        """An anti-aliased line, a pixel wide."""
        start, end = utils.to_pygame(a, self.surface), utils.to_pygame(b, self.surface)
        _pygame.draw.aaline(self.surface, color.as_int(), start, end)

    def draw_fat_segment(self, a: Point, b: Point, radius: float, outline_color: Any, fill_color: Any) -> None:
        """A line of width `2 * radius` with round ends, in `fill_color`."""
        start, end = utils.to_pygame(a, self.surface), utils.to_pygame(b, self.surface)
        color, width = fill_color.as_int(), round(max(1.0, 2.0 * radius))
        _pygame.draw.line(self.surface, color, start, end, width)
        across = abs(end[1] - start[1]), abs(end[0] - start[0])
        length = math.hypot(*across)
        if width <= 2 or length == 0:
            return
        # The absolute value makes this offset wrong for lines that rise to the right: so are published pictures.
        x, y = (round(side * radius / length) for side in across)
        corners = [
            (start[0] - x, start[1] - y),
            (start[0] + x, start[1] + y),
            (end[0] + x, end[1] + y),
            (end[0] - x, end[1] - y),
        ]
        _pygame.draw.polygon(self.surface, color, corners)
        for center in (start, end):
            self._disc(center, round(radius), color)

    def draw_polygon(self, verts: Sequence[Point], radius: float, outline_color: Any, fill_color: Any) -> None:
        """A polygon, filled lighter than its outline in `fill_color`."""
        corners = [utils.to_pygame(corner, self.surface) for corner in verts]
        _pygame.draw.polygon(self.surface, utils.light_color(fill_color.as_int()), corners)
        for i, corner in enumerate(verts):
            self.draw_fat_segment(corner, verts[(i + 1) % len(verts)], _OUTLINE, fill_color, fill_color)

    def draw_dot(self, size: float, pos: Point, color: Any) -> None:
        """A disc in one colour."""
        self._disc(utils.to_pygame(pos, self.surface), round(size), color.as_int())

    def _disc(self, center: tuple[int, int], radius: int, color: Sequence[float]) -> None:
        _pygame.draw.circle(self.surface, tuple(int(component) for component in color), center, radius)
