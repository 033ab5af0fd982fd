"""Rectangular walls, a disc between them, where a move ends, and the shortest way to a place.

The world is the square [0, 5]^2. The disc's centre may lie anywhere in it where the disc touches no wall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csgraph

WORLD_SIZE = 5.0
_CLEARANCE = 1e-3  # distance from a wall at which routes turn its corners
_RINGS = (0.0, 0.3, 0.6, 0.9)  # of the goal's radius: where an agent may stop that does not fit at its centre

Point = tuple[float, float]
Wall = tuple[float, float, float, float]  # x and y of the lower left corner, width, height


@dataclass(frozen=True)
class Maze:
    """What one episode's factors say about geometry and motion."""

    walls: tuple[Wall, ...]
    radius: float
    speed: float  # distance per unit of action

    def move(self, start: Point, action: Point) -> Point:
        """Where one step from `start` ends: where it aims at, or `start` if the disc would touch a wall there.

        Only the end point counts, and it is clipped to the world first, so that no step ends inside a wall.
        """
        x, y = (min(max(s + self.speed * a, 0.0), WORLD_SIZE) for s, a in zip(start, action, strict=True))
        return start if touches(self.walls, (x, y), self.radius) else (x, y)


class Mazes:
    """The rules of motion of N episodes, to move N agents at once; with the bits of `Maze.move`."""

    def __init__(self, count: int):
        self._radius, self._speed = np.zeros((2, count, 1))
        self._low, self._high = np.zeros((2, count, 0, 2))  # corners of the walls

    def put(self, i: int, maze: Maze) -> None:
        """Set the rules of episode i."""
        self._radius[i], self._speed[i] = maze.radius, maze.speed
        missing = max(0, len(maze.walls) - self._low.shape[1])
        self._low, self._high = (
            np.pad(corners, ((0, 0), (0, missing), (0, 0)), constant_values=math.inf)
            for corners in (self._low, self._high)
        )
        self._low[i] = self._high[i] = math.inf  # a wall that does not exist
        for wall, (left, bottom, width, height) in enumerate(maze.walls):
            self._low[i, wall] = left, bottom
            self._high[i, wall] = left + width, bottom + height

    def move(self, starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where one step ends from each of `starts` (N, 2), float64."""
        ends = np.minimum(np.maximum(starts + self._speed * actions, 0.0), WORLD_SIZE)
        points = ends[:, None]
        gaps = points - np.minimum(np.maximum(points, self._low), self._high)
        gaps *= gaps
        touched = (gaps[..., 0] + gaps[..., 1] <= self._radius * self._radius).any(axis=1)
        return np.where(touched[:, None], starts, ends)


def touches(walls: tuple[Wall, ...], point: Point, radius: float) -> bool:
    """Whether a disc touches a wall."""
    x, y = point
    for left, bottom, width, height in walls:
        dx = x - min(max(x, left), left + width)
        dy = y - min(max(y, bottom), bottom + height)
        if dx * dx + dy * dy <= radius * radius:
            return True
    return False


def are_clear(maze: Maze, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether the disc can go straight from each of `starts` (N, 2) to its end, (N,) bool."""
    if not maze.walls:
        return np.ones(len(starts), bool)
    corner, size = np.split(np.array(maze.walls), 2, axis=1)  # (W, 2)
    distance = np.minimum(_to_rectangles(starts, corner, size), _to_rectangles(ends, corner, size))
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        distance = np.minimum(distance, _to_segments(corner + size * (dx, dy), starts, ends))
    return ((distance > maze.radius) & ~_crosses(starts, ends, corner, size)).all(axis=1)


def _to_rectangles(points: np.ndarray, corner: np.ndarray, size: np.ndarray) -> np.ndarray:
    gap = points[:, None] - np.clip(points[:, None], corner, corner + size)
    return np.hypot(gap[..., 0], gap[..., 1])


def _to_segments(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Distance of each of `points` (W, 2) to each segment, (N, W)."""
    way = ends - starts
    square = np.maximum((way**2).sum(axis=1), 1e-12)[:, None]
    offset = points - starts[:, None]  # (N, W, 2)
    along = np.clip((offset * way[:, None]).sum(axis=2) / square, 0.0, 1.0)
    gap = offset - along[..., None] * way[:, None]
    return np.hypot(gap[..., 0], gap[..., 1])


def _crosses(starts: np.ndarray, ends: np.ndarray, corner: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Whether each segment meets each rectangle, (N, W)."""
    way = (ends - starts)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        near = (corner - starts[:, None]) / way
        far = (corner + size - starts[:, None]) / way
    outside = (way == 0) & ((starts[:, None] < corner) | (starts[:, None] > corner + size))
    low = np.where(way == 0, -np.inf, np.minimum(near, far)).max(axis=2)
    high = np.where(way == 0, np.inf, np.maximum(near, far)).min(axis=2)
    return (np.maximum(low, 0.0) <= np.minimum(high, 1.0)) & ~outside.any(axis=2)


class Routes:
    """Shortest ways to one goal, along straight lines between the corners of the walls.

    Attributes:
        end: where the routes lead: the goal's centre, or the nearest place within its radius where the disc fits.
            None if it fits nowhere in the goal.
    """

    def __init__(self, maze: Maze, goal: Point, goal_radius: float):
        self._maze = maze
        self.end = _place_within(maze, goal, goal_radius)
        if self.end is None:
            return
        corners, lengths, _ = _corner_graph(maze)
        self._points = np.array([*corners, self.end])
        matrix = np.zeros((len(self._points),) * 2)
        matrix[:-1, :-1] = lengths
        matrix[:-1, -1] = matrix[-1, :-1] = self._visible_distances(self.end)[:-1]
        matrix[~np.isfinite(matrix)] = 0.0  # csgraph: no edge
        self._to_go = csgraph.dijkstra(matrix, directed=False, indices=len(corners))

    def waypoint(self, position: Point) -> Point | None:
        """The next place to head for, in a straight line; None if no route leads to the goal."""
        if self.end is None:
            return None
        distances = self._visible_distances(position)
        distances[:-1][distances[:-1] < _CLEARANCE / 10] = np.inf  # a corner where it already is
        total = distances + self._to_go
        best = int(total.argmin())
        return tuple(self._points[best].tolist()) if np.isfinite(total[best]) else None

    def _visible_distances(self, position: Point) -> np.ndarray:
        return _visible_distances(self._maze, position, self._points)


@lru_cache(maxsize=64)
def routes_to(maze: Maze, goal: Point, goal_radius: float) -> Routes:
    """`Routes(maze, goal, goal_radius)`, remembered: a reset asks several times for the same ones."""
    return Routes(maze, goal, goal_radius)


def _visible_distances(maze: Maze, position: Point, points: np.ndarray) -> np.ndarray:
    """Distance from `position` to each of `points` (N, 2), infinite where a wall is in between."""
    starts = np.broadcast_to(np.array(position, np.float64), points.shape)
    distances = np.hypot(*(points - starts).T)
    return np.where(are_clear(maze, starts, points), distances, np.inf)


def is_enclosed(maze: Maze, position: Point) -> bool:
    """Whether walls shut the disc off from most of the world."""
    corners, _, main = _corner_graph(maze)
    return bool(main.any()) and not np.isfinite(_visible_distances(maze, position, corners)[main]).any()


def _place_within(maze: Maze, goal: Point, goal_radius: float) -> Point | None:
    for ring in _RINGS:
        for turn in np.linspace(0.0, 2 * math.pi, 16 if ring else 1, endpoint=False):
            x, y = goal[0] + ring * goal_radius * math.cos(turn), goal[1] + ring * goal_radius * math.sin(turn)
            if 0 <= x <= WORLD_SIZE and 0 <= y <= WORLD_SIZE and not touches(maze.walls, (x, y), maze.radius):
                return x, y
    return None


@lru_cache(maxsize=64)
def _corner_graph(maze: Maze) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Free points (N, 2) where routes turn, straight distances (N, N), and which of them hang together most (N,)."""
    offset = maze.radius + _CLEARANCE
    points = [
        (x, y)
        for left, bottom, width, height in maze.walls
        for x in (left - offset, left + width + offset)
        for y in (bottom - offset, bottom + height + offset)
        if 0 <= x <= WORLD_SIZE and 0 <= y <= WORLD_SIZE and not touches(maze.walls, (x, y), maze.radius)
    ]
    corners = np.array(points, np.float64).reshape(-1, 2)
    distances = np.array([_visible_distances(maze, point, corners) for point in points]).reshape((len(points),) * 2)
    if not points:
        return corners, distances, np.zeros(0, bool)
    _, labels = csgraph.connected_components(np.isfinite(distances), directed=False)
    return corners, distances, labels == np.bincount(labels).argmax()
