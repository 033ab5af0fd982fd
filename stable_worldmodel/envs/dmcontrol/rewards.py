"""Rewards of the tasks that the suite does not have, in 0…1. They follow the multi-task benchmark of TD-MPC2.

Where a task asks for no speed, its term of speed is 1 at exactly zero speed only, so practically constant 0; it is kept
for comparable scores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from stable_worldmodel.errors import require

Reward = Callable[[Any], float]
INF = float("inf")


def tolerance(x: Any, low: float, high: float, margin: float, **shape: Any) -> float:
    """dm_control's `tolerance`: 1 in [low, high], falling off over `margin` outside, Gaussian unless told otherwise."""
    value = require("dm_control.utils.rewards", "env").tolerance(x, bounds=(low, high), margin=margin, **shape)
    return float(value)


def linear(x: Any, low: float, high: float, margin: float, edge: float = 0.0) -> float:
    """`tolerance` that falls off linearly to `edge` at the margin."""
    return tolerance(x, low, high, margin, sigmoid="linear", value_at_margin=edge)


def height(physics: Any, *bodies: str) -> float:
    """Mean height of bodies above the ground, m."""
    return float(sum(physics.named.data.xpos[body, "z"] for body in bodies)) / len(bodies)


def height_of(body: str) -> Reward:
    """Measures the height of one body."""
    return lambda physics: height(physics, body)


def spin(physics: Any) -> float:
    """Angular momentum of torso and limbs about the y axis."""
    return float(physics.named.data.subtree_angmom["torso"][1])


def _faster(value: float, speed: float) -> float:
    return linear(value, speed, INF, speed)


# ---------------------------------------------------------------------- cheetah
_STAND, _LIE = 1.2, 0.25  # m


def _on_one_foot(physics: Any, lifted: str) -> float:
    up = tolerance(height(physics, "torso", lifted), _STAND, INF, _STAND / 2)
    return (5 * up + linear(physics.speed(), 0.0, 0.0, 0.0)) / 6


def _lifted(physics: Any, lifted: str) -> float:
    foot = tolerance(height(physics, lifted), _STAND, INF, _STAND / 2)
    return (3 * foot + 2 * tolerance(height(physics, "torso"), _STAND, INF, _STAND / 2)) / 5


def _run_on_one_foot(physics: Any, lifted: str) -> float:
    return _lifted(physics, lifted) * (5 * _faster(physics.speed(), 5.0) + 1) / 6


def _cheetah_lies(physics: Any) -> float:
    feet = linear(height(physics, "bfoot", "ffoot"), -INF, _LIE, _LIE)
    return (3 * linear(height(physics, "torso"), -INF, _LIE, _LIE) + feet) / 4


def _cheetah_legs_up(physics: Any) -> float:
    return (5 * tolerance(height(physics, "torso"), -INF, _LIE, _LIE / 2) + _lifted(physics, "bfoot")) / 6


def _cheetah_flips(physics: Any, sign: float) -> float:
    return (2 * linear(sign * spin(physics), 8.0, INF, 8.0) + linear(sign * physics.speed(), 0.0, INF, 0.0)) / 3


CHEETAH: dict[str, Reward] = {
    "run-backward": lambda physics: linear(physics.speed(), -INF, -10.0, 10.0),
    "stand-front": functools.partial(_on_one_foot, lifted="bfoot"),
    "stand-back": functools.partial(_on_one_foot, lifted="ffoot"),
    "jump": lambda physics: (_on_one_foot(physics, "bfoot") + _on_one_foot(physics, "ffoot")) / 2,
    "run-front": functools.partial(_run_on_one_foot, lifted="bfoot"),
    "run-back": functools.partial(_run_on_one_foot, lifted="ffoot"),
    "lie-down": _cheetah_lies,
    "legs-up": _cheetah_legs_up,
    "flip": functools.partial(_cheetah_flips, sign=1.0),
    "flip-backward": functools.partial(_cheetah_flips, sign=-1.0),
}


# ---------------------------------------------------------------------- hopper
def _hop_backward(physics: Any) -> float:
    return tolerance(physics.height(), 0.6, 2.0, 0.0) * linear(physics.speed(), -INF, -1.0, 0.5, edge=0.5)


HOPPER: dict[str, Reward] = {
    "hop-backward": _hop_backward,
    "flip": lambda physics: linear(spin(physics), 5.0, INF, 2.5),
    "flip-backward": lambda physics: linear(-spin(physics), 5.0, INF, 2.5),
}


# ---------------------------------------------------------------------- walker
def _walk_backward(physics: Any) -> float:
    standing = tolerance(physics.torso_height(), 1.2, INF, 0.6)
    stands = (3 * standing + (1 + physics.torso_upright()) / 2) / 4
    return stands * (5 * linear(physics.horizontal_velocity(), -INF, -1.0, 0.5, edge=0.5) + 1) / 6


def _arabesque(physics: Any) -> float:
    torso = tolerance(physics.torso_height(), 1.0, INF, 0.5)
    left = tolerance(height(physics, "left_foot"), -INF, 0.08, 0.5)
    right = tolerance(height(physics, "right_foot"), 1.0, INF, 0.5)
    return (3 * torso + left + right + (1 - physics.torso_upright()) / 2) / 6


def _low(x: float) -> float:
    return tolerance(x, -INF, 0.08, 0.04)


def _walker_lies(physics: Any) -> float:
    thighs = _low(height(physics, "left_thigh", "right_thigh"))
    return (3 * _low(physics.torso_height()) + thighs + (1 - physics.torso_upright()) / 2) / 5


def _walker_legs_up(physics: Any) -> float:
    feet = tolerance(height(physics, "left_foot", "right_foot"), 1.1, INF, 0.55)
    thighs = _low(height(physics, "left_thigh", "right_thigh"))
    return (3 * _low(physics.torso_height()) + 2 * feet + thighs + (1 - physics.torso_upright()) / 2) / 7


def _walker_flips(physics: Any) -> float:
    feet = tolerance(height(physics, "left_foot", "right_foot"), 1.1, INF, 0.55)
    return (3 * feet + 2 * tolerance(height(physics, "left_thigh", "right_thigh"), 1.0, INF, 0.5)) / 5


WALKER: dict[str, Reward] = {
    "walk-backward": _walk_backward,
    "arabesque": _arabesque,
    "lie_down": _walker_lies,
    "legs_up": _walker_legs_up,
    "flip": _walker_flips,
}
