"""Controllers of the classic control tasks, each made for the physical factors of an episode; `TASKS` lists them.

A controller maps the raw state to an effort in -1..1, in units of the strongest action. Those that take a tenth of a
second to make are kept for the next episode with the same factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from stable_worldmodel.envs.gymnasium_control.value_iteration import GRID_SIDE, GridPolicy, Move

Factors = Mapping[str, float]
Controller = Callable[[np.ndarray], float]

_TORQUE = 2.0  # of Pendulum's strongest action
_DOWN_TO = 0.3  # rad from upright within which Pendulum's linear controller may take over
_GRAVITY, _STEP, _TOP_SPEEDS = 9.8, 0.2, np.array([[4.0], [9.0]]) * math.pi  # Acrobot's
# Acrobot: push as the sign of (second joint's speed + a * its angle + b * first joint's speed) says; (a, b) per row.
_LAWS = np.array([(0.0, 0.0), (-2.0, -2.0), (-1.0, -0.5), (-1.0, 0.5), (0.0, -0.5), (-0.5, 0.5)])
_SWING_LIMIT, _RECONSIDER = 500, 25  # steps

_CAR_LEFT, _CAR_RIGHT = -1.2, 0.6  # ends of the track


def regulator(
    a: np.ndarray, b: np.ndarray, state_cost: np.ndarray, action_cost: float
) -> tuple[np.ndarray, np.ndarray]:
    """The linear-quadratic regulator of x' = a x + b u: gains k (n,) of u = -k x, and p (n, n) of its cost x' p x."""
    from scipy.linalg import solve_discrete_are

    b, r = b.reshape(-1, 1), np.array([[action_cost]])
    p = solve_discrete_are(a, b, state_cost, r)
    return np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)[0], p


def balance_cart(factors: Factors) -> Controller:
    """CartPole: the sign of what a linear-quadratic regulator asks for."""
    pole, tau, gravity = factors["masspole"], factors["tau"], factors["gravity"]
    total = pole + factors["masscart"]
    inertia = factors["length"] * (4 / 3 - pole / total)
    lever = pole * factors["length"] / total
    # Accelerations of pole and cart, linear in the pole's angle and the force.
    turn, push = gravity / inertia, -1.0 / (total * inertia)
    a = np.eye(4) + tau * np.array([[0, 1, 0, 0], [0, 0, -lever * turn, 0], [0, 0, 0, 1], [0, 0, turn, 0]])
    b = tau * np.array([0, 1.0 / total - lever * push, 0, push])
    gains, _ = regulator(a, b, np.diag([1.0, 1.0, 10.0, 1.0]), 1.0 / factors["force_mag"] ** 2)
    return lambda state: 1.0 if gains @ state <= 0 else -1.0


@lru_cache(maxsize=64)
def climb_hill(force: float, gravity: float, max_speed: float, goal: float) -> Controller:
    """MountainCar: full throttle, turned round where that leads to the flag in the fewest steps."""

    def step(x: np.ndarray, v: np.ndarray, action: float) -> Move:
        v = np.clip(v + action * force - gravity * np.cos(3 * x), -max_speed, max_speed)
        x = np.clip(x + v, _CAR_LEFT, _CAR_RIGHT)
        v = np.where((x == _CAR_LEFT) & (v < 0), 0.0, v)
        return Move(x, v, np.ones_like(x), (x >= goal) & (v >= 0))

    hold = math.ceil(2 * max_speed / (GRID_SIDE - 1) / force)
    policy = GridPolicy(step, (-1.0, 1.0), (_CAR_LEFT, _CAR_RIGHT), (-max_speed, max_speed), hold)
    return lambda state: policy.action(*state.tolist())


@lru_cache(maxsize=64)
def swing_up(g: float, m: float, l: float, max_torque: float, max_speed: float, dt: float) -> Controller:  # noqa: E741
    """Pendulum: the cheapest way, by Gymnasium's cost, to where a linear-quadratic regulator can hold it upright."""
    torque = min(max_torque, _TORQUE)
    fall, push = 1.5 * g / l, 3.0 / (m * l**2)
    gains, p = regulator(
        np.array([[1.0 + fall * dt * dt, dt], [fall * dt, 1.0]]),
        np.array([push * dt * dt, push * dt]),
        np.diag([1.0, 0.1]),
        0.001,
    )
    # The regulator takes over where it needs no more torque and speed than there is: an ellipse x' p x <= reach.
    spread = np.linalg.inv(p)
    reach = min(torque**2 / (gains @ spread @ gains), _DOWN_TO**2 / spread[0, 0], (0.8 * max_speed) ** 2 / spread[1, 1])

    def held(x: Any, v: Any) -> Any:
        return p[0, 0] * x * x + 2 * p[0, 1] * x * v + p[1, 1] * v * v

    def step(x: np.ndarray, v: np.ndarray, action: float) -> Move:
        cost = x * x + 0.1 * v * v + 0.001 * action * action
        v = np.clip(v + (fall * np.sin(x) + push * action) * dt, -max_speed, max_speed)
        x = _wrapped(x + v * dt)
        after = held(x, v)
        return Move(x, v, cost + np.where(after <= reach, after, 0.0), after <= reach)

    hold = max(1, min(round(0.15 / dt), math.ceil(2 * max_speed / (GRID_SIDE - 1) / (push * torque * dt))))
    policy = GridPolicy(step, (-torque, 0.0, torque), (-math.pi, math.pi), (-max_speed, max_speed), hold)

    def control(state: np.ndarray) -> float:
        angle, speed = float(_wrapped(state[0])), float(state[1])
        if held(angle, speed) <= reach:
            return float(np.clip(-(gains @ (angle, speed)), -torque, torque)) / _TORQUE
        return policy.action(angle, speed) / _TORQUE

    return control


