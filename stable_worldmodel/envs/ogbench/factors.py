"""The table of factors that Cube and Scene share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from stable_worldmodel.envs.mujoco.effects import RGB, Checker, Put, Scale
from stable_worldmodel.envs.mujoco.factors import Factor, color, number
from stable_worldmodel.envs.mujoco.scene_effects import Aim, BoxSize, Told

PURPLE = (0.61, 0.28, 0.82)
HALF = 0.02  # half extent of a stock cube, m
LIMITS = 0.01, 0.03  # of half extents
APART = 2 * 2**0.5 * LIMITS[1]  # m between middles: the largest cubes do not touch, however they are turned
PLACED = ("cube.start_position", "cube.start_yaw", "cube.goal_position", "cube.goal_yaw")

Bounds = np.ndarray  # (2, D): low, high


def table(
    cubes: int,
    colors: np.ndarray,
    area: Bounds,
    arm: Bounds,
    positions: np.ndarray,
    cameras: Sequence[str],
    turn: float,
    more: Sequence[Factor] = (),
) -> tuple[Factor, ...]:
    """All factors.

    Args:
        cubes: how many.
        colors: (cubes, 3).
        area: where cubes may be, xy in m.
        arm: where the gripper may start, xyz in m.
        positions: default xy of the cubes, (cubes, 2).
        cameras: that `camera.angle_delta` turns, by up to `turn` degrees.
        more: further rows.
    """
    geoms, bodies, targets = (tuple(f"{kind}_{i}" for i in range(cubes)) for kind in _NAMES)
    low, high = (np.tile(corner, (cubes, 1)) for corner in area)
    place: dict[str, Any] = {"low": low, "high": high, "shape": (cubes, 2)}
    yaw: dict[str, Any] = {"low": 0.0, "high": 2 * np.pi, "shape": (cubes,)}
    return (
        color("cube.color", Told(colors), "of each cube and its target", shape=(cubes, 3)),
        Factor("cube.size", BoxSize(geoms, bodies, targets), LIMITS[0], LIMITS[1], (cubes,), about="half extent in m"),
        Factor("cube.start_position", Told(positions), **place, about="xy in m, of the middle", fits=apart),
        Factor("cube.start_yaw", Told(np.zeros(cubes)), **yaw, about="rad"),
        Factor("cube.goal_position", Told(positions), **place, about="xy in m", fits=apart),
        Factor("cube.goal_yaw", Told(np.zeros(cubes)), **yaw, about="rad"),
        Factor(
            "agent.color",
            Put("mat_rgba", ("ur5e/robotiq/black", "ur5e/robotiq/pad_gray"), RGB),
            0.0,
            1.0,
            (3,),
            default=PURPLE,
            about="of the gripper",
            neutral=(-1.0, -1.0, -1.0),  # two materials of two colours, so no value is as compiled
        ),
        Factor("agent.ee_start_position", Told(arm.mean(0)), arm[0], arm[1], (3,), about="xyz in m, of the gripper"),
        Factor("floor.color", Checker("grid"), 0.0, 1.0, (2, 3), default=_FLOOR, about="of the two kinds of fields"),
        Factor(
            "camera.angle_delta", Aim(tuple(cameras)), -turn, turn, (len(cameras), 2), about="yaw and pitch, degrees"
        ),
        number("light.intensity", 0, 1, Scale(("light_diffuse",), "global"), "diffuse part of the sun", dtype=float),
        *more,
    )


_NAMES = ("object", "object", "target_object")  # of geoms, bodies, and geoms of targets
_FLOOR = [[0.08, 0.11, 0.16], [0.15, 0.18, 0.25]]


def apart(positions: Any) -> bool:
    """Whether no two of the positions (N, 2) are closer than cubes are wide."""
    return all(np.hypot(*(one - other)) >= APART for one, other in combinations(np.asarray(positions), 2))


def in_a_row(cubes: int, area: Bounds) -> np.ndarray:
    """Positions (N, 2) beside each other at the near edge of an area; one cube is in the middle."""
    gap = min(0.1, (area[1, 1] - area[0, 1]) / max(1, cubes - 1))
    y = area[:, 1].mean() + gap * (np.arange(cubes) - (cubes - 1) / 2)
    return np.stack([np.full(cubes, area[0, 0]), np.clip(y, area[0, 1], area[1, 1])], axis=1)
