"""`swm/TwoRoom-v0`, the older TwoRoom: a disc with limited energy slides along walls and through a door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.drawing2d import Color, Painter
from stable_worldmodel.envs.env2d import Point, PointEnv, column
from stable_worldmodel.envs.two_room.legacy_factors import BORDER_SIZE, WINDOW, Factors, Rectangle
from stable_worldmodel.envs.variation import recorded_factors
from stable_worldmodel.errors import ContractError

_RIM = 4.0  # px of a shape in its own colour around its lighter middle
_OVERLAP = 0.5  # of either disc
MAX_ENERGY, MAX_SPEED = 200, 20


class TwoRoomEnv(PointEnv):
    """Two rooms in a window of 512x512 px, origin top left, y down.

    Observation: `proprio` (2,), the agent's xy; `state` (6,), agent xy, target xy, energy, speed; float64. Action,
    float32 (2,): velocity, clamped to [-1, 1] per component; `agent.speed` px per step and unit action. The reward is 1
    on success and -0.01 otherwise. Success, which terminates, is an overlap of agent and target of at least half of
    either disc. A step takes one unit of energy; without energy the episode is truncated.

    The published env leaves collisions to a physics engine whose soft contacts let a fast agent sink into walls. Here
    walls are hard, and a step is a function of position and action; free motion is the same.

    Info: `env_name`; `pos_agent`, `pos_target`, `target_pos`, `goal_state`, xy; `n_contacts`; `energy`, `max_energy`;
    `fraction_of_agent`, `fraction_of_target` covered by the other; `distance_to_target`; `is_success`; `goal` and
    `target`, a picture with the agent at the target.

    Reset options: as in PointEnv; `energy`, the energy to start with.

    Args:
        render_size: side of the pictures until `render_shape` is set.
        render_mode: "rgb_array", or None for an env that is never rendered.
        render_target: show the target.
        init_value: mapping factor name -> default, for the life of the env.
    """

    name = "TwoRoom"
    side = WINDOW

    def __init__(
        self,
        render_size: int = 224,
        render_mode: str | None = "rgb_array",
        render_target: bool = False,
        init_value: Mapping[str, Any] | None = None,
    ):
        super().__init__(Factors(), render_mode, init_value, (render_size, render_size))
        low, high = float(BORDER_SIZE), float(WINDOW - BORDER_SIZE)
        self.observation_space = gym.spaces.Dict(
            {
                "proprio": gym.spaces.Box(low, high, (2,), np.float64),
                "state": gym.spaces.Box(
                    np.array([low] * 4 + [0.0, 10.0]), np.array([high] * 4 + [MAX_ENERGY, MAX_SPEED]), dtype=np.float64
                ),
            }
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._render_target = render_target

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        self._energy_given = (options or {}).get("energy")
        return super().reset(seed=seed, options=options)

    def _begin(self) -> None:
        self._max_energy = self._energy = self.variation_space.value_of("agent.max_energy")
        if self._energy_given is not None:
            if not 0 < float(self._energy_given) <= MAX_ENERGY:
                raise ContractError(f"energy={self._energy_given!r}: expected 0..{MAX_ENERGY}")
            self._energy = float(self._energy_given)
        self._contacts = 0

    def _move(self, action: Point) -> None:
        position, self._contacts = self._layout.slide(self._position, action)
        self._energy -= 1
        self._place(position)

    def _observation(self) -> dict[str, np.ndarray]:
        state = np.array([*self._position, *self._goal_position, max(self._energy, 0), self._layout.speed])
        return {"proprio": state[:2].copy(), "state": state}

    def _reward(self, success: bool) -> float:
        return 1.0 if success else -0.01

    def _is_over(self) -> bool:
        return self._energy <= 0

    def _is_success(self, distance: float) -> bool:
        return max(self._fractions(distance)) >= _OVERLAP

    def _fractions(self, distance: float) -> tuple[float, float]:
        """Which part of the agent and of the target the other covers."""
        r, s = self._layout.radius, self._layout.target_radius
        common = lens_area(r, s, distance)
        return common / (math.pi * r * r), common / (math.pi * s * s)

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        del info["state"], info["proprio"]  # part of the observation
        of_agent, of_target = self._fractions(info["distance_to_target"])
        return info | {
            "target_pos": info["pos_target"].copy(),
            "target": info["goal"].copy(),
            "n_contacts": self._contacts,
            "energy": float(self._energy),
            "max_energy": self._max_energy,
            "fraction_of_agent": of_agent,
            "fraction_of_target": of_target,
        }

    # ------------------------------------------------------------------ restoring
    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded start, target and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `state` (6,), `proprio` (2,) or `pos_agent` (2,).
            goal_row: goal_<column> -> value at the goal, of the same columns: the target is where the agent is.

        Raises:
            MissingKeyError: none of these columns is there.
        """
        state = column(init_row, "state", "proprio", "pos_agent").reshape(-1)
        goal = column(goal_row, "goal_state", "goal_proprio", "goal_pos_agent").reshape(-1)
        options = {"variation": [], "variation_values": recorded_factors(init_row)}
        options |= {"state": state[:2], "target_state": goal[:2]}
        return options | ({"energy": float(state[4])} if len(state) == 6 else {})

    # ------------------------------------------------------------------ picture
    def _prepare_picture(self) -> None:
        look = self.variation_space.look()
        if not self._is_new_backdrop(self._layout, look):
            return
        self._look = look

    def _draw_goal(self) -> np.ndarray:
        layout, look = self._layout, self._look
        self._backdrop = np.full((*self._shape, 3), look.background, np.uint8)
        painter = self._painter(self._backdrop)
        if self._render_target:
            _draw_disc(painter, self._goal_position, layout.target_radius, look.target)
        for rectangles, color in (
            (layout.wall_rectangles(), look.wall),
            (layout.door_rectangles(), look.door),
            (layout.border_rectangles(), look.border),
        ):
            for rectangle in rectangles:
                _draw_rectangle(painter, rectangle, color)
        return self._with_agent(self._goal_position)

    def _picture(self) -> np.ndarray:
        return self._with_agent(self._position)

    def _with_agent(self, position: Point) -> np.ndarray:
        picture = self._backdrop.copy()
        _draw_disc(self._painter(picture), position, self._layout.radius, self._look.agent)
        return picture

    def _painter(self, picture: np.ndarray) -> Painter:
        return Painter(picture, 0, 0, WINDOW, WINDOW)


