"""`swm/SimplePointMaze-v0`: move a disc around rectangular walls into a goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.batch2d import PointBatch, VectorEnv2D
from stable_worldmodel.envs.drawing2d import Painter
from stable_worldmodel.envs.env2d import Point, PointEnv
from stable_worldmodel.envs.simple_point_maze.factors import Factors
from stable_worldmodel.envs.simple_point_maze.geometry import WORLD_SIZE, Mazes

MAX_ACTION = 0.2


class SimplePointMazeEnv(PointEnv):
    """A square of 5x5 units, origin bottom left, y up, with a few walls in it.

    Observation, float32 (2,): agent xy. Action, float32 (2,): displacement, clipped to [-0.2, 0.2] per component and
    multiplied by `agent.speed`; a step that would end in contact with a wall does not happen. Reward 1 and termination
    when the agent's centre is closer to the goal's than `goal.radius`; -0.01 otherwise. It is never truncated.

    Info and reset options: see PointEnv; the distance is called `distance`. There is no randomness but in the factors
    of variation, see `factors.py`.

    Args:
        max_walls, min_walls: range of the factor `walls.number`.
        wall_min_size, wall_max_size: range of the factor `walls.shape`.
        render_mode: "rgb_array", or None for an env that is never rendered.
        show_goal: whether pictures show the goal, half transparent.
        resolution: side of the pictures until `render_shape` is set.
        init_value: mapping factor name -> default, for the life of the env.
        target_rule: "reachable" draws starts and goals with a way between them; "any" allows, as the published env
            does, goals that walls shut off.
    """

    name = "SimplePointMaze"
    side = WORLD_SIZE
    limit = MAX_ACTION
    target_factor = "goal.position"
    distance_key = "distance"

    def __init__(
        self,
        max_walls: int = 6,
        min_walls: int = 4,
        wall_min_size: float = 0.5,
        wall_max_size: float = 1.5,
        render_mode: str | None = None,
        show_goal: bool = True,
        resolution: int = 224,
        init_value: Mapping[str, Any] | None = None,
        *,
        target_rule: str = "reachable",
    ):
        factors = Factors(min_walls, max_walls, wall_min_size, wall_max_size, target_rule)
        super().__init__(factors, render_mode, init_value, (resolution, resolution))
        self.observation_space = gym.spaces.Box(0.0, WORLD_SIZE, (2,), np.float32)
        self.action_space = gym.spaces.Box(-MAX_ACTION, MAX_ACTION, (2,), np.float32)
        self._show_goal = show_goal

    @staticmethod
    def batched(envs: Sequence[SimplePointMazeEnv]) -> PointBatch:
        """These envs as one program."""
        return PointBatch(envs, Mazes(len(envs)))

    def _begin(self) -> None:
        self._success_radius = self.variation_space.goal_radius()

    def goal_radius(self) -> float:
        """How near the agent's centre must come to the goal's."""
        self._require_episode()
        return self._success_radius

    def _observation(self) -> np.ndarray:
        return self._agent.copy()

    def _reward(self, success: bool) -> float:
        return 1.0 if success else -0.01

    def _prepare_picture(self) -> None:
        look = self.variation_space.look()
        if not self._is_new_backdrop(self._layout.walls, look):
            return
        self._look = look
        self._walls_picture = np.full((*self._shape, 3), look.background, np.uint8)
        painter = _painter(self._walls_picture)
        for x, y, width, height in self._layout.walls:
            painter.rectangle((x, x + width), (y, y + height), look.walls)

    def _draw_goal(self) -> np.ndarray:
        self._backdrop = self._walls_picture
        if self._show_goal:
            self._backdrop = self._walls_picture.copy()
            _painter(self._backdrop).disc(self._goal_position, self._success_radius, self._look.goal, alpha=0.5)
        return self._with_agent(self._goal_position)

    def _picture(self, out: np.ndarray | None = None) -> np.ndarray:
        return self._with_agent(self._position, out)

    def _with_agent(self, position: Point, out: np.ndarray | None = None) -> np.ndarray:
        picture = self._canvas(out)
        _painter(picture).disc(position, self._layout.radius, self._look.agent)
        return picture


class SimplePointMazeVectorEnv(VectorEnv2D):
    """Several SimplePointMaze envs as one."""

    env_class = SimplePointMazeEnv


def _painter(picture: np.ndarray) -> Painter:
    return Painter(picture, 0, WORLD_SIZE, WORLD_SIZE, 0)
