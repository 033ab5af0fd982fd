"""How planners searched while they were scored: seconds per solve, and how the best cost fell in a share of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stable_worldmodel.solver.callbacks import BestCostRecorder

MOST_CURVES = 100  # of one evaluation on disk; evenly spaced ones of all decisions
DIGITS = 5  # of a cost on disk


class CostCurves(BestCostRecorder):
    """Keeps the lowest cost by iteration of every decision of every env, over all solves until they are taken.

    Costs one reduction per iteration, and one copy from the device per chunk of envs.
    """

    def __init__(self) -> None:
        super().__init__("none", name="cost curves")
        self._curves: list[np.ndarray] = []

    def end_solve(self) -> None:
        self._curves += [torch.stack(chunk, dim=1).detach().double().cpu().numpy() for chunk in self.history if chunk]
        self.history = []

    def take(self) -> np.ndarray:
        """The lowest cost so far by iteration (decisions, iterations); forgets them."""
        taken = np.concatenate(self._curves) if self._curves else np.zeros((0, 0))
        self._curves = []
        return np.fmin.accumulate(taken, axis=1) if taken.size else taken


def planning_values(policy: Any) -> dict[str, np.ndarray]:
    """What the results keep of a policy that plans: `plan_seconds` (solves,), `plan_costs` (decisions, iterations).

    The costs are those of at most `MOST_CURVES` decisions, and only there if the solver has `CostCurves`.
    """
    values: dict[str, np.ndarray] = {}
    if hasattr(policy, "plan_seconds"):
        values["plan_seconds"] = np.array(policy.plan_seconds)
    for callback in getattr(getattr(policy, "solver", None), "callbacks", ()):
        if isinstance(callback, CostCurves):
            values["plan_costs"] = _rounded(thinned(callback.take()))
    return values


def thinned(curves: np.ndarray) -> np.ndarray:
    """Evenly spaced rows, at most `MOST_CURVES`."""
    if len(curves) <= MOST_CURVES:
        return curves
    return curves[np.linspace(0, len(curves) - 1, MOST_CURVES).round().astype(int)]


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.ravel()]).reshape(values.shape)
