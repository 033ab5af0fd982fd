"""`swm/CartPoleControl-v1`."""

from __future__ import annotations

from typing import Any

import numpy as np

from stable_worldmodel.envs.drawing2d import Painter
from stable_worldmodel.envs.gymnasium_control.base import ANY, BRIGHT, DARK, GymControlWrapper, turned

_TRACK, _AXLE = 100.0, 107.5  # px above the lower edge


class CartPoleWrapper(GymControlWrapper):
    """Balance a pole on a cart. Success: the time limit is reached."""

    physics = {  # noqa: RUF012
        "gravity": ("gravity", 4.9, 14.7, 9.8),
        "masscart": ("masscart", 0.5, 1.5, 1.0),
        "masspole": ("masspole", 0.05, 0.5, 0.1),
        "length": ("length", 0.25, 0.75, 0.5),  # half the pole's length
        "force_mag": ("force_mag", 5.0, 15.0, 10.0),
        "tau": ("tau", 0.01, 0.04, 0.02),
    }
    visuals = {  # noqa: RUF012
        "bg": (BRIGHT, (255, 255, 255)),
        "cart": (DARK, (0, 0, 0)),
        "pole": (ANY, (202, 152, 101)),
        "axle": (ANY, (129, 132, 203)),
    }
    state_size = 4

    def __init__(self, render_mode: str | None = None, init_value: Any = None, **kwargs: Any):
        super().__init__("CartPole-v1", render_mode, init_value, **kwargs)

    def _is_success(self, terminated: bool, truncated: bool) -> bool:
        return truncated and not terminated

    def _derive(self) -> None:
        inner = self._inner
        inner.total_mass = inner.masspole + inner.masscart
        inner.polemass_length = inner.masspole * inner.length

    def _write_state(self, state: Any) -> np.ndarray:
        observation = super()._write_state(state)
        self._inner.steps_beyond_terminated = None
        return observation

    def _draw_state(self, painter: Painter, state: np.ndarray) -> None:
        width = self.frame[1]
        scale = width / (2 * self._inner.x_threshold)
        x, long = state[0] * scale + width / 2, scale * 2 * self._inner.length
        painter.rectangle((x - 25, x + 25), (_TRACK - 15, _TRACK + 15), self._colors["cart"])
        pole = [(-5, -5), (-5, long - 5), (5, long - 5), (5, -5)]
        painter.polygon(turned(pole, -state[2], (x, _AXLE)), self._colors["pole"])
        painter.disc((x, _AXLE), 5.0, self._colors["axle"])
        painter.rectangle((-0.5, width), (_TRACK - 0.5, _TRACK + 0.5), self._colors["cart"])
