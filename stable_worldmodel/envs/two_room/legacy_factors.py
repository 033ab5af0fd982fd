"""The factors of variation of the older TwoRoom, and the walls and doors that they describe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.drawing2d import Color
from stable_worldmodel.envs.env2d import Point
from stable_worldmodel.envs.two_room.geometry import Interval, merged
from stable_worldmodel.envs.variation import FactorSpace

DEFAULT_VARIATIONS = ("agent.position", "target.position")
WINDOW = 512
BORDER_SIZE = 9
PLAYABLE = WINDOW - 2 * BORDER_SIZE
WALL_POSITION = 247  # half of the playable size, rounded up: not the middle of the window
MAX_DOORS = 3
DOOR_FIT = 2.5  # some door is at least this many radii wide
_GAP = 1  # px between a door and the wall beside it
_SUBSTEPS = 10
_PASSES = 3  # a disc in a corner needs more than one push

Rectangle = tuple[Interval, Interval]  # in x, in y


@dataclass(frozen=True)
class LegacyLayout:
    """What one episode's factors say about geometry and motion. Lengths are px of the 512x512 window, y down."""

    axis: int  # 1: vertical wall, 0: horizontal
    thickness: int  # the wall is half as thick
    doors: tuple[Interval, ...]  # start and length along the wall
    radius: float
    target_radius: float
    speed: float  # px per step and unit action

    def door_spans(self) -> list[Interval]:
        """The openings along the wall, cut off at its ends; doors that overlap make one."""
        return merged((start, min(start + size, PLAYABLE)) for start, size in self.doors)

    def door_rectangles(self) -> list[Rectangle]:
        """The openings in the wall."""
        return [self._on_wall(span) for span in self.door_spans()]

    def wall_rectangles(self) -> list[Rectangle]:
        """What is left of the wall between the doors."""
        edges: list[float] = [0.0]
        for start, end in self.door_spans():
            edges += [start - _GAP, end + _GAP]
        edges.append(PLAYABLE)
        pieces = zip(edges[::2], edges[1::2], strict=True)
        return [self._on_wall((low, high)) for low, high in pieces if low < high]

    def border_rectangles(self) -> list[Rectangle]:
        """The borders, centred on the edges of the window."""
        half, whole = BORDER_SIZE / 4, (0.0, float(WINDOW))
        lines = [(edge - half, edge + half) for edge in whole]
        return [(line, whole) for line in lines] + [(whole, line) for line in lines]

    def slide(self, start: Point, action: Point) -> tuple[Point, int]:
        """Where one step from `start` ends, and how many walls and borders the disc touched, on average, rounded up.

        The step is taken in ten parts; after each the disc is pushed straight out of what it overlaps.
        """
        (x, y), touched = start, 0
        blocks = _solid(self)
        dx, dy = (a * self.speed / _SUBSTEPS for a in action)
        for _ in range(_SUBSTEPS):
            x, y = x + dx, y + dy
            hit: set[int] = set()
            for _ in range(_PASSES):
                before = (x, y)
                for number, block in enumerate(blocks):
                    pushed = _pushed_out((x, y), self.radius, block)
                    if pushed is not None:
                        (x, y), hit = pushed, hit | {number}
                if (x, y) == before:
                    break
            touched += len(hit)
        return (x, y), math.ceil(touched / _SUBSTEPS)

    def collides(self, position: Point, radius: float) -> bool:
        """Whether a disc is too close to a border or, doors not considered, to the wall."""
        low, high = BORDER_SIZE + radius, PLAYABLE - radius
        if any(p <= low or p >= high for p in position):
            return True
        return abs(position[1 - self.axis] - WALL_POSITION) <= self.thickness / 2 + radius

    def is_low_side(self, position: Point) -> bool:
        """Which of the two rooms a position lies in."""
        return position[1 - self.axis] < WALL_POSITION

    def _on_wall(self, span: Interval) -> Rectangle:
        across = (WALL_POSITION - self.thickness / 4, WALL_POSITION + self.thickness / 4)
        return (across, span) if self.axis == 1 else (span, across)


@lru_cache(maxsize=64)
def _solid(layout: LegacyLayout) -> tuple[Rectangle, ...]:
    """All that stops the agent; a layout is asked for it at every step."""
    return (*layout.border_rectangles(), *layout.wall_rectangles())


