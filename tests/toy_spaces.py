"""A small variation space and what tests ask of its values."""

from __future__ import annotations

import numpy as np

from stable_worldmodel.spaces import Box, Dict, Discrete, MultiDiscrete, RGBBox


def room(**kwargs) -> Dict:
    """Three entries with defaults, in an order that sorting would change."""
    wall = Dict({"axis": Discrete(2, init_value=1), "color": RGBBox(init_value=(1, 2, 3))})
    agent = Dict({"radius": Box(7, 14, (1,), np.float32, init_value=7), "speed": Box(0, 9, init_value=5)})
    return Dict({"wall": wall, "agent": agent, "door": MultiDiscrete([21, 21], init_value=[14, 14])}, **kwargs)


ROOM_NAMES = ["wall.axis", "wall.color", "agent.radius", "agent.speed", "door"]


def equal(left, right) -> bool:
    """Whether two values are the same, dtypes included."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return np.asarray(left).dtype == np.asarray(right).dtype and np.array_equal(left, right)


def at(value: dict, name: str):
    for key in name.split("."):
        value = value[key]
    return value
