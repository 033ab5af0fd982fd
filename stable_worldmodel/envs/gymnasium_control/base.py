"""What the classic control tasks share: factors as tables, Gymnasium's dynamics, our own pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.drawing2d import Color, Painter
from stable_worldmodel.envs.env2d import Env2D, column
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

# Ranges of the visual factors: backgrounds stay bright and dark things dark, so that they stay visible.
BRIGHT, DARK, ANY = (0.6, 1.0), (0.0, 0.4), (0.0, 1.0)


class GymControlWrapper(Env2D):
    """A classic control task of Gymnasium with factors of variation, drawn straight at the size asked for.

    Observation, action, reward, termination and time limit are those of the Gymnasium env; bounds of observations are
    widened where a factor allows more. The seed of `reset` is handed to it, so starts are Gymnasium's own. Nothing is
    varied unless asked for.

    Info: `env_name`, the id of the Gymnasium env; `state`, the observation in float32; `raw_state`, its own state in
    float64; `is_success`, see the subclass.

    Reset options: `variation`, `variation_values`; `state`, the raw state or an observation to start from.

    Attributes:
        inner_id: id of the Gymnasium env.

    Args:
        env_id: id of the Gymnasium env.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.
        kwargs: passed to the Gymnasium env.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    # Factor -> (attribute of the Gymnasium env, low, high, default).
    physics: ClassVar[dict[str, tuple[str, float, float, float]]] = {}
    # Factor -> (range, default colour).
    visuals: ClassVar[dict[str, tuple[tuple[float, float], Color]]] = {}
    frame: ClassVar[tuple[int, int]] = (400, 600)  # (H, W) of Gymnasium's own picture
    state_size: ClassVar[int]  # of the raw state

    def __init__(
        self, env_id: str, render_mode: str | None = None, init_value: Mapping[str, Any] | None = None, **kwargs: Any
    ):
        factors = FactorSpace(
            {
                "physics": {
                    name: spaces.Box(low, high, (1,), np.float32, init_value=default)
                    for name, (_, low, high, default) in self.physics.items()
                },
                "visuals": {
                    name: spaces.Box(*bounds, (3,), np.float32, init_value=np.divide(color, 255))
                    for name, (bounds, color) in self.visuals.items()
                },
            }
        )
        super().__init__(factors, render_mode, init_value, self.frame)
        self.inner_id = env_id
        self._limit = gym.spec(env_id).max_episode_steps
        # Without Gymnasium's wrappers: they would hide the attributes, and the time limit is one line below.
        self._inner: Any = gym.make(env_id, disable_env_checker=True, **kwargs).unwrapped
        self.observation_space = self._widened(self._inner.observation_space)
        self.action_space = self._inner.action_space

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self.variation_space.draw_factors(seed, options, ())
        for name, (attribute, _, _, default) in self.physics.items():
            value = self.variation_space.value_of(f"physics.{name}")
            # A default is Gymnasium's own number, not the nearest float32.
            setattr(self._inner, attribute, default if value == np.float32(default) else value.item())
        self._derive()
        observation, _ = self._inner.reset(seed=seed)
        self._steps = 0
        if options.get("state") is not None:
            observation = self._write_state(options["state"])
        self._started = True
        self._prepare_picture()
        return observation, self._info(observation, terminated=False, truncated=False)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the Gymnasium env. Raises ContractError unless the action has the shape of the action space."""
        self._require_episode()
        if np.shape(action) != self.action_space.shape:
            raise ContractError(f"action has shape {np.shape(action)}: expected {self.action_space.shape}")
        if isinstance(self.action_space, gym.spaces.Discrete) and not self.action_space.contains(action):
            raise ContractError(f"action={action!r}: expected an integer 0..{self.action_space.n - 1}")
        observation, reward, terminated, truncated, _ = self._inner.step(action)
        self._steps += 1
        truncated = bool(truncated) or (self._limit is not None and self._steps >= self._limit)
        info = self._info(observation, bool(terminated), truncated)
        return observation, float(reward), bool(terminated), truncated, info

    def _info(self, observation: np.ndarray, terminated: bool, truncated: bool) -> dict[str, Any]:
        return {
            "env_name": self.inner_id,
            "state": np.array(observation, np.float32),
            "raw_state": np.array(self._inner.state, np.float64),
            "is_success": self._is_success(terminated, truncated),
        }

    def _is_success(self, terminated: bool, truncated: bool) -> bool:
        return terminated

    def dynamics(self) -> dict[str, float]:
        """The physical factors of the current episode, name -> value; what the expert reads."""
        self._require_episode()
        return {name: float(getattr(self._inner, attribute)) for name, (attribute, *_) in self.physics.items()}

    def _derive(self) -> None:
        """Recompute what depends on the physical factors."""

    def _widened(self, space: Any) -> Any:
        """The observation space that holds for all values of the factors."""
        return space

    # ------------------------------------------------------------------ restoring
    def set_state(self, state: Any) -> np.ndarray:
        """Go on from `state`, a raw state or an observation; return the observation."""
        self._require_episode()
        return self._write_state(state)

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded start and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `raw_state`, else `state`, which has lost precision.
            goal_row: not used; these tasks have one goal.

        Raises:
            MissingKeyError: neither of the two columns is there.
        """
        return {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": column(init_row, "raw_state", "state").reshape(-1),
        }

    def _write_state(self, state: Any) -> np.ndarray:
        values = np.array(state, np.float64)
        size = self.observation_space.shape
        if values.shape not in ((self.state_size,), size) or not np.isfinite(values).all():
            raise ContractError(f"state={state!r}: expected {self.state_size} finite numbers, or an observation {size}")
        self._inner.state = values if len(values) == self.state_size else self._raw(values)
        return self._observe(self._inner.state)

    def _raw(self, observation: np.ndarray) -> np.ndarray:
        """The raw state that an observation of another size stands for."""
        raise NotImplementedError

    def _observe(self, raw: np.ndarray) -> np.ndarray:
        """The observation of a raw state."""
        return raw.astype(np.float32)

    # ------------------------------------------------------------------ picture
    def color(self, name: str) -> Color:
        """The current colour of a visual factor in 0..255."""
        red, green, blue = np.rint(self.variation_space.value_of(f"visuals.{name}") * 255.0).astype(int).tolist()
        return red, green, blue

    def _prepare_picture(self) -> None:
        self._colors = {name: self.color(name) for name in self.visuals}
        if not self._is_new_backdrop(tuple(self._colors.items())):
            return
        self._backdrop = np.full((*self._shape, 3), self._colors["bg"], np.uint8)
        self._draw_still(self._painter(self._backdrop))

    def _draw_goal(self) -> np.ndarray:
        return self._backdrop  # there is no goal picture

    def _picture(self) -> np.ndarray:
        picture = self._backdrop.copy()
        self._draw_state(self._painter(picture), np.asarray(self._inner.state, np.float64))
        return picture

    def _painter(self, picture: np.ndarray) -> Painter:
        """Paints in the pixels of Gymnasium's own picture, y up; a pixel's coordinate is that of its middle."""
        height, width = self.frame
        return Painter(picture, -0.5, height - 0.5, width - 0.5, -0.5)

    def _draw_still(self, painter: Painter) -> None:
        """Draw what does not move."""

    def _draw_state(self, painter: Painter, state: np.ndarray) -> None:
        """Draw a raw state."""
        raise NotImplementedError


def turned(points: Any, angle: float, origin: Any) -> np.ndarray:
    """Points (N, 2) turned by `angle` about 0 and moved to `origin`."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]]) + origin