def _pushed_out(center: Point, radius: float, block: Rectangle) -> Point | None:
    """The nearest centre at which a disc does not overlap `block`; None if it does not anyway."""
    (x, y), ((x0, x1), (y0, y1)) = center, block
    dx, dy = x - min(max(x, x0), x1), y - min(max(y, y0), y1)
    square = dx * dx + dy * dy
    if square >= radius * radius:
        return None
    if square > 0:
        scale = radius / math.sqrt(square)
        return x - dx + dx * scale, y - dy + dy * scale
    faces = (
        (x - x0, (x0 - radius, y)),
        (x1 - x, (x1 + radius, y)),
        (y - y0, (x, y0 - radius)),
        (y1 - y, (x, y1 + radius)),
    )
    return min(faces)[1]


class Look(NamedTuple):
    """Colours."""

    background: Color
    wall: Color
    border: Color
    door: Color
    agent: Color
    target: Color


class Factors(FactorSpace):
    """The variation space, drawn in this order. Agent and target are clear of walls, in different rooms."""

    def __init__(self) -> None:
        super().__init__(
            {
                "background": {"color": spaces.RGBBox(init_value=(255, 255, 255))},
                "wall": {
                    "color": spaces.RGBBox(init_value=(115, 127, 145)),
                    "thickness": spaces.Discrete(25, start=9, init_value=19),
                    "axis": spaces.Discrete(2, init_value=1),
                    "border_color": spaces.RGBBox(init_value=(180, 189, 204)),
                },
                "agent": {
                    "color": spaces.RGBBox(init_value=(255, 0, 0)),
                    "radius": _length(15, 30, default=15),
                    "position": _point(50, self._start_is_free),
                    "max_energy": spaces.Discrete(150, start=50, init_value=100),
                    "speed": _length(10, 20, default=10),
                },
                "door": {
                    "color": spaces.RGBBox(init_value=(255, 255, 255)),
                    "number": spaces.Discrete(MAX_DOORS, start=1, init_value=1),
                    "size": _per_door(10, 99, default=75, allowed=self._a_door_fits),
                    "position": _per_door(0, 493, default=247),
                },
                "target": {
                    "color": spaces.RGBBox(init_value=(0, 255, 0)),
                    "radius": _length(15, 30, default=15),
                    "position": _point(450, self._target_is_free),
                },
            }
        )

    def draw(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode, see `draw_factors`."""
        self.draw_factors(seed, options, DEFAULT_VARIATIONS)

    def layout(self) -> LegacyLayout:
        """The geometry that the current values describe."""
        starts, sizes = self.value_of("door.position").tolist(), self.value_of("door.size").tolist()
        return LegacyLayout(
            axis=self.value_of("wall.axis"),
            thickness=self.value_of("wall.thickness"),
            doors=tuple(zip(starts, sizes, strict=True))[: self.value_of("door.number")],
            radius=self.value_of("agent.radius").item(),
            target_radius=self.value_of("target.radius").item(),
            speed=self.value_of("agent.speed").item(),
        )

    def look(self) -> Look:
        """The colours."""
        names = ("background.color", "wall.color", "wall.border_color", "door.color", "agent.color", "target.color")
        return Look(*(tuple(self.value_of(name).tolist()) for name in names))

    def _start_is_free(self, position: np.ndarray) -> bool:
        layout = self.layout()
        return not layout.collides(tuple(position.tolist()), layout.radius)

    def _target_is_free(self, position: np.ndarray) -> bool:
        layout, point = self.layout(), tuple(position.tolist())
        start = tuple(self.value_of("agent.position").tolist())
        return layout.is_low_side(point) != layout.is_low_side(start) and not layout.collides(
            point, layout.target_radius
        )

    def _a_door_fits(self, sizes: np.ndarray) -> bool:
        return sizes[: self.value_of("door.number")].max() >= DOOR_FIT * self.value_of("agent.radius").item()


def _point(default: float, allowed: Any) -> spaces.Box:
    low, high = BORDER_SIZE, WINDOW - BORDER_SIZE
    return spaces.Box(low, high, (2,), np.float32, init_value=(default, default), constrain_fn=allowed)


def _length(low: float, high: float, default: float) -> spaces.Box:
    return spaces.Box(low, high, (1,), np.float32, init_value=default)


def _per_door(low: int, high: int, default: int, allowed: Any = None) -> spaces.MultiDiscrete:
    counts, start = [high - low + 1] * MAX_DOORS, [low] * MAX_DOORS
    return spaces.MultiDiscrete(counts, start=start, init_value=[default] * MAX_DOORS, constrain_fn=allowed)
