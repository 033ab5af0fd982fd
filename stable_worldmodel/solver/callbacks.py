"""Recorders of how a solve went, iteration by iteration.

A solver calls every callback after each iteration with the state of its chunk of n envs:

- all: `step`, `costs` (n, S);
- gradient, PGD, Lagrangian: `params`, and `cost`, what they descended in all;
- the others: `candidates` (n, S, H, A), and but for Nevergrad `topk_vals`, `topk_inds` (n, k), `topk_candidates`;
- CEM, iCEM, MPPI, predictive sampling: `mean`, `var`, `prev_mean`, `prev_var` (n, H, A), and with bounds `action_low`,
  `action_high` (A,);
- categorical CEM: `probs`, `prev_probs` (n, H, V, C).

`params` are (n, S, H, A) with their gradient in `.grad`; `var` is a standard deviation, its historical name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stable_worldmodel.errors import ContractError


class Callback:
    """Base of recorders; a subclass implements `compute`.

    Values stay on the device until the solve ends, so recording does not stop the loop.

    Args:
        reduction: 'mean' or 'sum' over the envs of a chunk, or 'none' for one value per env.
        name: key of the history in the solver's result; None is the class name.

    Attributes:
        history: of the last solve, a list over chunks of lists over iterations.
    """

    def __init__(self, reduction: str = "mean", name: str | None = None):
        if reduction not in ("mean", "sum", "none"):
            raise ContractError(f"reduction={reduction!r}: expected 'mean', 'sum' or 'none'")
        self.reduction = reduction
        self.name = name
        self.history: list[list[Any]] = []

    @property
    def output_key(self) -> str:
        """Key of the history in the solver's result."""
        return self.name or type(self).__name__

    def reset(self) -> None:
        """A solve begins."""
        self.history = []

    def start_batch(self) -> None:
        """A chunk of envs begins."""
        self.history.append([])

    def __call__(self, **state: Any) -> None:
        """An iteration is done."""
        self.history[-1].append(self._reduced(self.compute(**state)))

    def end_solve(self) -> None:
        """The solve is done: turn what was recorded into Python numbers."""
        self.history = [[_to_python(value) for value in chunk] for chunk in self.history]

    def compute(self, **state: Any) -> Any:
        """A tensor with one entry per env (n, ...), a dict of such, or anything else, which is recorded as it is."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute")

    def _reduced(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._reduced(entry) for key, entry in value.items()}
        if not isinstance(value, torch.Tensor) or self.reduction == "none" or value.ndim == 0:
            return value
        return value.mean(dim=0) if self.reduction == "mean" else value.sum(dim=0)


class Callbacks:
    """The callbacks of one solve; false if there are none."""

    def __init__(self, callbacks: Sequence[Callback]):
        self._callbacks = callbacks
        keys = [callback.output_key for callback in callbacks]
        if len(set(keys)) < len(keys):
            raise ContractError(f"callbacks record under {keys}: expected distinct names; pass name=...")
        for callback in callbacks:
            callback.reset()

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def start_batch(self) -> None:
        for callback in self._callbacks:
            callback.start_batch()

    def forget_batch(self) -> None:
        """The present chunk will be repeated."""
        for callback in self._callbacks:
            if callback.history:
                callback.history.pop()

    def __call__(self, **state: Any) -> None:
        for callback in self._callbacks:
            callback(**state)

    def end_solve(self) -> dict[str, list[list[Any]]]:
        """Output key -> history."""
        for callback in self._callbacks:
            callback.end_solve()
        return {callback.output_key: callback.history for callback in self._callbacks}


class BestCostRecorder(Callback):
    """Lowest cost of the candidates."""

    def compute(self, **state: Any) -> torch.Tensor:
        costs = state["costs"]
        return costs.amin(dim=1)


class MeanCostRecorder(Callback):
    """Mean cost of the candidates whose cost is finite."""

    def compute(self, **state: Any) -> torch.Tensor:
        costs = state["costs"]
        return costs.masked_fill(~costs.isfinite(), torch.nan).nanmean(dim=1)


class GradNormRecorder(Callback):
    """Norm of the gradient, the mean over the restarts; `per_step` gives one per macro step. 0 without a gradient."""

    def __init__(self, per_step: bool = False, reduction: str = "mean", name: str | None = None):
        super().__init__(reduction, name)
        self.per_step = per_step

    def compute(self, **state: Any) -> torch.Tensor:
        params = state["params"]
        gradient = torch.zeros_like(params) if params.grad is None else params.grad
        axes = (3,) if self.per_step else (2, 3)
        return gradient.norm(dim=axes).mean(dim=1)


class ActionNormRecorder(Callback):
    """Norm of the plan, the mean over the restarts."""

    def compute(self, **state: Any) -> torch.Tensor:
        params = state["params"]
        return params.detach().norm(dim=(2, 3)).mean(dim=1)


class EliteCostRecorder(Callback):
    """Mean, least and greatest cost of the elites."""

    def compute(self, **state: Any) -> dict[str, torch.Tensor]:
        topk_vals = state["topk_vals"]
        return {"mean": topk_vals.mean(dim=1), "min": topk_vals.amin(dim=1), "max": topk_vals.amax(dim=1)}


class VarNormRecorder(Callback):
    """Norm of the standard deviation."""

    def compute(self, **state: Any) -> torch.Tensor:
        var = state["var"]
        return var.norm(dim=(1, 2))


class MeanShiftRecorder(Callback):
    """How far the mean moved; None in the first iteration."""

    def compute(self, **state: Any) -> torch.Tensor | None:
        return None if state["step"] == 0 else (state["mean"] - state["prev_mean"]).norm(dim=(1, 2))


class EliteSpreadRecorder(Callback):
    """Root mean square distance of the elites from their mean."""

    def compute(self, **state: Any) -> torch.Tensor:
        topk_candidates = state["topk_candidates"]
        elites = topk_candidates.flatten(2)  # (n, k, H * A)
        return (elites - elites.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).sqrt()


def _to_python(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_python(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value
