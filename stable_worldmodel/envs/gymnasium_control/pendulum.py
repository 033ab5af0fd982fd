"""`swm/PendulumControl-v1`."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.drawing2d import Painter
from stable_worldmodel.envs.gymnasium_control.base import ANY, BRIGHT, DARK, GymControlWrapper, turned

_UPRIGHT = math.radians(10)
_STILL = 0.5  # rad/s
_MAX_SPEED = 12.0


class PendulumWrapper(GymControlWrapper):
    """Swing a pendulum up and hold it. Success: within 10 degrees of upright and slower than 0.5 rad/s.

    The picture shows the last torque as an arrow; it is not part of the state, so a restored env shows none.
    """

    physics = {  # noqa: RUF012
        "g": ("g", 5.0, 15.0, 10.0),
        "m": ("m", 0.5, 1.5, 1.0),
        "l": ("l", 0.5, 1.5, 1.0),
        "max_torque": ("max_torque", 1.0, 4.0, 2.0),
        "max_speed": ("max_speed", 4.0, _MAX_SPEED, 8.0),
        "dt": ("dt", 0.025, 0.1, 0.05),
    }
    visuals = {  # noqa: RUF012
        "bg": (BRIGHT, (255, 255, 255)),
        "rod": (ANY, (204, 77, 77)),
        "hub": (DARK, (0, 0, 0)),
    }
    frame = (500, 500)
    state_size = 2

    def __init__(self, render_mode: str | None = None, init_value: Any = None, **kwargs: Any):
        super().__init__("Pendulum-v1", render_mode, init_value, **kwargs)

    def _is_success(self, terminated: bool, truncated: bool) -> bool:
        angle, speed = self._inner.state
        return bool(math.cos(angle) > math.cos(_UPRIGHT) and abs(speed) < _STILL)

    def _widened(self, space: Any) -> Any:
        high = np.array([1.0, 1.0, _MAX_SPEED], np.float32)
        return gym.spaces.Box(-high, high, dtype=np.float32)

    def _write_state(self, state: Any) -> np.ndarray:
        self._inner.last_u = None
        return super()._write_state(state)

    def _raw(self, observation: np.ndarray) -> np.ndarray:
        cos, sin, speed = observation
        return np.array([math.atan2(sin, cos), speed])

    def _observe(self, raw: np.ndarray) -> np.ndarray:
        angle, speed = raw
        return np.array([np.cos(angle), np.sin(angle), speed], np.float32)

    def _draw_state(self, painter: Painter, state: np.ndarray) -> None:
        middle = self.frame[0] / 2
        scale, center = middle / 2.2, np.array([middle, middle])
        half, angle = 0.1 * scale, state[0] + math.pi / 2
        rod = [(0, -half), (0, half), (scale, half), (scale, -half)]
        painter.polygon(turned(rod, angle, center), self._colors["rod"])
        for joint in (center, center + scale * np.array([math.cos(angle), math.sin(angle)])):
            painter.disc(joint, half, self._colors["rod"])
        torque = self._inner.last_u
        if torque is not None and torque != 0:
            self._draw_torque(painter, center, float(torque), scale)
        painter.disc(center, 0.05 * scale, self._colors["hub"])

    def _draw_torque(self, painter: Painter, center: np.ndarray, torque: float, scale: float) -> None:
        """Three quarters of a circle from the top in the direction of the torque, with a head."""
        side, way = scale * abs(torque) / 2, math.copysign(1.0, torque)  # anticlockwise if positive
        radius, color = 0.465 * side, self._colors["hub"]
        painter.arc(center, radius, 0.03 * side, math.pi / 2, way * 1.5 * math.pi, color)
        end = center + np.array([way * radius, 0.0])
        painter.polygon(end + side * np.array([(0.0, 0.16), (0.06, -0.03), (-0.06, -0.03)]), color)
