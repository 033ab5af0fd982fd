"""`swm/TwoRoom-v1`: move a disc through a door in the wall to a target. Pure kinematics, no physics engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.two_room.drawing import Dot, draw_rooms
from stable_worldmodel.envs.two_room.factors import Factors
from stable_worldmodel.envs.two_room.geometry import MAX_DOORS, WORLD_SIZE, Layout, Point
from stable_worldmodel.envs.variation import recorded_factors
from stable_worldmodel.errors import ContractError, MissingKeyError

SUCCESS_RADIUS = 16.0  # px
COLLISIONS = ("legacy", "swept")


class TwoRoomEnv(gym.Env):
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

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        render_target: bool = False,
        init_value: Mapping[str, Any] | None = None,
        *,
        target_rule: str = "any",
        collision: str = "legacy",
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        if collision not in COLLISIONS:
            raise ContractError(f"collision={collision!r}: expected one of {COLLISIONS}")
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0.0, WORLD_SIZE, (4 + 2 * MAX_DOORS,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.variation_space = Factors(target_rule, swept=collision == "swept")
        if init_value:
            self.variation_space.set_init_value(init_value)
        self._render_target = render_target
        self._shape = (WORLD_SIZE, WORLD_SIZE)
        self._layout: Layout | None = None
        self._backdrop_key: Any = None

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        space = self.variation_space
        space.draw(seed, options)
        self._layout = space.layout()
        centers = [self._layout.door_center(door) for door in range(len(self._layout.doors))]
        self._doors = np.array([*centers, *[(0, 0)] * (MAX_DOORS - len(centers))], np.float32).reshape(-1)
        self._prepare_picture()
        self._place(space.value_of("agent.position"))
        if options.get("state") is not None:
            self._set_state(options["state"])
        if options.get("target_state") is not None:
            self._set_goal_state(options["target_state"])
        else:
            self._place_target(space.value_of("target.position"))
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move once. Raises ContractError unless `action` is two finite numbers."""
        layout = self.layout()
        values = np.asarray(action, np.float64)
        if values.shape != (2,):
            raise ContractError(f"action has shape {values.shape}: expected (2,)")
        dx, dy = values.tolist()
        if not (math.isfinite(dx) and math.isfinite(dy)):
            raise ContractError(f"action={values}: expected finite numbers")
        self._place(layout.move(self._position, (min(max(dx, -1.0), 1.0), min(max(dy, -1.0), 1.0))))
        info = self._info()
        return self._observation(), 0.0, info["is_success"], False, info

    def layout(self) -> Layout:
        """The current episode's geometry: wall, doors, the agent's radius and speed."""
        if self._layout is None:
            raise gym.error.ResetNeeded("TwoRoom has no episode yet; call reset() first")
        return self._layout

    def _place(self, position: Point | np.ndarray) -> None:
        # Rounded to what observations and datasets hold, so that a recorded state continues exactly as it did.
        self._agent = np.array(position, np.float32)
        self._position: Point = tuple(self._agent.tolist())

    def _place_target(self, position: Point | np.ndarray) -> None:
        self._target = np.array(position, np.float32)
        self._goal_position: Point = tuple(self._target.tolist())
        self._draw_goal()

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._agent, self._target, self._doors))

    def _info(self) -> dict[str, Any]:
        distance = math.dist(self._position, self._goal_position)
        return {
            "env_name": "TwoRoom",
            "proprio": self._agent.copy(),
            "state": self._agent.copy(),
            "goal_state": self._target.copy(),
            "distance_to_target": distance,
            "is_success": distance < SUCCESS_RADIUS,
            "goal": self._goal.copy(),
            "pos_agent": self._agent.copy(),
            "pos_target": self._target.copy(),
        }

    # ------------------------------------------------------------------ restoring
    def _set_state(self, state: Any) -> None:
        """Put the agent at `state`, xy in px within the picture."""
        self._place(_point("state", state))

    def _set_goal_state(self, goal_state: Any) -> None:
        """Put the target at `goal_state`, xy in px within the picture, and draw the goal again.

        Also writes the factor `target.position`, unless `goal_state` breaks its constraint.
        """
        self._place_target(_point("goal_state", goal_state))
        factor = self.variation_space.factor("target.position")
        if factor.contains(self._target):
            factor.set_value(self._target)

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded start, goal and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `state` (2,) or `pos_agent`.
            goal_row: goal_<column> -> value at the goal; `goal_state` (2,) or `goal_pos_agent`.

        Raises:
            MissingKeyError: neither of the two columns is there.
        """
        return {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": _column(init_row, "state", "pos_agent"),
            "target_state": _column(goal_row, "goal_state", "goal_pos_agent"),
        }

    # ------------------------------------------------------------------ picture
    @property
    def render_shape(self) -> tuple[int, int]:
        """(H, W) of `render()` and of `goal`."""
        return self._shape

    @render_shape.setter
    def render_shape(self, shape: tuple[int, int]) -> None:
        height, width = shape
        if height < 1 or width < 1:
            raise ContractError(f"render_shape={shape}: expected positive (H, W)")
        self._shape = (int(height), int(width))
        if self._layout is not None:
            self._prepare_picture()
            self._draw_goal()

    def render(self) -> np.ndarray | None:
        """The current picture, a new uint8 array (H, W, 3); None without a render mode."""
        self.layout()
        return None if self.render_mode is None else self._picture(self._position)

    def _prepare_picture(self) -> None:
        """Redraw what stands still, if this episode's factors changed it."""
        look = self.variation_space.look()
        key = (self._layout, look, self._shape)
        if key == self._backdrop_key:
            return
        self._backdrop_key = key
        self._rooms = draw_rooms(self.layout(), look.palette, self._shape)
        self._agent_dot = Dot(look.agent_color, self.layout().radius, self._shape)
        self._target_dot = Dot(look.target_color, look.target_radius, self._shape)
        self._shows_target = self._render_target or look.shows_target

    def _draw_goal(self) -> None:
        self._backdrop = self._rooms
        if self._shows_target:
            self._backdrop = self._rooms.copy()
            self._target_dot.draw(self._backdrop, self._goal_position)
        self._goal = self._picture(self._goal_position)

    def _picture(self, agent: Point) -> np.ndarray:
        picture = self._backdrop.copy()
        self._agent_dot.draw(picture, agent)
        return picture


def _point(name: str, value: Any) -> Point:
    point = np.asarray(value, np.float32)
    if point.shape != (2,) or not (np.isfinite(point).all() and (point >= 0).all() and (point <= WORLD_SIZE).all()):
        raise ContractError(f"{name}={value!r}: expected x and y in 0..{WORLD_SIZE}")
    return tuple(point.tolist())


def _column(row: Mapping[str, Any], *names: str) -> np.ndarray:
    for name in names:
        if name in row:
            return np.asarray(row[name], np.float32).reshape(-1)
    raise MissingKeyError(f"the dataset has no column {' or '.join(names)}; it has {sorted(row)}")