def _wrapped(angle: Any) -> Any:
    """The same angle in -pi..pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


class SwingTip:
    """Acrobot: pumps energy by one of a few feedback laws, the one that a simulation of them all finds fastest.

    The first law pushes the way the second joint turns, which adds energy whatever lengths and masses are; the others
    lead or lag it. The choice is made anew from time to time, for an agent that was disturbed.
    """

    def __init__(self, factors: Factors):
        self._factors = dict(factors)
        self._law, self._age = _LAWS[0], 0

    def __call__(self, state: np.ndarray) -> float:
        if self._age % _RECONSIDER == 0:
            self._law = self._fastest(state)
        self._age += 1
        return float(_pushes(self._law, state))

    def _fastest(self, state: np.ndarray) -> np.ndarray:
        """The law whose simulated tip is the first above the line; the first law if none is."""
        states = np.repeat(np.asarray(state)[:, None], len(_LAWS), axis=1)
        for _ in range(_SWING_LIMIT):
            states = self.advance(states, _pushes(_LAWS.T, states))
            above = -np.cos(states[0]) - np.cos(states[0] + states[1]) > 1.0
            if above.any():
                return _LAWS[above.argmax()]
        return _LAWS[0]

    def advance(self, states: np.ndarray, torques: np.ndarray) -> np.ndarray:
        """One step of states (4, N) under torques (N,): fourth-order Runge-Kutta, as Gymnasium's."""
        first = self._slope(states, torques)
        second = self._slope(states + _STEP / 2 * first, torques)
        third = self._slope(states + _STEP / 2 * second, torques)
        fourth = self._slope(states + _STEP * third, torques)
        states = states + _STEP / 6 * (first + 2 * second + 2 * third + fourth)
        return np.concatenate([_wrapped(states[:2]), np.clip(states[2:], -_TOP_SPEEDS, _TOP_SPEEDS)])

    def _slope(self, states: np.ndarray, torques: np.ndarray) -> np.ndarray:
        """The time derivative of states (4, N): Sutton and Barto, Reinforcement Learning (1998), section 11.3."""
        f = self._factors
        long, mass, inertia = f["link_length_1"], f["link_mass_2"], f["link_moi"]
        near, far = f["link_com_pos_1"], f["link_com_pos_2"]
        angle1, angle2, speed1, speed2 = states
        cos, sin = mass * long * far * np.cos(angle2), mass * long * far * np.sin(angle2)
        d1 = f["link_mass_1"] * near**2 + mass * (long**2 + far**2) + 2 * cos + 2 * inertia
        d2 = mass * far**2 + cos + inertia
        pull2 = mass * far * _GRAVITY * np.sin(angle1 + angle2)
        pull1 = (f["link_mass_1"] * near + mass * long) * _GRAVITY * np.sin(angle1) + pull2
        pull1 = pull1 - sin * speed2 * (speed2 + 2 * speed1)
        turn2 = (torques + d2 / d1 * pull1 - sin * speed1**2 - pull2) / (mass * far**2 + inertia - d2**2 / d1)
        return np.stack([speed1, speed2, -(d2 * turn2 + pull1) / d1, turn2])


def _pushes(law: np.ndarray, state: np.ndarray) -> np.ndarray:
    """The effort, -1 or 1, of a law (2, ...) in a state (4, ...)."""
    return np.where(state[3] + law[0] * state[1] + law[1] * state[2] >= 0, 1.0, -1.0)


class Task(NamedTuple):
    """How one task is controlled.

    Attributes:
        controller: the factors of an episode -> its Controller.
        levels: how many evenly spaced efforts the actions 0, 1, ... stand for; 0 for a continuous action.
        scale: the continuous action of effort 1.
    """

    controller: Callable[[Factors], Controller]
    levels: int = 0
    scale: float = 1.0


# Id of the Gymnasium env -> Task.
TASKS = {
    "CartPole-v1": Task(balance_cart, levels=2),
    "MountainCar-v0": Task(lambda f: climb_hill(f["force"], f["gravity"], f["max_speed"], goal=0.5), levels=3),
    "MountainCarContinuous-v0": Task(lambda f: climb_hill(f["power"], 0.0025, f["max_speed"], goal=0.45)),
    "Acrobot-v1": Task(SwingTip, levels=3),
    "Pendulum-v1": Task(lambda f: swing_up(**f), scale=_TORQUE),
}
