"""The factors of variation of Piecewise, and the field of drifts that they describe."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.drawing2d import Color
from stable_worldmodel.envs.two_room.geometry import BORDER_SIZE, WORLD_SIZE, Point, Position
from stable_worldmodel.envs.variation import FactorSpace
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("agent.position", "target.position")
ROOM = WORLD_SIZE - 2 * BORDER_SIZE


@dataclass(frozen=True)
class Field:
    """The rules of motion of an episode. Lengths are px of the 224x224 picture."""

    grid_n: int  # zones per side
    biases: tuple[Point, ...]  # drift per step of every zone, row by row
    radius: float
    speed: float  # px per step and unit action

    def zone(self, position: Position) -> int:
        """The number of the zone that `position` lies in; beyond the room, of the nearest."""
        column, row = (
            min(max(math.floor((p - BORDER_SIZE) / ROOM * self.grid_n), 0), self.grid_n - 1) for p in position
        )
        return row * self.grid_n + column

    def bias(self, position: Position) -> Point:
        """The drift at `position`, px per step."""
        return self.biases[self.zone(position)]

    def move(self, start: Point, action: Point) -> Point:
        """Where one step from `start` ends; `action` is within [-1, 1]."""
        low, high = BORDER_SIZE + self.radius, WORLD_SIZE - BORDER_SIZE - self.radius
        x, y = (s + a * self.speed + b for s, a, b in zip(start, action, self.bias(start), strict=True))
        return min(max(x, low), high), min(max(y, low), high)


class Fields:
    """The rules of motion of N episodes, to move N agents at once; with the bits of `Field.move`."""

    def __init__(self, count: int):
        self._rows = np.arange(count)
        self._radius, self._speed = np.zeros((2, count, 1))
        self._grid = np.ones((count, 1), int)
        self._biases = np.zeros((count, 0, 2))

    def put(self, i: int, field: Field) -> None:
        """Set the rules of episode i."""
        self._radius[i], self._speed[i], self._grid[i] = field.radius, field.speed, field.grid_n
        missing = len(field.biases) - self._biases.shape[1]
        if missing > 0:
            self._biases = np.pad(self._biases, ((0, 0), (0, missing), (0, 0)))
        self._biases[i, : len(field.biases)] = field.biases

    def move(self, starts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where one step ends from each of `starts` (N, 2), float64."""
        cells = np.floor((starts - BORDER_SIZE) / ROOM * self._grid).astype(int)
        column, row = np.clip(cells, 0, self._grid - 1).T
        bias = self._biases[self._rows, row * self._grid[:, 0] + column]
        low, high = BORDER_SIZE + self._radius, WORLD_SIZE - BORDER_SIZE - self._radius
        return np.minimum(np.maximum(starts + actions * self._speed + bias, low), high)


class Look(NamedTuple):
    """What an episode looks like, apart from its field."""

    background: Color
    border: Color
    zones: tuple[Color, ...] | None  # None: not shown
    shows_biases: bool
    agent_color: Color
    target_color: Color
    target_radius: float
    shows_target: bool


class Factors(FactorSpace):
    """The variation space, drawn in this order. No factor depends on another one."""

    def __init__(self, grid_n: int):
        if grid_n < 1:
            raise ContractError(f"grid_n={grid_n}: expected >= 1")
        self._grid_n = grid_n
        zones = range(grid_n**2)
        super().__init__(
            {
                "background": {"color": spaces.RGBBox(init_value=(255, 255, 255))},
                "border": {"color": spaces.RGBBox(init_value=(0, 0, 0))},
                "agent": {
                    "color": spaces.RGBBox(init_value=(255, 0, 0)),
                    "radius": _length(7, 14, default=7),  # also the sigma of the dot
                    "position": _point(60, 112),
                    "speed": _length(1.75, 10.5, default=5),
                },
                "task": {"min_steps": spaces.Discrete(100, start=15, init_value=25)},
                "target": {
                    "color": spaces.RGBBox(init_value=(0, 255, 0)),
                    "radius": _length(7, 14, default=7),
                    "position": _point(164, 112),
                },
                "rendering": {
                    name: spaces.Discrete(2, init_value=0)
                    for name in ("render_target", "render_zones", "render_bias_field")
                },
                "zones": {f"bias_{i}": _bias(i / len(zones)) for i in zones}
                | {f"color_{i}": spaces.RGBBox(init_value=_pastel(i / len(zones))) for i in zones},
            }
        )

    def draw(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode, see `draw_factors`."""
        self.draw_factors(seed, options, DEFAULT_VARIATIONS)

    def layout(self) -> Field:
        """The field of drifts that the current values describe."""
        return Field(
            grid_n=self._grid_n,
            biases=tuple(tuple(self.value_of(f"zones.bias_{i}").tolist()) for i in range(self._grid_n**2)),
            radius=self.value_of("agent.radius").item(),
            speed=self.value_of("agent.speed").item(),
        )

    def look(self) -> Look:
        """What an episode looks like, apart from its field."""
        zones = tuple(self._color(f"zones.color_{i}") for i in range(self._grid_n**2))
        return Look(
            background=self._color("background.color"),
            border=self._color("border.color"),
            zones=zones if self.value_of("rendering.render_zones") else None,
            shows_biases=bool(self.value_of("rendering.render_bias_field")),
            agent_color=self._color("agent.color"),
            target_color=self._color("target.color"),
            target_radius=self.value_of("target.radius").item(),
            shows_target=bool(self.value_of("rendering.render_target")),
        )

    def _color(self, name: str) -> Color:
        return tuple(self.value_of(name).tolist())


def _point(x: float, y: float) -> spaces.Box:
    return spaces.Box(BORDER_SIZE, WORLD_SIZE - BORDER_SIZE - 1, (2,), np.float32, init_value=(x, y))


def _length(low: float, high: float, default: float) -> spaces.Box:
    return spaces.Box(low, high, (1,), np.float32, init_value=default)


def _bias(turn: float) -> spaces.Box:
    angle = 2 * math.pi * turn
    return spaces.Box(-4.0, 4.0, (2,), np.float32, init_value=(2 * math.cos(angle), 2 * math.sin(angle)))


def _pastel(hue: float) -> Color:
    red, green, blue = (int(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.25, 1.0))
    return red, green, blue
