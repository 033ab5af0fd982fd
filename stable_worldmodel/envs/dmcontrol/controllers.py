"""Scripted controllers: functions of one env's state that return its action in [-1, 1].

Masses and lengths are those of the stock models; moderate changes by factors are corrected by feedback.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

State = Mapping[str, np.ndarray]  # info of one env
Controller = Callable[[State], np.ndarray]
GRAVITY = 9.81


def wrapped(angle: float) -> float:
    """The same direction in [-π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


# ---------------------------------------------------------------------- reacher
_LINK = 0.12  # m, of both links
_WRIST_LIMIT = math.radians(160)
_INERTIA = (9.76e-4, 2.74e-4, 1.89e-4)  # kg m²: of the arm bent at a right angle, its coupling, of the hand
_TORQUE, _DAMPING = 0.05, 0.01  # N m at full action, N m s
_BANDWIDTH, _TOP_ACCELERATION = 10.0, 120.0  # 1/s, rad/s²


def reach(state: State) -> np.ndarray:
    """Computed torque towards the target configuration, or towards the nearer of two that put the finger there."""
    qpos, qvel = state["qpos"], state["qvel"]
    target = state["target_qpos"] if "target_qpos" in state else _pose(state["target_pos"], qpos)
    error = target - qpos
    error[0] = wrapped(error[0])
    bent, coupling, hand = _INERTIA
    cos = math.cos(qpos[1])
    mass = np.array([[bent + 2 * coupling * cos, hand + coupling * cos], [hand + coupling * cos, hand]])
    wanted = np.clip(_BANDWIDTH**2 * error, -_TOP_ACCELERATION, _TOP_ACCELERATION) - 2 * _BANDWIDTH * qvel
    return (mass @ wanted + _DAMPING * qvel) / _TORQUE


def _pose(target: np.ndarray, qpos: np.ndarray) -> np.ndarray:
    """Angles that put the finger at `target`, xy, those that are nearest to `qpos` in their larger difference."""
    x, y = target
    cos = (x * x + y * y) / (2 * _LINK**2) - 1
    bend = min(math.acos(min(max(cos, -1.0), 1.0)), _WRIST_LIMIT)
    poses = []
    for wrist in (bend, -bend):
        shoulder = math.atan2(y, x) - math.atan2(math.sin(wrist), 1 + math.cos(wrist))
        poses.append(np.array([qpos[0] + wrapped(shoulder - qpos[0]), wrist]))
    return min(poses, key=lambda pose: np.abs(pose - qpos).max())


# ---------------------------------------------------------------------- pendulum
def swing_up(state: State) -> np.ndarray:
    """Push along with the motion until the energy suffices, then hold upright. Angle 0 is up."""
    length, ball = 0.5, 0.4 * 0.05**2
    angle, speed = wrapped(float(state["qpos"][0])), float(state["qvel"][0])
    if abs(angle) < 0.35 and abs(5 * angle + speed) < 2.5:
        return np.array([-(12 * angle + 2 * speed)])
    energy = (length**2 + ball) * speed**2 / 2 + GRAVITY * length * (math.cos(angle) - 1)  # 0 when upright at rest
    return np.array([math.copysign(1.0, speed) if energy < 0.4 else 0.0])


# ---------------------------------------------------------------------- cartpole
_CART, _POLE, _HALF, _FORCE = 1.0, 0.1, 0.5, 10.0  # kg, kg, m to the middle of the pole, N at full action
_POLE_INERTIA = _POLE * (1.08 / 12 + _HALF**2)  # kg m² about the hinge
_LQR = np.array([-7.62, -27.82, -6.67, -7.23])  # of x, angle and their rates; Q = diag(20, 20, 1, 1), R = 0.1, 0.02 s


def balance(state: State) -> np.ndarray:
    """Pump energy into the pole, hold the cart near the middle, then balance with a linear regulator."""
    (x, angle), (speed, rate) = state["qpos"], state["qvel"]
    angle = wrapped(float(angle))
    if abs(angle) < 0.73 and abs(rate) < 4.985:
        return np.array([-_LQR @ (x, angle, speed, rate)])
    energy = _POLE_INERTIA * rate**2 / 2 + _POLE * GRAVITY * _HALF * (math.cos(angle) - 1)
    push = 7.3  # m/s²; found, with the other numbers here, by random search
    if abs(rate) > 1e-3:
        push = float(np.clip(99.5 * (energy - 0.171) * math.copysign(1.0, rate * math.cos(angle)), -push, push))
    return np.array([(_CART + _POLE) / _FORCE * (push - 7.6 * x - 1.84 * speed)])


CONTROLLERS: dict[str, Controller] = {"reacher": reach, "pendulum": swing_up, "cartpole": balance}


# ---------------------------------------------------------------------- ball in cup
class Catcher:
    """Finds, by simulating ahead, a motion of the cup that ends with the ball in it; then keeps still.

    Args:
        run_ahead: actions (K, T, 2) -> states (K, T, 8), qpos‖qvel, from the present state.
        rng: of the search.
    """

    steps, knots, tries, elite, rounds = 40, 8, 48, 6, 6
    caught_for = 8  # steps of the plan with the ball in the cup that are enough

    def __init__(self, run_ahead: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator):
        self._run_ahead, self._rng = run_ahead, rng
        self._plan: list[np.ndarray] = []

    def __call__(self, state: State) -> np.ndarray:
        """The next action."""
        if not self._plan and not _is_caught(np.concatenate([state["qpos"], state["qvel"]])):
            self._plan = self._search()
        return self._plan.pop(0) if self._plan else np.zeros(2)

    def _search(self) -> list[np.ndarray]:
        """Cross-entropy search over actions that are held for some steps each."""
        mean, spread = np.zeros((self.knots, 2)), np.ones((self.knots, 2))
        best: tuple[float, np.ndarray] = (-math.inf, mean)
        for _ in range(self.rounds):
            knots = mean + spread * self._rng.standard_normal((self.tries, self.knots, 2))
            knots = np.clip(knots, -1, 1)
            actions = np.repeat(knots, self.steps // self.knots, axis=1)
            states = self._run_ahead(actions)
            caught = _is_caught(states).sum(axis=1)
            distance = np.linalg.norm(_offset(states), axis=2)
            score = caught - 2 * distance.min(axis=1) - distance[:, -1]
            order = np.argsort(-score)
            if score[order[0]] > best[0]:
                best = float(score[order[0]]), actions[order[0]]
            if caught[order[0]] >= self.caught_for:
                break
            chosen = knots[order[: self.elite]]
            mean, spread = chosen.mean(axis=0), chosen.std(axis=0) + 0.1
        return list(best[1])


def _offset(states: np.ndarray) -> np.ndarray:
    """Ball minus target, xz in m, for states (..., 8)."""
    cup_x, cup_z, ball_x, ball_z = np.moveaxis(states[..., :4], -1, 0)
    return np.stack([ball_x - cup_x, (0.2 + ball_z) - (0.6 - 0.05 + cup_z)], axis=-1)


def _is_caught(states: np.ndarray) -> Any:
    return (np.abs(_offset(states)) < 0.025).all(axis=-1)
