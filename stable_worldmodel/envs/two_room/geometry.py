"""Two rooms, a wall with doors between them, and where a move ends.

Lengths are the pixels of the 224x224 picture, origin top left, y down. A disc (the agent) lives in the square room
[14, 210]^2, divided by a wall centred on 112. `across` is the coordinate perpendicular to the wall, `along` the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

WORLD_SIZE = 224
BORDER_SIZE = 14
WALL_CENTER = 112
MAX_DOORS = 3
DOOR_MARGIN = 1.75  # how far beside a door the legacy point test still passes
DOOR_FIT = 1.1  # a door fits an agent if its half extent is at least this many radii
LONG_WAY = 0.8  # share of the longest way that is always far enough
REBOUND = 0.5  # the legacy collision puts the agent this far in front of the wall

Point = tuple[float, float]
Position = Sequence[float] | np.ndarray
Interval = tuple[float, float]
Block = tuple[Interval, Interval]  # in x, in y


class Passage(NamedTuple):
    """A way through the wall."""

    point: Point  # on the wall's centre line, in the middle of the door or of what the agent can use of it
    low: float  # least and
    high: float  # greatest coordinate along the wall that the agent can have in it


@dataclass(frozen=True)
class Layout:
    """What one episode's factors say about geometry and motion."""

    axis: int  # 1: vertical wall, crossed by moving in x; 0: horizontal wall
    thickness: int
    doors: tuple[Point, ...]  # (centre along the wall, half extent) of every active door
    radius: float  # of the agent
    speed: float  # px per step and unit action
    swept: bool = False  # which collision rules hold: `swept_move` or `legacy_move`

    @property
    def across(self) -> int:
        """Index of the coordinate perpendicular to the wall."""
        return 1 - self.axis

    @property
    def half(self) -> int:
        """Half the wall's thickness, as drawn: pixels 112 - half ... 112 + half."""
        return self.thickness // 2

    @property
    def reach(self) -> float:
        """Distance from the wall's centre line within which the agent overlaps the wall, or is in a door."""
        return self.half + self.radius

    def door_center(self, door: int) -> Point:
        """(x, y) of the middle of an opening."""
        return self._on_wall(self.doors[door][0])

    def passage(self, door: int, fit: float = DOOR_FIT) -> Passage | None:
        """How the agent passes a door, or None if it cannot.

        Args:
            fit: how many radii of the agent the opening's half extent must be at least.
        """
        center, size = self.doors[door]
        opening = (center - size, center + size)
        if self.swept:
            opening = next(gap for gap in self.gaps() if gap[0] <= center <= gap[1])
        if opening[1] - opening[0] < 2 * fit * self.radius:
            return None
        room, margin = self._limits(), -self.radius if self.swept else DOOR_MARGIN
        low, high = max(opening[0] - margin, room[0]), min(opening[1] + margin, room[1])
        if low > high:  # hidden behind a border
            return None
        along = (low + high) / 2 if self.swept else min(max(center, low), high)
        return Passage(self._on_wall(along), low, high)

    def passages(self) -> list[Passage]:
        """The passages of the doors that fit the agent."""
        return [passage for passage in map(self.passage, range(len(self.doors))) if passage is not None]

    def in_wall(self, position: Position) -> bool:
        """Whether an agent at `position` overlaps the wall, doors not considered."""
        return abs(position[self.across] - WALL_CENTER) <= self.reach

    def in_room(self, position: Position) -> Point:
        """The nearest point to `position` where the agent does not overlap a border."""
        low, high = self._limits()
        return min(max(position[0], low), high), min(max(position[1], low), high)

    def move(self, start: Point, action: Point) -> Point:
        """Where one step from `start` ends; `action` is within [-1, 1]."""
        delta = (action[0] * self.speed, action[1] * self.speed)
        return swept_move(self, start, delta) if self.swept else legacy_move(self, start, delta)

    def gaps(self) -> list[Interval]:
        """The openings in the wall, along it; doors that overlap make one."""
        return merged((center - size, center + size) for center, size in self.doors)

    def _limits(self) -> Interval:
        return BORDER_SIZE + self.radius, WORLD_SIZE - BORDER_SIZE - self.radius

    def _on_wall(self, along: float) -> Point:
        return (WALL_CENTER, along) if self.axis == 1 else (along, WALL_CENTER)


def legacy_move(layout: Layout, start: Point, delta: Point) -> Point:
    """Where a step ends under the rules that published datasets were recorded with.

    Only the end point is tested, and for doors only the centre of the agent. Two consequences are kept on purpose:
    pressing on against the wall bounces the agent back by half a pixel, and leaving an opening sideways, inside the
    wall, puts it in front of the wall, on the side the rule takes it to have come from.
    """
    x, y = layout.in_room((start[0] + delta[0], start[1] + delta[1]))
    across, along = (x, y) if layout.axis == 1 else (y, x)
    if any(abs(along - center) <= size + DOOR_MARGIN for center, size in layout.doors):
        return x, y
    if start[layout.across] < WALL_CENTER:
        if across > WALL_CENTER - layout.reach:
            across = WALL_CENTER - layout.reach - REBOUND
    elif across < WALL_CENTER + layout.reach:
        across = WALL_CENTER + layout.reach + REBOUND
    return (across, along) if layout.axis == 1 else (along, across)


