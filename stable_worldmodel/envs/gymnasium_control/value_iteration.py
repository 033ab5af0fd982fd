"""Optimal control of a two-dimensional state by value iteration on a grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

GRID_SIDE = 151  # grid points per axis
_SWEEPS = 1500  # at most


@dataclass(frozen=True)
class Move:
    """What one step of the system leads to: arrays of one shape."""

    x: np.ndarray
    v: np.ndarray
    cost: np.ndarray  # of the step, and of all that follows where it is over
    over: np.ndarray  # bool


Step = Callable[[np.ndarray, np.ndarray, float], Move]


class GridPolicy:
    """The action that costs least in total from a state (x, v), by value iteration with bilinear interpolation.

    Args:
        step: the system: (x, v, action) -> Move, for arrays of any shape.
        actions: the actions to choose from.
        x, v: lowest and highest value of both coordinates; states beyond count as at the edge.
        hold: steps that an action is kept in the planned future. One that moves the state by less than the distance of
            two grid points would be lost in the interpolation.
        hopeless: the cost from where there is no way, more than that of any way.
    """

    def __init__(
        self,
        step: Step,
        actions: Sequence[float],
        x: tuple[float, float],
        v: tuple[float, float],
        hold: int = 1,
        hopeless: float = 1e4,
    ):
        self._step, self._actions, self._hold = step, tuple(actions), hold
        self._low = np.array([x[0], v[0]])
        self._per_unit = (GRID_SIDE - 1) / (np.array([x[1], v[1]]) - self._low)
        self._values = np.full(GRID_SIDE * GRID_SIDE, hopeless)
        self._sweep(np.linspace(*x, GRID_SIDE), np.linspace(*v, GRID_SIDE), hopeless)

    def action(self, x: float, v: float) -> float:
        """The best action in a state."""
        at = np.array([x]), np.array([v])
        return min(self._actions, key=lambda action: float(self._total(*at, action)[0]))

    def cost(self, x: float, v: float) -> float:
        """What the way from a state costs; about `hopeless` where there is none."""
        corners, weights = self._corners(np.array([x]), np.array([v]))
        return float((weights * self._values[corners]).sum())

    def _total(self, x: np.ndarray, v: np.ndarray, action: float) -> np.ndarray:
        move = self._held(x, v, action)
        corners, weights = self._corners(move.x, move.v)
        return move.cost + np.where(move.over, 0.0, (weights * self._values[corners]).sum(axis=0))

    def _held(self, x: np.ndarray, v: np.ndarray, action: float) -> Move:
        """`hold` steps, or as many as there are until it is over."""
        move = self._step(x, v, action)
        for _ in range(self._hold - 1):
            after = self._step(move.x, move.v, action)
            cost = move.cost + np.where(move.over, 0.0, after.cost)
            move = Move(after.x, after.v, cost, move.over | after.over)
        return move

    def _sweep(self, x: np.ndarray, v: np.ndarray, hopeless: float) -> None:
        """Improve the values until they stay as they are."""
        from scipy.sparse import csr_array

        count, plans = len(self._values), []
        start_x, start_v = (axis.ravel() for axis in np.meshgrid(x, v, indexing="ij"))
        for action in self._actions:
            move = self._held(start_x, start_v, action)
            corners, weights = self._corners(move.x, move.v)
            weights = np.where(move.over, 0.0, weights)
            rows = np.tile(np.arange(count), len(corners))
            matrix = csr_array((weights.ravel(), (rows, corners.ravel())), shape=(count, count))
            plans.append((move.cost, matrix))
        for _ in range(_SWEEPS):
            values = reduce(np.minimum, (cost + matrix @ self._values for cost, matrix in plans))
            values = np.minimum(values, hopeless)
            settled = np.abs(values - self._values).max() < 1e-3 * max(1.0, float(values.min()))
            self._values = values
            if settled:
                return

    def _corners(self, x: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The four grid points around each state and their weights, both (4, ...)."""
        place = np.clip((np.stack([x, v], axis=-1) - self._low) * self._per_unit, 0.0, GRID_SIDE - 1)
        first = np.minimum(place.astype(int), GRID_SIDE - 2)
        part = place - first
        corners, weights = [], []
        for right, up in itertools.product((0, 1), repeat=2):
            corners.append((first[..., 0] + right) * GRID_SIDE + first[..., 1] + up)
            across = part[..., 0] if right else 1.0 - part[..., 0]
            along = part[..., 1] if up else 1.0 - part[..., 1]
            weights.append(across * along)
        return np.stack(corners), np.stack(weights)
