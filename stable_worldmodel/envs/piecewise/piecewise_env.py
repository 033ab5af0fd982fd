"""`swm/Piecewise-v0`: move a disc to a target while every zone of the square drifts its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.batch2d import PointBatch, VectorEnv2D
from stable_worldmodel.envs.drawing2d import Painter
from stable_worldmodel.envs.piecewise.factors import ROOM, Factors, Field, Fields, Look
from stable_worldmodel.envs.two_room.drawing import draw_borders
from stable_worldmodel.envs.two_room.env import DotEnv
from stable_worldmodel.envs.two_room.geometry import BORDER_SIZE, WORLD_SIZE, Point

_ARROWS = 3  # per zone and axis
_ARROW_COLOR = (64, 64, 64)
_ARROW_SCALE = 4.0  # px of arrow per px of drift


class PiecewiseEnv(DotEnv):
    """The world of TwoRoom without the wall: a square room of 196 px, cut into `grid_n` x `grid_n` zones.

    Observation, float32 (4,): agent xy, target xy. Action, float32 (2,): velocity, clamped to [-1, 1] per component and
    multiplied by `agent.speed` px per step; the drift of the zone that the agent is in is added. The reward is always
    0. An episode terminates when the agent is closer than 16 px to the target; it is never truncated.

    Info and reset options: see PointEnv.

    Args:
        render_mode: "rgb_array", or None for an env that is never rendered.
        render_target: show the target, whatever the factor `rendering.render_target` says.
        grid_n: zones per side.
        init_value: mapping factor name -> default, for the life of the env.
    """

    name = "Piecewise"

    def __init__(
        self,
        render_mode: str | None = "rgb_array",
        render_target: bool = False,
        grid_n: int = 2,
        init_value: Mapping[str, Any] | None = None,
    ):
        super().__init__(Factors(grid_n), render_mode, render_target, init_value)
        self.observation_space = gym.spaces.Box(0.0, WORLD_SIZE, (4,), np.float32)

    @staticmethod
    def batched(envs: Sequence[PiecewiseEnv]) -> PointBatch:
        """These envs as one program."""
        return PointBatch(envs, Fields(len(envs)))

    def _observation(self) -> np.ndarray:
        return np.concatenate((self._agent, self._target))

    def _draw_still(self, look: Look) -> np.ndarray:
        picture = np.full((*self._shape, 3), look.background, np.uint8)
        if look.zones is not None:
            painter = Painter(picture, 0, 0, WORLD_SIZE, WORLD_SIZE)
            n = self._layout.grid_n
            edges = [BORDER_SIZE + int(k * ROOM / n) for k in range(n + 1)]
            for zone, color in enumerate(look.zones):
                row, column = divmod(zone, n)
                painter.rectangle(edges[column : column + 2], edges[row : row + 2], color)
        draw_borders(picture, look.border)
        if look.shows_biases:
            _draw_arrows(picture, self._layout)
        return picture


class PiecewiseVectorEnv(VectorEnv2D):
    """Several Piecewise envs as one."""

    env_class = PiecewiseEnv


def _draw_arrows(picture: np.ndarray, field: Field) -> None:
    """Draw the drift of every zone, `_ARROWS` x `_ARROWS` times."""
    painter = Painter(picture, 0, 0, WORLD_SIZE, WORLD_SIZE)
    count = field.grid_n * _ARROWS
    centers = BORDER_SIZE + (np.arange(count) + 0.5) * ROOM / count
    for y in centers:
        for x in centers:
            _draw_arrow(painter, (x, y), field.bias((x, y)))


def _draw_arrow(painter: Painter, center: Point, bias: Point) -> None:
    shaft = np.array(bias) * _ARROW_SCALE
    length = float(np.hypot(*shaft))
    if length == 0:
        return
    tail, tip = center - shaft / 2, center + shaft / 2
    head = shaft / length * min(5.0, length)  # px
    side = np.array([-head[1], head[0]]) / 2
    painter.line(tail, tip - head, 1.5, _ARROW_COLOR)
    painter.polygon([tip, tip - head + side, tip - head - side], _ARROW_COLOR)
