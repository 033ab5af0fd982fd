"""The shapes of block and agent: unions of boxes (or one disc), their mass properties, symmetry and overlap.

Lengths are px of the 512x512 arena, origin top left, y down, times the `scale` of a body. Local coordinates are those
of the body's origin, which is what states report; it is not the centre of mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x from, to, y from, to
Pose = tuple[float, float, float]  # x, y, angle

NAMES = ("o", "L", "T", "Z", "square", "I", "small_tee", "+")  # a factor's value is the position in this list
DISC = NAMES.index("o")
DISC_RADIUS = 0.375  # times scale


@dataclass(frozen=True)
class Shape:
    """A union of boxes in units of the scale.

    Mass properties are the published ones, which dynamics recorded elsewhere depend on: the centre of mass is the mean
    of the boxes' centres whatever their areas, and moments are taken about the origin, not the centre of mass.
    """

    boxes: tuple[Box, ...]
    moment_of: tuple[int, ...]  # the boxes whose moments add up, each with mass 1; not always all of them
    period: float = 2 * math.pi  # rotation that maps the shape to itself

    def center_of_mass(self, scale: float) -> Point:
        """In local px."""
        count = len(self.boxes)
        x = sum((x0 + x1) / 2 for x0, x1, _, _ in self.boxes) / count
        y = sum((y0 + y1) / 2 for _, _, y0, y1 in self.boxes) / count
        return x * scale, y * scale

    def polygons(self, scale: float) -> list[list[Point]]:
        """The corners of every box in local px."""
        return [
            [(x * scale, y * scale) for x, y in ((x0, y1), (x1, y1), (x1, y0), (x0, y0))]
            for x0, x1, y0, y1 in self.boxes
        ]

    def reach(self, scale: float) -> float:
        """Greatest distance of a point from the origin, px."""
        return scale * max(math.hypot(max(-x0, x1), max(-y0, y1)) for x0, x1, y0, y1 in self.boxes)


SHAPES: dict[str, Shape] = {
    "L": Shape(((0, 1, 0, 2), (0, 2, -1, 0)), (0, 1)),
    "T": Shape(((-2, 2, 0, 1), (-0.5, 0.5, 1, 4)), (0, 0)),
    "Z": Shape(((-0.5, 1.5, 0, 1), (-1.5, 0.5, -1, 0)), (0, 1), math.pi),
    "square": Shape(((-1, 1, -1, 1),), (0,), math.pi / 2),
    "I": Shape(((-0.5, 0.5, -2, 2),), (0,), math.pi),
    "small_tee": Shape(((-1.5, 1.5, 0, 1), (-0.5, 0.5, 1, 2)), (0, 1)),
    "+": Shape(((-1.5, 1.5, -0.5, 0.5), (-0.5, 0.5, 0.5, 1.5), (-0.5, 0.5, -1.5, -0.5)), (0, 0, 0), math.pi / 2),
}


@dataclass(frozen=True)
class Figure:
    """A shape at a size: what one body of an episode is, apart from its pose."""

    name: str
    scale: float

    @property
    def is_disc(self) -> bool:
        return self.name == "o"

    @property
    def radius(self) -> float:
        """Of the disc."""
        return DISC_RADIUS * self.scale

    @property
    def period(self) -> float:
        """Rotation in radians that maps the shape to itself."""
        return 2 * math.pi if self.is_disc else SHAPES[self.name].period

    def polygons(self) -> list[list[Point]]:
        """The corners of every convex part in local px; none for a disc."""
        return [] if self.is_disc else SHAPES[self.name].polygons(self.scale)

    def center_of_mass(self) -> Point:
        """In local px."""
        return (0.0, 0.0) if self.is_disc else SHAPES[self.name].center_of_mass(self.scale)

    def reach(self) -> float:
        """Greatest distance of a point from the origin, px."""
        return self.radius if self.is_disc else SHAPES[self.name].reach(self.scale)

    def extent(self, angle: float) -> Box:
        """Bounding box of the body at the origin, turned by `angle`: x from, to, y from, to."""
        if self.is_disc:
            return -self.radius, self.radius, -self.radius, self.radius
        corners = [corner for polygon in self.placed((0.0, 0.0, angle)) for corner in polygon]
        xs, ys = zip(*corners, strict=True)
        return min(xs), max(xs), min(ys), max(ys)

    def placed(self, pose: Pose) -> list[list[Point]]:
        """The corners of every convex part in arena px."""
        x, y, angle = pose
        cos, sin = math.cos(angle), math.sin(angle)
        return [[(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in polygon] for polygon in self.polygons()]


def figure(shape: int | str, scale: float) -> Figure:
    """The figure of a shape given by its name or its position in `NAMES`."""
    return Figure(shape if isinstance(shape, str) else NAMES[shape], scale)


def overlap(first: Figure, pose: Pose, second: Figure, other_pose: Pose, margin: float = 0.0) -> bool:
    """Whether two figures come closer than about `margin` px (corners count as sharp)."""
    if first.is_disc and second.is_disc:
        return math.dist(pose[:2], other_pose[:2]) < first.radius + second.radius + margin
    if math.dist(pose[:2], other_pose[:2]) >= first.reach() + second.reach() + margin:
        return False
    if second.is_disc:
        first, pose, second, other_pose = second, other_pose, first, pose
    if first.is_disc:
        return any(distance(polygon, pose[:2]) < first.radius + margin for polygon in second.placed(other_pose))
    others = second.placed(other_pose)
    return any(not _separated(a, b, margin) for a in first.placed(pose) for b in others)


def distance(polygon: Sequence[Point], point: Point) -> float:
    """Distance of a point from a convex polygon; 0 inside."""
    edges = list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))
    sides = [_cross(start, end, point) for start, end in edges]
    if min(sides) >= 0 or max(sides) <= 0:
        return 0.0
    return min(_segment_distance(start, end, point) for start, end in edges)


def _cross(start: Point, end: Point, point: Point) -> float:
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def _segment_distance(start: Point, end: Point, point: Point) -> float:
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((point[0] - start[0]) * dx + (point[1] - start[1]) * dy) / (dx * dx + dy * dy)
    along = min(max(along, 0.0), 1.0)
    return math.hypot(point[0] - start[0] - along * dx, point[1] - start[1] - along * dy)


def _separated(first: list[Point], second: list[Point], margin: float) -> bool:
    """Whether an edge normal of two convex polygons separates them by `margin`."""
    for polygon in (first, second):
        for start, end in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            length = math.dist(start, end)
            nx, ny = (end[1] - start[1]) / length, (start[0] - end[0]) / length
            ours = [x * nx + y * ny for x, y in first]
            theirs = [x * nx + y * ny for x, y in second]
            if min(theirs) - max(ours) >= margin or min(ours) - max(theirs) >= margin:
                return True
    return False
