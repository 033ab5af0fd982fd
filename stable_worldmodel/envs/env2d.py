"""What the 2-D environments share: pictures of any size, a goal picture per episode, a point that seeks a target."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.resizable import Resizable, checked_shape
from stable_worldmodel.envs.variation import recorded_factors
from stable_worldmodel.errors import ContractError, MissingKeyError

Point = tuple[float, float]


class Env2D(Resizable, gym.Env):
    """An env that draws itself straight at the size asked for. Pictures are uint8 (H, W, 3).

    A subclass defines `_prepare_picture()`, called when an episode starts and when the size changes, `_draw_goal()`,
    which returns the goal picture, and `_picture()`, which returns a new picture of the present; it sets `_started`
    once an episode can be drawn.

    Args:
        factors: the variation space.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.
        shape: (H, W) of pictures until `render_shape` is set.

    Attributes:
        render_shape: (H, W) of `render()` and of `goal`; may be set at any time.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    _started = False
    _edited = True  # whether anything but a step has happened since a `Batch` last looked

    def __init__(
        self, factors: Any, render_mode: str | None, init_value: Mapping[str, Any] | None, shape: tuple[int, int]
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        self.render_mode = render_mode
        self.variation_space = factors
        if init_value:
            factors.set_init_value(init_value)
        self._shape = checked_shape(shape)
        self._backdrop_key: Any = None

    def _resized(self) -> None:
        if self._started:
            self._prepare_picture()
            self._goal = self._draw_goal()
            self._edited = True

    def render(self) -> np.ndarray | None:
        """The current picture, a new uint8 array (H, W, 3); None without a render mode."""
        self._require_episode()
        return None if self.render_mode is None else self._picture()

    def _canvas(self, out: np.ndarray | None) -> np.ndarray:
        """What stands still, in `out` or in a new array, ready to be drawn upon."""
        if out is None:
            return self._backdrop.copy()
        out[...] = self._backdrop
        return out

    def _require_episode(self) -> None:
        if not self._started:
            raise gym.error.ResetNeeded(f"{type(self).__name__} has no episode yet; call reset() first")

    def _is_new_backdrop(self, *key: Any) -> bool:
        """Whether what stands still looks different from last time; `key` is all it depends on but the size."""
        full = (*key, self._shape)
        if full == self._backdrop_key:
            return False
        self._backdrop_key = full
        return True

    _backdrop: np.ndarray  # what stands still

    def _prepare_picture(self) -> None:
        """Draw what stands still, once per episode."""
        raise NotImplementedError

    def _draw_goal(self) -> np.ndarray:
        """The picture of the goal."""
        raise NotImplementedError

    def _picture(self) -> np.ndarray:
        """A new picture of the present state."""
        raise NotImplementedError


class PointEnv(Env2D):
    """An agent that is a point of a square world, and a target to reach.

    The factors have `draw(seed, options)` and `layout()`; a layout has `move(position, action) -> position`. Positions
    are kept in float32, as observations and datasets hold them, so that a recorded state continues exactly as it did.

    Info: `env_name`; `proprio`, `state`, `pos_agent` (all the agent's xy, float32); `goal_state`, `pos_target` (the
    target's xy); `distance_to_target`; `is_success`; `goal`, a picture with the agent at the target.

    Reset options: `variation`, `variation_values`; `state` and `target_state` (or `goal_state`), xy that override the
    factors of the two positions and need not satisfy their constraints.
    """

    name: str  # info's `env_name`
    side: float  # of the world, whose corner is the origin
    limit = 1.0  # actions are clamped to it per component
    target_factor = "target.position"
    distance_key = "distance_to_target"
    _success_radius: float  # an agent closer than this to the target has reached it

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._agent = np.zeros(2, np.float32)  # written in place: a `Batch` puts a view of its own here

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        space = self.variation_space
        space.draw(seed, options)
        self._layout = space.layout()
        self._begin()
        state, target = options.get("state"), options.get("target_state", options.get("goal_state"))
        self._place(space.value_of("agent.position") if state is None else self._point("state", state))
        if target is None:
            self._place_target(space.value_of(self.target_factor))
        else:
            self._take_goal("target_state", target)
        self._started = self._edited = True
        self._prepare_picture()
        self._goal = self._draw_goal()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move once. Raises ContractError unless `action` is two finite numbers."""
        self._require_episode()
        values = np.asarray(action, np.float64)
        if values.shape != (2,):
            raise ContractError(f"action has shape {values.shape}: expected (2,)")
        dx, dy = values.tolist()
        if not (math.isfinite(dx) and math.isfinite(dy)):
            raise ContractError(f"action={values}: expected finite numbers")
        limit = self.limit
        clamped = (min(max(dx, -limit), limit), min(max(dy, -limit), limit))
        self._move(clamped)
        info = self._info()
        success = info["is_success"]
        return self._observation(), self._reward(success), success, self._is_over() and not success, info

    def layout(self) -> Any:
        """The current episode's geometry and rules of motion."""
        self._require_episode()
        return self._layout

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state that suits the current episode, xy float32; None draws from the env's own generator."""
        self._require_episode()
        factor = copy.copy(self.variation_space.factor(self.target_factor))
        factor.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        return factor.sample(set_value=False)

    def _begin(self) -> None:
        """Compute what is fixed during an episode."""

    def _observation(self) -> Any:
        raise NotImplementedError

    def _move(self, action: Point) -> None:
        self._place(self._layout.move(self._position, action))

    def _reward(self, success: bool) -> float:
        return 0.0

    def _is_success(self, distance: float) -> bool:
        """Whether an agent at this distance from the target has reached it."""
        return distance < self._success_radius

    def _is_over(self) -> bool:
        """Whether the episode is truncated, unless it is a success."""
        return False

    def _info(self) -> dict[str, Any]:
        (x, y), (goal_x, goal_y) = self._position, self._goal_position
        dx, dy = x - goal_x, y - goal_y
        distance = math.sqrt(dx * dx + dy * dy)  # not math.dist, which NumPy does not have
        return {
            "env_name": self.name,
            "proprio": self._agent.copy(),
            "state": self._agent.copy(),
            "goal_state": self._target.copy(),
            self.distance_key: distance,
            "is_success": self._is_success(distance),
            "goal": self._goal.copy(),
            "pos_agent": self._agent.copy(),
            "pos_target": self._target.copy(),
        }

    def _place(self, position: Any) -> None:
        self._agent[:] = position

    @property
    def _position(self) -> Point:
        x, y = self._agent.tolist()
        return x, y

    def _place_target(self, position: Any) -> None:
        self._target = np.array(position, np.float32)
        self._goal_position: Point = tuple(self._target.tolist())

    def _take_goal(self, name: str, goal_state: Any) -> None:
        self._place_target(self._point(name, goal_state))
        factor = self.variation_space.factor(self.target_factor)
        if factor.contains(self._target):
            factor.set_value(self._target)

    def _point(self, name: str, value: Any) -> Point:
        point = np.asarray(value, np.float32)
        if point.shape != (2,) or not (np.isfinite(point).all() and (point >= 0).all() and (point <= self.side).all()):
            raise ContractError(f"{name}={value!r}: expected x and y in 0..{self.side}")
        return tuple(point.tolist())

    # ------------------------------------------------------------------ restoring
    def _set_state(self, state: Any) -> None:
        """Put the agent at `state`, xy within the world."""
        self._require_episode()
        self._place(self._point("state", state))
        self._edited = True

    def _set_goal_state(self, goal_state: Any) -> None:
        """Put the target at `goal_state`, xy within the world, and draw the goal again.

        Also writes the factor of the target's position, unless `goal_state` breaks its constraint.
        """
        self._require_episode()
        self._take_goal("goal_state", goal_state)
        self._goal = self._draw_goal()
        self._edited = True

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
            "state": column(init_row, "state", "pos_agent").reshape(-1),
            "target_state": column(goal_row, "goal_state", "goal_pos_agent").reshape(-1),
        }


def column(row: Mapping[str, Any], *names: str) -> np.ndarray:
    """The first of these columns that a dataset row has; else MissingKeyError."""
    for name in names:
        if name in row:
            return np.asarray(row[name])
    raise MissingKeyError(f"the dataset has no column {' or '.join(names)}; it has {sorted(row)}")
