"""`swm/PFRocketLanding-v0`: land a falling rocket on a pad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.resizable import Resizable
from stable_worldmodel.envs.rocket_landing import flight
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

FALL = -30.0  # m/s at the start, unless `accelerate_drop` is off
AROUND = 2.0  # m, of x and y where `randomize_drop` draws them
LANDED_HEIGHT = 2.58  # m, of the middle of a rocket that stands on the pad
CRASH = {"spin": 10.0, "speed": 5.0}  # rad/s, m/s: more than this on the pad is a crash
LANDED = {"spin": 5.0, "speed": 4.0, "tilt": 0.6, "lateral": 12.0, "height": 3.0}  # rad/s, m/s, rad, m, m
_COLORS = {"body": (255, 204, 0), "fin": (51, 51, 51), "leg": (0, 0, 0), "booster": (51, 51, 51)}


class RocketLandingEnv(Resizable, gym.Env):
    """A rocket falls towards a pad and has to land on it; physics, rewards on the way and sizes are PyFlyt's.

    Observation, float64 (30,), or (29,) with Euler angles: angular velocity 3, attitude 4 or 3, velocity 3 in the
    rocket's frame, position 3, last action 7, fins 4, ignition, fuel, throttle, gimbal 2, and contact with the pad.
    Action (7,): fins x, y and roll, ignition, throttle, gimbal x and y. It lands, which terminates the episode and is
    a success, by touching the pad at less than 4 m/s, 5 rad/s, 0.6 rad of tilt; other contact at more than 5 m/s or
    10 rad/s, or with the ground, terminates it too. Nothing is varied unless asked for.

    Info: `env_name`; `state`, float64 (47,), and `stream`, uint64 (6,), from which a row goes on, but for errors of
    1e-6; `goal_state`, xyz of a rocket that has landed; `goal`, its picture; `out_of_bounds`, `fatal_collision`,
    `env_complete`, as the package has them; `is_success`.

    Reset options: `variation`, `variation_values`; `randomize_drop` (False): x and y in ±2 m; `accelerate_drop` (True):
    falls at 30 m/s; `state` and `stream` as recorded.

    Args:
        sparse_reward: whether only contact with the pad is rewarded.
        ceiling, max_displacement: of the space to fly in, m.
        max_duration_seconds: after which an episode is truncated.
        angle_representation: "quaternion" or "euler".
        agent_hz: actions per second, a divisor of 120.
        render_mode: "rgb_array", or None for an env that is never rendered.
        render_resolution: (H, W) of pictures.
        init_value: mapping factor name -> default, for the life of the env.

    Attributes:
        render_shape: (H, W) of `render()` and of `goal`; may be set at any time.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}  # noqa: RUF012

    def __init__(
        self,
        sparse_reward: bool = False,
        ceiling: float = 500.0,
        max_displacement: float = 200.0,
        max_duration_seconds: float = 30.0,
        angle_representation: str = "quaternion",
        agent_hz: int = 40,
        render_mode: str | None = None,
        render_resolution: tuple[int, int] = (480, 480),
        init_value: Mapping[str, Any] | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        if angle_representation not in ("quaternion", "euler"):
            raise ContractError(f"angle_representation={angle_representation!r}: expected 'quaternion' or 'euler'")
        if agent_hz < 1 or 120 % agent_hz:
            raise ContractError(f"agent_hz={agent_hz}: expected a divisor of 120")
        self.render_mode = render_mode
        self._shape = int(render_resolution[0]), int(render_resolution[1])
        self._height = ceiling
        self._arguments = {
            "sparse_reward": sparse_reward,
            "ceiling": ceiling,
            "max_displacement": max_displacement,
            "max_duration_seconds": max_duration_seconds,
            "angle_representation": angle_representation,
            "agent_hz": agent_hz,
        }
        self._rocket = flight.make(**self._arguments)
        self.action_space, self.observation_space = self._rocket.action_space, self._rocket.observation_space
        self.variation_space = self._factors()
        if init_value:
            self.variation_space.set_init_value(init_value)
        self._history: list[np.ndarray] | None = None

    def _factors(self) -> FactorSpace:
        start = {
            "start_height_ratio": spaces.Box(0.7, 0.95, (1,), np.float64, init_value=[0.9]),
            "start_horizontal_offset": spaces.Box(-2.0, 2.0, (2,), np.float64, init_value=[0.0, 0.0]),
            "start_tilt": spaces.Box(-0.2, 0.2, (2,), np.float64, init_value=[0.0, 0.0]),
        }
        return FactorSpace(
            {
                "rocket": {f"{part}_color": spaces.RGBBox(init_value=color) for part, color in _COLORS.items()},
                "pad": {"color": spaces.RGBBox(init_value=(200, 200, 200))},
                "environment": {"sky_color": spaces.RGBBox(init_value=(135, 206, 235)), **start},
            }
        )

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self.variation_space.draw_factors(seed, options, ())
        offset = self.variation_space.value_of("environment.start_horizontal_offset")
        if options.get("randomize_drop", False):
            offset = self.np_random.uniform(-AROUND, AROUND, 2)
        self._start = {
            "position": [*offset, self._height * self._ratio],
            "tilt": self.variation_space.value_of("environment.start_tilt").copy(),
            "velocity": FALL if options.get("accelerate_drop", True) else 0.0,
            "seed": int(self.np_random.integers(2**31)),
        }
        self._written = {key: np.array(options[key]) for key in ("state", "stream") if options.get(key) is not None}
        self._begin()
        self._goal = self._draw_goal() if self.render_mode is not None else None
        return self._rocket.state.copy(), self._info()

    @property
    def _ratio(self) -> float:
        return float(self.variation_space.value_of("environment.start_height_ratio")[0])

    def _begin(self) -> None:
        flight.begin(self._rocket, **self._start)
        if "state" in self._written:
            flight.write_state(self._rocket, self._written["state"])
        if "stream" in self._written:
            flight.write_stream(self._rocket, self._written["stream"])
        self._history, self._landed = [], False
        self._ended = {"out_of_bounds": False, "fatal_collision": False}
        self._paint()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Fly for 1 / agent_hz s. Raises ContractError unless `action` is 7 finite numbers; they are clipped."""
        history = self._require_episode()
        values = np.array(action, np.float64)
        if values.shape != (7,) or not np.isfinite(values).all():
            raise ContractError(f"action={action!r}: expected 7 finite numbers")
        values = np.clip(values, self._rocket.action_space.low, self._rocket.action_space.high)
        history.append(values)
        rocket = self._rocket
        rocket.action = values.copy()
        rocket.env.set_setpoint(0, values)
        reward, terminated = 0.0, False
        for _ in range(rocket.env_step_ratio):
            rocket.env.step()
            rocket.compute_state()
            reward += self._judged()
            terminated = self._landed or any(self._ended.values())
            if terminated:
                break
        rocket.step_count += 1
        truncated = rocket.step_count > rocket.max_steps
        return rocket.state.copy(), reward, terminated, truncated, self._info()

    def _judged(self) -> float:
        """The reward of one control period; notes what ended the episode."""
        rocket = self._rocket
        contacts, body, pad = rocket.env.contact_array.copy(), flight.drone(rocket).Id, rocket.landing_pad_id
        on_pad = bool(contacts[body, pad])
        contacts[body, pad] = contacts[pad, body] = False
        x, y, height = rocket.lin_pos
        lateral = float(np.hypot(x, y))
        if contacts.any() or height < 0:
            self._ended["fatal_collision"] = True
        if lateral > rocket.max_displacement or height > rocket.ceiling:
            self._ended["out_of_bounds"] = True
        reward = 0.0 if rocket.sparse_reward else self._progress(lateral)
        rocket.landing_pad_contact = float(on_pad)
        if not on_pad:
            return reward
        reward += 5.0 - 0.3 * abs(rocket.ground_lin_vel[2])
        spin, speed = np.linalg.norm(rocket.previous_ang_vel), np.linalg.norm(rocket.previous_lin_vel)
        if spin > CRASH["spin"] or speed > CRASH["speed"]:
            self._ended["fatal_collision"] = True
            return reward
        found = {"spin": spin, "speed": speed, "lateral": lateral, "height": height}
        found["tilt"] = np.linalg.norm(rocket.ang_pos[:2])
        self._landed = not any(self._ended.values()) and all(found[name] < most for name, most in LANDED.items())
        return reward + 3.0 * self._landed

    def _progress(self, lateral: float) -> float:
        """What is rewarded in the air."""
        rocket = self._rocket
        approach = float(np.linalg.norm(rocket.previous_lin_pos[:2])) - lateral
        descent = float(rocket.previous_lin_pos[2] - rocket.lin_pos[2])
        fall, before = rocket.ground_lin_vel[2], rocket.previous_ground_lin_vel[2]
        braking = (fall - before + 1.0) / np.exp(rocket.lin_pos[2]) * (1.0 if fall < 0 else -1.0)
        return float(
            -0.3
            + 0.3 / (lateral + 0.1)
            + 10.0 * approach
            + 0.2 * descent
            + 4.0 * braking
            - abs(rocket.ang_vel[2])
            - np.linalg.norm(rocket.ang_pos[:2])
        )

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "env_name": "PFRocketLanding",
            "state": flight.state_of(self._rocket),
            "stream": flight.stream_of(self._rocket),
            **self._ended,
            "env_complete": self._landed,
            "is_success": self._landed,
        }
        if self._goal is not None:
            info |= {"goal_state": self.sample_goal(), "goal": self._goal.copy()}
        return info

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """Where the middle of a rocket is that has landed, xyz; always the same."""
        return np.array([0.0, 0.0, LANDED_HEIGHT])

    def _require_episode(self) -> list[np.ndarray]:
        if self._history is None:
            raise gym.error.ResetNeeded("RocketLandingEnv has no episode yet; call reset() first")
        return self._history

    def close(self) -> None:
        """Disconnect from the simulator; the next reset connects again."""
        if self._history is not None:
            self._rocket.close()
            self._rocket, self._history = flight.make(**self._arguments), None
        super().close()

    # ------------------------------------------------------------------ pictures
    def _resized(self) -> None:
        if self._history is not None and self._goal is not None:
            self._goal = self._draw_goal()

    def render(self) -> np.ndarray | None:
        """The view from above the rocket, a new uint8 array (H, W, 3); None without a render mode."""
        self._require_episode()
        return None if self.render_mode is None else self._picture()

    def _picture(self) -> np.ndarray:
        return flight.picture(self._rocket, self._shape, self.variation_space.value_of("environment.sky_color"))

    def _draw_goal(self) -> np.ndarray:
        """The rocket upright on the pad; another simulation, so that this one stays as it is."""
        standing = flight.make(**self._arguments)
        flight.begin(standing, np.array([0.0, 0.0, 10.0]), np.zeros(2), 0.0, 0)
        try:
            standing.env.resetBasePositionAndOrientation(
                flight.drone(standing).Id, self.sample_goal().tolist(), [0.0, 0.0, 0.0, 1.0]
            )
            flight.paint(standing, *self._paints())
            return flight.picture(standing, self._shape, self.variation_space.value_of("environment.sky_color"))
        finally:
            standing.close()

    def _paints(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        value_of = self.variation_space.value_of
        return {part: value_of(f"rocket.{part}_color") for part in _COLORS}, value_of("pad.color")

    def _paint(self) -> None:
        flight.paint(self._rocket, *self._paints())

    # ------------------------------------------------------------------ restoring
    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded row and every recorded `variation.*` factor.

        Args:
            init_row: column -> value; `state`, and `stream` for the same noise of the engine.
            goal_row: not used; the goal is always the same.

        Raises:
            MissingKeyError: `state` is missing.
        """
        options = {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": column(init_row, "state").reshape(-1),
        }
        return options | ({"stream": np.asarray(init_row["stream"])} if "stream" in init_row else {})

    # ------------------------------------------------------------------ copies
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rocket": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy flies the episode once more: the simulator cannot be copied."""
        self.__dict__.update(state)
        self._rocket = flight.make(**self._arguments)
        if self._history is not None:
            actions = self._history
            self._begin()
            for action in actions:
                self.step(action)
