"""`swm/AcrobotControl-v1`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stable_worldmodel.envs.drawing2d import Painter
from stable_worldmodel.envs.gymnasium_control.base import ANY, BRIGHT, DARK, GymControlWrapper, turned


class AcrobotWrapper(GymControlWrapper):
    """Swing the tip of a two-link pendulum above the line. Success: it is there."""

    physics = {  # noqa: RUF012
        "link_length_1": ("LINK_LENGTH_1", 0.5, 1.5, 1.0),
        "link_length_2": ("LINK_LENGTH_2", 0.5, 1.5, 1.0),
        "link_mass_1": ("LINK_MASS_1", 0.5, 1.5, 1.0),
        "link_mass_2": ("LINK_MASS_2", 0.5, 1.5, 1.0),
        "link_com_pos_1": ("LINK_COM_POS_1", 0.25, 0.75, 0.5),
        "link_com_pos_2": ("LINK_COM_POS_2", 0.25, 0.75, 0.5),
        "link_moi": ("LINK_MOI", 0.5, 1.5, 1.0),
    }
    visuals = {  # noqa: RUF012
        "bg": (BRIGHT, (255, 255, 255)),
        "link": (ANY, (0, 204, 204)),
        "joint": (ANY, (204, 204, 0)),
        "line": (DARK, (0, 0, 0)),
    }
    frame = (500, 500)
    state_size = 4

    def __init__(self, render_mode: str | None = None, init_value: Any = None, **kwargs: Any):
        super().__init__("Acrobot-v1", render_mode, init_value, **kwargs)

    def _raw(self, observation: np.ndarray) -> np.ndarray:
        cos1, sin1, cos2, sin2, speed1, speed2 = observation
        return np.array([math.atan2(sin1, cos1), math.atan2(sin2, cos2), speed1, speed2])

    def _observe(self, raw: np.ndarray) -> np.ndarray:
        first, second, *speeds = raw
        parts = [np.cos(first), np.sin(first), np.cos(second), np.sin(second), *speeds]
        return np.array(parts, np.float32)

    def _draw_state(self, painter: Painter, state: np.ndarray) -> None:
        lengths = self._inner.LINK_LENGTH_1, self._inner.LINK_LENGTH_2
        middle = self.frame[0] / 2
        scale = middle / (sum(lengths) + 0.2)
        line = middle + scale
        painter.rectangle((middle - 2.2 * scale, middle + 2.2 * scale), (line - 0.5, line + 0.5), self._colors["line"])
        joint = np.array([middle, middle])
        for angle, length in zip((state[0] - math.pi / 2, state[0] + state[1] - math.pi / 2), lengths, strict=True):
            half, long = 0.1 * scale, length * scale
            link = [(0, -half), (0, half), (long, half), (long, -half)]
            painter.polygon(turned(link, angle, joint), self._colors["link"])
            painter.disc(joint, half, self._colors["joint"])
            joint = joint + long * np.array([math.cos(angle), math.sin(angle)])
