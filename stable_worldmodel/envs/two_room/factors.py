"""The factors of variation of TwoRoom: ranges, defaults, the order they are drawn in, and what must fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.two_room.drawing import Color, Palette
from stable_worldmodel.envs.two_room.geometry import (
    BORDER_SIZE,
    DOOR_FIT,
    MAX_DOORS,
    WORLD_SIZE,
    Layout,
    is_behind_wall,
)
from stable_worldmodel.envs.variation import FactorSpace, is_covered
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("agent.position", "target.position")
TARGET_RULES = ("any", "other_room")

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


class Factors(FactorSpace):
    """The variation space. Lengths are px of the 224x224 picture.

    A factor stands after those that its constraint reads, and they are drawn in this order. `wall.border_color` black
    means: as `wall.color`. With the target rule "other_room" the target is drawn behind the wall, `task.min_steps`
    away, and doors so that the agent can pass one under the collision rules that `swept` selects.
    """

    def __init__(self, target_rule: str = "any", swept: bool = False):
        if target_rule not in TARGET_RULES:
            raise ContractError(f"target_rule={target_rule!r}: expected one of {TARGET_RULES}")
        self._swept = swept
        strict = target_rule == "other_room"
        super().__init__(
            {
                "background": {"color": spaces.RGBBox(init_value=_WHITE)},
                "wall": {
                    "color": spaces.RGBBox(init_value=_BLACK),
                    "border_color": spaces.RGBBox(init_value=_BLACK),
                    "thickness": spaces.Discrete(35, start=7, init_value=10),
                    "axis": spaces.Discrete(2, init_value=1),  # 1: vertical wall, 0: horizontal
                },
                "agent": {
                    "color": spaces.RGBBox(init_value=(255, 0, 0)),
                    "radius": _length(7, 14, default=7),  # also the sigma of the dot
                    "position": _point(60, 112, allowed=self._start_is_free),
                    "speed": _length(1.75, 10.5, default=5),  # per step and unit action
                },
                "door": {
                    "color": spaces.RGBBox(init_value=_WHITE),
                    "number": spaces.Discrete(MAX_DOORS, start=1, init_value=1),
                    "size": _per_door(1, 21, default=14, allowed=self._a_door_fits),  # half extent
                    "position": _per_door(
                        0, WORLD_SIZE - 1, default=49, allowed=self._a_door_is_open if strict else None
                    ),
                },
                "task": {"min_steps": spaces.Discrete(100, start=15, init_value=25)},
                "target": {
                    "color": spaces.RGBBox(init_value=(0, 255, 0)),
                    "radius": _length(7, 14, default=7),
                    "position": _point(164, 112, allowed=self._target_is_far if strict else None),
                },
                "rendering": {"render_target": spaces.Discrete(2, init_value=0)},
            }
        )

    def draw(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode, see `draw_factors`.

        Defaults that no longer fit are repaired like this: start and target are mirrored at the diagonal where a
        horizontal wall lies on them, and doors too small for the agent are widened until it fits.
        """
        repairs = {"agent.position": self._mirrored_start, "door.size": self._widened_doors}
        self.draw_factors(seed, options, DEFAULT_VARIATIONS, repairs)
        if self.value_of("wall.axis") == 0 and not is_covered("target.position", options.get("variation_values") or ()):
            self._uncover_default_target()

    def layout(self) -> Layout:
        """The geometry that the current values describe, with the collision rules to go with it."""
        centers, sizes = self.value_of("door.position").tolist(), self.value_of("door.size").tolist()
        return Layout(
            axis=self.value_of("wall.axis"),
            thickness=self.value_of("wall.thickness"),
            doors=tuple(zip(centers, sizes, strict=True))[: self.value_of("door.number")],
            radius=self.value_of("agent.radius").item(),
            speed=self.value_of("agent.speed").item(),
            swept=self._swept,
        )

    def look(self) -> Look:
        """What an episode looks like, apart from its layout."""
        wall, border = self._color("wall.color"), self._color("wall.border_color")
        return Look(
            palette=Palette(
                background=self._color("background.color"),
                door=self._color("door.color"),
                wall=wall,
                # Published pictures have borders in the colour of the walls, so that is what the default means.
                border=wall if border == _BLACK else border,
            ),
            agent_color=self._color("agent.color"),
            target_color=self._color("target.color"),
            target_radius=self.value_of("target.radius").item(),
            shows_target=bool(self.value_of("rendering.render_target")),
        )

    def _color(self, name: str) -> Color:
        return tuple(self.value_of(name).tolist())

    def _start_is_free(self, position: np.ndarray) -> bool:
        axis, thickness = self.value_of("wall.axis"), self.value_of("wall.thickness")
        return not Layout(axis, thickness, (), self.value_of("agent.radius").item(), speed=0.0).in_wall(position)

    def _a_door_fits(self, sizes: np.ndarray) -> bool:
        return sizes[: self.value_of("door.number")].max() >= DOOR_FIT * self.value_of("agent.radius").item()

    def _a_door_is_open(self, centers: np.ndarray) -> bool:
        layout = self.layout()
        doors = tuple((center, size) for center, (_, size) in zip(centers.tolist(), layout.doors, strict=False))
        return any(replace(layout, doors=doors).passages())

    def _target_is_far(self, position: np.ndarray) -> bool:
        start, steps = self.value_of("agent.position"), self.value_of("task.min_steps")
        return is_behind_wall(self.layout(), start.tolist(), position.tolist(), steps)

    def _uncover_default_target(self) -> None:
        target = self.factor("target.position")
        if np.array_equal(target.value, target.init_value) and self.layout().in_wall(target.value):
            target.set_value(target.value[::-1])

    def _mirrored_start(self) -> np.ndarray:
        return self.value_of("agent.position")[::-1]

    def _widened_doors(self) -> np.ndarray:
        fitting = math.ceil(DOOR_FIT * self.value_of("agent.radius").item())
        return np.maximum(self.value_of("door.size"), fitting)


class Look(NamedTuple):
    """The colours and the target's appearance."""

    palette: Palette
    agent_color: Color
    target_color: Color
    target_radius: float
    shows_target: bool


def _point(x: float, y: float, allowed: Any) -> spaces.Box:
    low, high = BORDER_SIZE, WORLD_SIZE - BORDER_SIZE - 1
    return spaces.Box(low, high, (2,), np.float32, init_value=(x, y), constrain_fn=allowed)


def _length(low: float, high: float, default: float) -> spaces.Box:
    return spaces.Box(low, high, (1,), np.float32, init_value=default)


def _per_door(low: int, high: int, default: int, allowed: Any) -> spaces.MultiDiscrete:
    counts, start = [high - low + 1] * MAX_DOORS, [low] * MAX_DOORS
    return spaces.MultiDiscrete(counts, start=start, init_value=[default] * MAX_DOORS, constrain_fn=allowed)
