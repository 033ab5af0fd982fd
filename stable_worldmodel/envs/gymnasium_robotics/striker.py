"""How to strike a puck so that it comes to rest at a goal: strikes are tried out in the simulator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RunAhead = Callable[[np.ndarray], np.ndarray]  # actions (K, T, 4) -> places of the puck (K, T, 3)

_PERIOD = 0.04  # s between actions
_SLOWING = 0.986  # m/s², friction of a puck that does not spin
_SHORT = 10  # steps after which the way of a puck is extrapolated
_LOW, _HIGH = np.array([-0.5, -0.8, 0.2, 2.0]), np.array([0.5, 0.8, 1.4, 4.99])
_SPREAD = np.array([0.1, 0.15, 0.12, 0.0])  # of candidates around a good one
_NEAR_ENOUGH = 0.015  # m


def plan_strike(run_ahead: RunAhead, way: np.ndarray, goal: np.ndarray, steps: int, rng: np.random.Generator) -> list:
    """Actions, each (4,), of a gripper that stands behind a puck, for the rest of an episode.

    Candidates (sidestep, turn, force, duration) are ranked by where the puck will have come to rest: many after a few
    steps, by extrapolation, then the best in full. The strike is the best of about 110; it may still miss, since the
    hand hits with its corners and the puck leaves at angles that vary abruptly.

    Args:
        way: unit vector (2,) from the puck to the goal.
        goal: xy in m.
        steps: left in the episode.
    """

    def short_miss(candidates: np.ndarray) -> np.ndarray:
        places = run_ahead(_strikes(candidates, way, _SHORT))[..., :2]
        speed = (places[:, -1] - places[:, -2]) / _PERIOD
        ahead = speed * np.linalg.norm(speed, axis=1, keepdims=True) / (2 * _SLOWING)
        return np.linalg.norm(places[:, -1] + ahead - goal, axis=1)

    def miss(candidates: np.ndarray) -> np.ndarray:
        places = run_ahead(_strikes(candidates, way, max(steps, _SHORT)))
        return np.linalg.norm(places[:, -1, :2] - goal, axis=1)

    first = rng.uniform(_LOW, _HIGH, (40, 4))
    found, errors = _refine(first, short_miss, rng, rounds=2, keep=4, new=16, spread=_SPREAD)
    best = found[np.argsort(errors)[:6]]
    found, errors = _refine(best, miss, rng, rounds=4, keep=2, new=8, spread=0.6 * _SPREAD, enough=_NEAR_ENOUGH)
    chosen = found[[errors.argmin()]]
    return list(_strikes(chosen, way, max(steps, _SHORT))[0])


def _refine(
    candidates: np.ndarray,
    miss: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    rounds: int,
    keep: int,
    new: int,
    spread: np.ndarray,
    enough: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """All candidates (K, 4) tried, with their errors (K,)."""
    errors = miss(candidates)
    for i in range(rounds):
        if errors.min() < enough:
            break
        best = candidates[np.argsort(errors)[:keep]]
        around = best[rng.integers(keep, size=new)] + rng.standard_normal((new, 4)) * spread * 0.7**i
        candidates = np.concatenate([candidates, around])
        errors = np.concatenate([errors, miss(around)])
    return candidates, errors


def _strikes(candidates: np.ndarray, way: np.ndarray, steps: int) -> np.ndarray:
    """Actions (K, T, 4): a sidestep of two steps, the strike, and back and up."""
    actions = np.zeros((len(candidates), steps, 4))
    aside = np.array([-way[1], way[0]])
    for sequence, (sidestep, turn, force, duration) in zip(actions, candidates, strict=True):
        direction = np.cos(turn) * way + np.sin(turn) * aside
        end = 2 + int(duration)
        sequence[:2, :2] = sidestep * aside
        sequence[2:end, :2] = force * direction
        sequence[end:, :2] = -0.6 * direction
        sequence[end:, 2] = 1.0
    return np.clip(actions, -1, 1)