class Layouts:
    """The rules of motion of N episodes, to move N agents at once; with the bits of `Layout.move`."""

    def __init__(self, count: int):
        self._layouts: list[Layout | None] = [None] * count
        self._rows = np.arange(count)
        self._across = np.zeros(count, int)
        self._reach, self._radius, self._speed = np.zeros((3, count))
        self._doors, self._half_openings = np.zeros((2, count, MAX_DOORS))

    def put(self, i: int, layout: Layout) -> None:
        """Set the rules of episode i."""
        self._layouts[i] = layout
        self._across[i], self._reach[i] = layout.across, layout.reach
        self._radius[i], self._speed[i] = layout.radius, layout.speed
        self._half_openings[i] = -math.inf  # a door that does not exist
        for door, (center, size) in enumerate(layout.doors):
            self._doors[i, door], self._half_openings[i, door] = center, size + DOOR_MARGIN

    def move(self, starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where one step ends from each of `starts` (N, 2), float64."""
        if any(layout is not None and layout.swept for layout in self._layouts):
            cases = zip(self._layouts, starts.tolist(), actions.tolist(), strict=True)
            return np.array([layout.move(start, action) if layout else start for layout, start, action in cases])
        low, high = BORDER_SIZE + self._radius[:, None], WORLD_SIZE - BORDER_SIZE - self._radius[:, None]
        ends = np.minimum(np.maximum(starts + actions * self._speed[:, None], low), high)
        rows, across = self._rows, self._across
        in_door = (np.abs(ends[rows, 1 - across, None] - self._doors) <= self._half_openings).any(axis=1)
        near, far = WALL_CENTER - self._reach, WALL_CENTER + self._reach
        end = ends[rows, across]
        on_near_side = starts[rows, across] < WALL_CENTER
        end = np.where(on_near_side, np.where(end > near, near - REBOUND, end), np.where(end < far, far + REBOUND, end))
        ends[rows, across] = np.where(in_door, ends[rows, across], end)
        return ends


def swept_move(layout: Layout, start: Point, delta: Point) -> Point:
    """Where a step ends when the whole path and the agent's size count: it slides along what it hits.

    The agent is its bounding square, so it passes a door only if the door's half extent is at least its radius.
    """
    blocks = _blocks(layout)
    position = list(_outside(layout, blocks, layout.in_room(start)))
    end = layout.in_room((position[0] + delta[0], position[1] + delta[1]))
    move = [end[0] - position[0], end[1] - position[1]]
    for _ in range(2):  # each hit stops one coordinate
        hit = min(filter(None, (_hit(block, position, move) for block in blocks)), default=None)
        if hit is None:
            break
        time, stopped, face = hit
        position = [p + time * m for p, m in zip(position, move, strict=True)]
        position[stopped] = face
        move = [(1.0 - time) * m for m in move]
        move[stopped] = 0.0
    return position[0] + move[0], position[1] + move[1]


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The union of intervals as disjoint ones in ascending order."""
    union: list[Interval] = []
    for low, high in sorted(intervals):
        if union and low <= union[-1][1]:
            union[-1] = (union[-1][0], max(high, union[-1][1]))
        else:
            union.append((low, high))
    return union


def _blocks(layout: Layout) -> list[Block]:
    """Disjoint open rectangles that the agent's centre cannot enter: the wall between the doors, widened by it."""
    wall = (WALL_CENTER - layout.reach, WALL_CENTER + layout.reach)
    edges = [-math.inf]
    for gap in layout.gaps():
        edges.extend(gap)
    edges.append(math.inf)
    pieces = zip(edges[::2], edges[1::2], strict=True)
    widened = merged((low - layout.radius, high + layout.radius) for low, high in pieces)
    return [(wall, piece) if layout.axis == 1 else (piece, wall) for piece in widened]


def _outside(layout: Layout, blocks: list[Block], position: Point) -> Point:
    """`position`, or the nearest point of the room on the boundary of the block it lies in."""
    for block in blocks:
        if all(low < p < high for p, (low, high) in zip(position, block, strict=True)):
            ways = [(face, position[1]) for face in block[0]] + [(position[0], face) for face in block[1]]
            inside = [way for way in ways if layout.in_room(way) == way]
            return min(inside, key=lambda way: math.dist(way, position))
    return position


def _hit(block: Block, position: Position, move: Position) -> tuple[float, int, float] | None:
    """(fraction of the move, coordinate, its value) where the path enters `block`, or None."""
    enter, leave, stopped, face = -math.inf, math.inf, -1, 0.0
    for i in (0, 1):
        low, high = block[i]
        if move[i] == 0.0:
            if not low < position[i] < high:
                return None
            continue
        near, far = (low, high) if move[i] > 0 else (high, low)
        if (near - position[i]) / move[i] > enter:
            enter, stopped, face = (near - position[i]) / move[i], i, near
        leave = min(leave, (far - position[i]) / move[i])
    return (enter, stopped, face) if 0.0 <= enter < min(leave, 1.0) else None


def shortest_way(layout: Layout, start: Position, end: Position) -> float | None:
    """Length of the way through the best door, straight to its passage and on; None if the agent fits none."""
    points = [passage.point for passage in layout.passages()]
    return min((math.dist(start, point) + math.dist(point, end) for point in points), default=None)


def is_behind_wall(layout: Layout, start: Position, target: Position, min_steps: int) -> bool:
    """Whether a target lies in the other room, clear of the wall, and at least `min_steps` steps away.

    The way leads through the best door that fits; without one every distance will do. Where the rooms are too small
    for `min_steps`, four fifths of the way to the farthest corner are enough.
    """
    sides = [point[layout.across] < WALL_CENTER for point in (start, target)]
    if sides[0] == sides[1] or layout.in_wall(target):
        return False
    way = shortest_way(layout, start, target)
    if way is None:
        return True
    near, far = BORDER_SIZE, WORLD_SIZE - BORDER_SIZE - 1
    corners = [(far if sides[0] else near, along) for along in (near, far)]
    if layout.axis == 0:
        corners = [(along, across) for across, along in corners]
    longest = max(shortest_way(layout, start, corner) or 0.0 for corner in corners)
    return way >= min(min_steps * layout.speed, LONG_WAY * longest)
