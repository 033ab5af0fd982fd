"""The factors of variation of SimplePointMaze: ranges, defaults, order of drawing, and what must fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.drawing2d import Color
from stable_worldmodel.envs.simple_point_maze.geometry import WORLD_SIZE, Maze, Wall, is_enclosed, routes_to, touches
from stable_worldmodel.envs.variation import FactorSpace
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("agent.position",)
TARGET_RULES = ("reachable", "any")
_WALLS_SEED = 234232  # of the default walls


class Look(NamedTuple):
    """Colours."""

    background: Color
    walls: Color
    agent: Color
    goal: Color


class Factors(FactorSpace):
    """The variation space, drawn in this order: walls, then an agent that fits between them, then a goal.

    Walls lie inside the world; agent and goal touch none of those that exist. With the target rule "reachable" walls
    do not shut the agent in, and a route leads to the goal.
    """

    def __init__(self, min_walls: int, max_walls: int, min_size: float, max_size: float, target_rule: str):
        if not 0 <= min_walls <= max_walls or max_walls < 1:
            raise ContractError(f"min_walls={min_walls}, max_walls={max_walls}: expected 0 <= min <= max and max >= 1")
        if not 0 < min_size <= max_size < WORLD_SIZE - 1:
            raise ContractError(f"wall sizes {min_size}..{max_size}: expected 0 < min <= max < {WORLD_SIZE - 1}")
        if target_rule not in TARGET_RULES:
            raise ContractError(f"target_rule={target_rule!r}: expected one of {TARGET_RULES}")
        self._strict = target_rule == "reachable"
        rng = np.random.default_rng(_WALLS_SEED)
        shape = (max_walls, 2)
        sizes = rng.uniform(min_size, max_size, shape).astype(np.float32)
        corners = rng.uniform(1.0, WORLD_SIZE - max_size, shape).astype(np.float32)
        number = (min_walls + max_walls) // 2
        super().__init__(
            {
                "walls": {
                    "number": spaces.Discrete(max_walls - min_walls + 1, start=min_walls, init_value=number),
                    "color": spaces.RGBBox(init_value=(0, 0, 0)),
                    "shape": spaces.Box(min_size, max_size, shape, np.float32, init_value=sizes),
                    "positions": spaces.Box(
                        0.0, WORLD_SIZE, shape, np.float32, init_value=corners, constrain_fn=self._walls_fit
                    ),
                },
                "agent": {
                    "color": spaces.RGBBox(init_value=(255, 0, 0)),
                    "radius": _length(0.05, 0.5, 0.1),
                    "position": _point(0.5, 0.5, self._start_is_free),
                    "speed": _length(0.05, 2.0, 1.0),
                },
                "goal": {
                    "color": spaces.RGBBox(init_value=(0, 255, 0)),
                    "radius": _length(0.05, 0.5, 0.2),
                    "position": _point(4.5, 4.5, self._goal_is_free),
                },
                "background": {"color": spaces.RGBBox(init_value=(255, 255, 255))},
            }
        )

    def draw(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode, see `draw_factors`."""
        self.draw_factors(seed, options, DEFAULT_VARIATIONS)

    def layout(self) -> Maze:
        """The maze that the current values describe."""
        return Maze(self._walls(), self.value_of("agent.radius").item(), self.value_of("agent.speed").item())

    def goal_radius(self) -> float:
        """How near the agent's centre must come to the goal's."""
        return self.value_of("goal.radius").item()

    def look(self) -> Look:
        """The colours."""
        return Look(*(self._color(f"{name}.color") for name in ("background", "walls", "agent", "goal")))

    def _color(self, name: str) -> Color:
        return tuple(self.value_of(name).tolist())

    def _walls(self) -> tuple[Wall, ...]:
        walls = np.hstack([self.value_of("walls.positions"), self.value_of("walls.shape")])
        return tuple(map(tuple, walls[: self.value_of("walls.number")].tolist()))

    def _walls_fit(self, corners: np.ndarray) -> bool:
        number = self.value_of("walls.number")
        # In float32, as recorded: a wall that just fits must still do so when its factors are restored.
        return bool((corners[:number] + self.value_of("walls.shape")[:number] <= WORLD_SIZE).all())

    def _start_is_free(self, position: np.ndarray) -> bool:
        maze, point = self.layout(), tuple(position.tolist())
        return not touches(maze.walls, point, maze.radius) and not (self._strict and is_enclosed(maze, point))

    def _goal_is_free(self, position: np.ndarray) -> bool:
        maze, point = self.layout(), tuple(position.tolist())
        if touches(maze.walls, point, self.goal_radius()):
            return False
        if not self._strict:
            return True
        start = tuple(self.value_of("agent.position").tolist())
        return routes_to(maze, point, self.goal_radius()).waypoint(start) is not None


def _point(x: float, y: float, allowed: Any) -> spaces.Box:
    return spaces.Box(0.0, WORLD_SIZE, (2,), np.float32, init_value=(x, y), constrain_fn=allowed)


def _length(low: float, high: float, default: float) -> spaces.Box:
    return spaces.Box(low, high, (), np.float32, init_value=default)
