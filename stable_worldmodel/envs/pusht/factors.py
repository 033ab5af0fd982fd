"""The factors of variation of PushT: ranges, defaults, the order they are drawn in, and what must fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.pusht.drawing import Color, Look
from stable_worldmodel.envs.pusht.physics import INNER, SIZE
from stable_worldmodel.envs.pusht.shapes import DISC, NAMES, Figure, Pose, figure, overlap
from stable_worldmodel.envs.variation import FactorSpace, is_covered
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("agent.start_position", "block.start_position", "block.angle")
CLEARANCE = 1.0  # px between agent and block, and between block and walls, at a start
_MAX_TRIES = 1000
_TURN = 2 * math.pi


class Factors(FactorSpace):
    """The variation space. Lengths are px of the 512x512 arena, angles radians, velocities px/s.

    A factor stands after those that its constraint reads, and they are drawn in this order. Drawn starts keep the
    block off the walls and the agent off the block; a start that is given may do anything. `goal.scale` has no effect:
    the overlay has the block's shapes.

    Args:
        public: draw starts without constraints and no negative velocities, as published data was.
    """

    def __init__(self, public: bool = False):
        self._given: tuple[str, ...] = ()
        block_rule, agent_rule = (None, None) if public else (self._block_is_free, self._agent_is_free)
        super().__init__(
            {
                "background": {"color": spaces.RGBBox(init_value=(255, 255, 255))},
                "goal": {
                    "color": spaces.RGBBox(init_value=(144, 238, 144)),
                    "scale": _scale(40),
                    "angle": _angle(math.pi / 4),
                    "position": _point(50, 450, (256, 256)),
                },
                "block": {
                    "color": spaces.RGBBox(init_value=(119, 136, 153)),
                    "scale": _scale(30),
                    "shape": spaces.Discrete(len(NAMES) - 1, start=1, init_value=NAMES.index("T")),
                    "angle": _angle(0),
                    "start_position": _point(100, 400, (400, 100), block_rule),
                },
                "agent": {
                    "color": spaces.RGBBox(init_value=(65, 105, 225)),
                    "scale": _scale(40),
                    "shape": spaces.Discrete(len(NAMES), init_value=DISC),
                    "angle": _angle(0),
                    "start_position": _point(50, 450, (256, 400), agent_rule),
                    "velocity": _point(0 if public else -SIZE, SIZE, (0, 0)),
                },
                "rendering": {"render_goal": spaces.Discrete(2, init_value=1)},
            }
        )
        self._public = public

    def draw(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode, see `draw_factors`.

        A block at its default place that reaches into a wall is moved off it; an agent at its default place that
        overlaps the block is drawn anew.
        """
        self._given = tuple(options.get("variation_values") or ())
        self.draw_factors(seed, options, DEFAULT_VARIATIONS, {"block.start_position": self._inward})

    def draw_goal(self, rng: np.random.Generator) -> np.ndarray:
        """A goal state (7,) for the current figures: poses drawn like starts, with the agent's start velocity."""
        velocity = self.value_of("agent.velocity")
        names = ("agent.start_position", "block.start_position", "block.angle")
        for _ in range(_MAX_TRIES):
            agent, block, angle = (rng.uniform(f.low, f.high) for f in map(self.factor, names))
            pose = (*block.tolist(), float(angle))
            if self._public or (self._off_walls(pose) and self._off_block(agent, pose)):
                return np.array([*agent, *pose, *velocity])
        raise ContractError(f"no goal found in {_MAX_TRIES} draws for {self.agent()} and {self.block()}")

    def agent(self) -> Figure:
        """The agent's shape and size."""
        return figure(self.value_of("agent.shape"), self._number("agent.scale"))

    def block(self) -> Figure:
        """The block's shape and size."""
        return figure(self.value_of("block.shape"), self._number("block.scale"))

    def agent_angle(self) -> float:
        """The agent's orientation, which stays what it is."""
        return self._number("agent.angle")

    def start_state(self) -> np.ndarray:
        """Agent xy, block xy and angle, agent velocity, (7,)."""
        names = ("agent.start_position", "block.start_position", "block.angle", "agent.velocity")
        return np.concatenate([np.atleast_1d(self.value_of(name)) for name in names])

    def goal_pose(self) -> Pose:
        """Of the overlay."""
        return (*self.value_of("goal.position").tolist(), self._number("goal.angle"))

    def look(self, with_target: bool) -> Look:
        """What an episode looks like, apart from the poses."""
        shows_goal = with_target and bool(self.value_of("rendering.render_goal"))
        return Look(
            background=self._color("background.color"),
            agent=self._color("agent.color"),
            block=self._color("block.color"),
            goal=self._color("goal.color"),
            goal_pose=self.goal_pose() if shows_goal else None,
        )

    def _number(self, name: str) -> float:
        return self.value_of(name).item()

    def _color(self, name: str) -> Color:
        return tuple(self.value_of(name).tolist())

    # ------------------------------------------------------------------ constraints
    def _block_is_free(self, position: np.ndarray) -> bool:
        if is_covered("block.start_position", self._given):
            return True
        pose = (*position.tolist(), self._number("block.angle"))
        if not self._off_walls(pose):
            return False
        return not is_covered("agent.start_position", self._given) or self._off_block(self._agent_start(), pose)

    def _agent_is_free(self, position: np.ndarray) -> bool:
        if is_covered("agent.start_position", self._given):
            return True
        block = (*self.value_of("block.start_position").tolist(), self._number("block.angle"))
        return self._off_block(position, block)

    def _agent_start(self) -> np.ndarray:
        return self.value_of("agent.start_position")

    def _off_walls(self, pose: Pose) -> bool:
        x0, x1, y0, y1 = self.block().extent(pose[2])
        low, high = INNER[0] + CLEARANCE, INNER[1] - CLEARANCE
        return low <= min(pose[0] + x0, pose[1] + y0) and max(pose[0] + x1, pose[1] + y1) <= high

    def _off_block(self, agent: np.ndarray, block: Pose) -> bool:
        pose = (*agent.tolist(), self.agent_angle())
        return not overlap(self.agent(), pose, self.block(), block, CLEARANCE)

    def _inward(self) -> np.ndarray:
        """The block's start, moved off the walls by the least amount."""
        x0, x1, y0, y1 = self.block().extent(self._number("block.angle"))
        low, high = INNER[0] + CLEARANCE, INNER[1] - CLEARANCE
        return np.clip(self.value_of("block.start_position"), (low - x0, low - y0), (high - x1, high - y1))


def _scale(default: float) -> spaces.Box:
    return spaces.Box(20, 60, (), np.float32, init_value=default)


def _angle(default: float) -> spaces.Box:
    return spaces.Box(-_TURN, _TURN, (), np.float64, init_value=default)


def _point(low: float, high: float, default: tuple[float, float], allowed: Any = None) -> spaces.Box:
    return spaces.Box(low, high, (2,), np.float64, init_value=default, constrain_fn=allowed)