def lens_area(r: float, s: float, distance: float) -> float:
    """Area that discs of radii `r` and `s` have in common when their centres are `distance` apart."""
    if distance >= r + s:
        return 0.0
    if distance <= abs(r - s):
        return math.pi * min(r, s) ** 2
    along = (distance**2 + r**2 - s**2) / (2 * distance)  # from the first centre to the chord
    area = 0.0
    for radius, height in ((r, along), (s, distance - along)):
        area += radius**2 * math.acos(min(max(height / radius, -1.0), 1.0)) - height * math.sqrt(
            max(radius**2 - height**2, 0.0)
        )
    return area


def _draw_disc(painter: Painter, center: Point, radius: float, color: Color) -> None:
    painter.disc(center, radius, color)
    painter.disc(center, radius - _RIM, _lighter(color))


def _draw_rectangle(painter: Painter, rectangle: Rectangle, color: Color) -> None:
    """A rectangle, and a lighter one whose corners are moved `_RIM` px towards the middle."""
    (x0, x1), (y0, y1) = rectangle
    painter.rectangle((x0, x1), (y0, y1), color)
    diagonal = math.hypot(x1 - x0, y1 - y0) / 2
    inset = _RIM / diagonal / 2 if diagonal > _RIM else 0.5
    dx, dy = (x1 - x0) * inset, (y1 - y0) * inset
    painter.rectangle((x0 + dx, x1 - dx), (y0 + dy, y1 - dy), _lighter(color))


def _lighter(color: Color) -> Color:
    red, green, blue = (min(int(1.2 * part), 255) for part in color)
    return red, green, blue
