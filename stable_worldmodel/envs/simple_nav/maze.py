"""Perfect mazes by Eller's algorithm, and distances in them.

A maze is a bool array (H, W), True where there is floor. Cells lie at odd coordinates, the border is wall.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import numpy as np

# The directions an agent can face: right, down, left, up, as (x, y) with y down.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def carve(width: int, height: int, p_horizontal: float, p_vertical: float, rng: np.random.Generator) -> np.ndarray:
    """A maze with exactly one way between any two squares of floor.

    Row by row: neighbouring cells of different sets are joined with probability `p_horizontal`; every set opens
    downward from each of its cells with probability `p_vertical`, from one of them for certain; the last row joins all.
    """
    floor = np.zeros((height, width), bool)
    columns, rows = width // 2, height // 2
    sets: list[int | None] = [None] * columns
    fresh = iter(range(columns * rows))
    for row in range(rows):
        y, last = 2 * row + 1, row == rows - 1
        known = [next(fresh) if label is None else label for label in sets]
        floor[y, 1::2] = True
        for column in range(columns - 1):
            left, right = known[column : column + 2]
            if left != right and (last or rng.random() < p_horizontal):
                floor[y, 2 * column + 2] = True
                known = [left if label == right else label for label in known]
        if not last:
            sets = _open_downward(floor, y, known, p_vertical, rng)
    return floor


def _open_downward(
    floor: np.ndarray, y: int, labels: list[int], p_vertical: float, rng: np.random.Generator
) -> list[int | None]:
    """Carve below row `y`; return the sets of the next row's cells, None where they are new."""
    below: list[int | None] = [None] * len(labels)
    for label in dict.fromkeys(labels):
        members = [column for column, other in enumerate(labels) if other == label]
        order = rng.permutation(members).tolist()
        for column in order:
            if column == order[-1] or rng.random() < p_vertical:
                floor[y + 1, 2 * column + 1] = True
                below[column] = label
    return below


@lru_cache(maxsize=128)
def maze_of(size: int, p_horizontal: float, p_vertical: float, seed: int) -> np.ndarray:
    """The read-only maze of `size` x `size` squares that these numbers stand for."""
    floor = carve(size, size, p_horizontal, p_vertical, np.random.default_rng(seed))
    floor.flags.writeable = False
    return floor


def distances_to(floor: np.ndarray, goal: tuple[int, int]) -> np.ndarray:
    """Number of steps from each square to `goal` (x, y), (H, W); -1 where no way leads there."""
    distances = np.full(floor.shape, -1)
    distances[goal[1], goal[0]] = 0
    queue = deque([goal])
    while queue:
        x, y = queue.popleft()
        for dx, dy in STEPS:
            if floor[y + dy, x + dx] and distances[y + dy, x + dx] < 0:
                distances[y + dy, x + dx] = distances[y, x] + 1
                queue.append((x + dx, y + dy))
    return distances
