"""`swm/MountainCarControl-v0` and `swm/MountainCarContinuousControl-v0`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.drawing2d import Painter
from stable_worldmodel.envs.gymnasium_control.base import BRIGHT, DARK, GymControlWrapper, turned

_SEGMENTS = 50  # of the drawn track
_CLEARANCE = 10.0  # px between the track and the car's floor
_WHEEL, _FLAG = (128, 128, 128), (204, 204, 0)
_MAX_SPEED = ("max_speed", 0.035, 0.105, 0.07)


class MountainCarWrapper(GymControlWrapper):
    """Swing an underpowered car out of a valley, with three actions. Success: the flag is reached."""

    physics = {  # noqa: RUF012
        "gravity": ("gravity", 0.00125, 0.00375, 0.0025),
        "force": ("force", 0.0005, 0.0015, 0.001),
        "max_speed": _MAX_SPEED,
    }
    visuals = {"bg": (BRIGHT, (255, 255, 255)), "fg": (DARK, (0, 0, 0))}  # noqa: RUF012
    state_size = 2
    _inner_id = "MountainCar-v0"

    def __init__(self, render_mode: str | None = None, init_value: Any = None, **kwargs: Any):
        super().__init__(self._inner_id, render_mode, init_value, **kwargs)

    def _widened(self, space: Any) -> Any:
        fastest = _MAX_SPEED[2]
        low, high = (np.array([end[0], sign * fastest], np.float32) for sign, end in ((-1, space.low), (1, space.high)))
        return gym.spaces.Box(low, high, dtype=np.float32)

    def _track(self, position: Any) -> Any:
        """Points of the track (N, 2) or (2,) in px."""
        left, right = self._inner.min_position, self._inner.max_position
        scale = self.frame[1] / (right - left)
        return np.stack([(position - left) * scale, (np.sin(3 * position) * 0.45 + 0.55) * scale], axis=-1)

    def _draw_still(self, painter: Painter) -> None:
        color, inner = self._colors["fg"], self._inner
        points = self._track(np.linspace(inner.min_position, inner.max_position, _SEGMENTS + 1))
        for start, end in itertools.pairwise(points):
            painter.line(start, end, 1.0, color)
        x, y = self._track(np.float64(inner.goal_position)).tolist()
        painter.rectangle((x - 0.5, x + 0.5), (y, y + 50), color)
        painter.polygon([(x, y + 50), (x, y + 40), (x + 25, y + 45)], _FLAG)

    def _draw_state(self, painter: Painter, state: np.ndarray) -> None:
        # As Gymnasium does: turned by the cosine of the slope's phase, which is near the slope's angle.
        angle, origin = math.cos(3 * state[0]), self._track(state[0]) + np.array([0.0, _CLEARANCE])
        painter.polygon(turned([(-20, 0), (-20, 20), (20, 20), (20, 0)], angle, origin), self._colors["fg"])
        for wheel in turned([(10, 0), (-10, 0)], angle, origin):
            painter.disc(wheel, 8.0, _WHEEL)


class MountainCarContinuousWrapper(MountainCarWrapper):
    """The same with a continuous force; Gymnasium fixes the gravity of this one."""

    physics = {"power": ("power", 0.00075, 0.00225, 0.0015), "max_speed": _MAX_SPEED}  # noqa: RUF012
    _inner_id = "MountainCarContinuous-v0"
