"""`swm/TwoRoom-v1`: move a disc through a door in the wall to a target. Pure kinematics, no physics engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.batch2d import PointBatch, VectorEnv2D
from stable_worldmodel.envs.env2d import Point, PointEnv
from stable_worldmodel.envs.two_room.drawing import Dot, draw_rooms
from stable_worldmodel.envs.two_room.factors import Factors, Look
from stable_worldmodel.envs.two_room.geometry import MAX_DOORS, WORLD_SIZE, Layouts
from stable_worldmodel.errors import ContractError

SUCCESS_RADIUS = 16.0  # px
COLLISIONS = ("legacy", "swept")


class DotEnv(PointEnv):
    """The agent is a soft dot on a picture of 224x224 px that stands still but for the target.

    The factors have `look()` with the appearance of both dots, and `_draw_still(look)` is the picture without them.
    """

    side = WORLD_SIZE
    _success_radius = SUCCESS_RADIUS

    def __init__(
        self, factors: Any, render_mode: str | None, render_target: bool, init_value: Mapping[str, Any] | None
    ):
        super().__init__(factors, render_mode, init_value, (WORLD_SIZE, WORLD_SIZE))
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._render_target = render_target

    def _prepare_picture(self) -> None:
        look = self.variation_space.look()
        if not self._is_new_backdrop(self._layout, look):
            return
        self._still = self._draw_still(look)
        self._agent_dot = Dot(look.agent_color, self._layout.radius, self._shape)
        self._target_dot = Dot(look.target_color, look.target_radius, self._shape)
        self._shows_target = self._render_target or look.shows_target

    def _draw_goal(self) -> np.ndarray:
        self._backdrop = self._still
        if self._shows_target:
            self._backdrop = self._still.copy()
            self._target_dot.draw(self._backdrop, self._goal_position)
        return self._with_agent(self._goal_position)

    def _picture(self, out: np.ndarray | None = None) -> np.ndarray:
        return self._with_agent(self._position, out)

    def _with_agent(self, position: Point, out: np.ndarray | None = None) -> np.ndarray:
        picture = self._canvas(out)
        self._agent_dot.draw(picture, position)
        return picture

    def _draw_still(self, look: Any) -> np.ndarray:
        """The picture without dots."""
        raise NotImplementedError


class TwoRoomEnv(DotEnv):
    """Two rooms of 224x224 px in all, origin top left, y down.

    Observation, float32 (10,): agent xy, target xy, centre xy of three doors (zeros for a door that does not exist).
    Action, float32 (2,): velocity, clamped to [-1, 1] per component and multiplied by `agent.speed` px per step.
    The reward is always 0. An episode terminates when the agent is closer than 16 px to the target; it is never
    truncated. There is no randomness but in the factors of variation, see `factors.py`.

    Info: `env_name`; `proprio`, `state`, `pos_agent` (all the agent's xy, float32); `goal_state`, `pos_target` (the
    target's xy); `distance_to_target` (px); `goal`, a picture with the agent at the target, drawn once per episode.

    Reset options: `variation`, `variation_values`; `state` and `target_state`, xy that override the factors
    `agent.position` and `target.position` and need not satisfy their constraints.

    Args:
        render_mode: "rgb_array", or None for an env that is never rendered.
        render_target: show the target, whatever the factor `rendering.render_target` says.
        init_value: mapping factor name -> default, for the life of the env.
        target_rule: "any" draws targets anywhere, even in the agent's room or inside the wall, as the published
            numbers do. "other_room" draws them behind the wall, at least `task.min_steps` steps away.
        collision: "legacy" keeps the rules that published datasets were recorded with, "swept" tests the whole path
            and the agent's size; see `geometry.py`.

    Attributes:
        render_shape: (H, W) of `render()` and of `goal`; may be set at any time.
    """

    name = "TwoRoom"

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        render_target: bool = False,
        init_value: Mapping[str, Any] | None = None,
        *,
        target_rule: str = "any",
        collision: str = "legacy",
    ):
        if collision not in COLLISIONS:
            raise ContractError(f"collision={collision!r}: expected one of {COLLISIONS}")
        super().__init__(Factors(target_rule, swept=collision == "swept"), render_mode, render_target, init_value)
        self.observation_space = gym.spaces.Box(0.0, WORLD_SIZE, (4 + 2 * MAX_DOORS,), np.float32)

    @staticmethod
    def batched(envs: Sequence[TwoRoomEnv]) -> PointBatch:
        """These envs as one program."""
        return PointBatch(envs, Layouts(len(envs)))

    def _begin(self) -> None:
        layout = self._layout
        centers = [layout.door_center(door) for door in range(len(layout.doors))]
        self._doors = np.array([*centers, *[(0, 0)] * (MAX_DOORS - len(centers))], np.float32).reshape(-1)

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._agent, self._target, self._doors))

    def _draw_still(self, look: Look) -> np.ndarray:
        return draw_rooms(self._layout, look.palette, self._shape)


class TwoRoomVectorEnv(VectorEnv2D):
    """Several TwoRoom envs as one."""

    env_class = TwoRoomEnv
