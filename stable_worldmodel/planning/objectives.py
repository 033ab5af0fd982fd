"""Objectives: costs (n, S), lower is better, of what a rollout of action sequences left in the info.

An objective is any function of such an info. Those that read only the last prediction say so with an attribute
`last_only = True`; then models need not return the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Info, Objective

if TYPE_CHECKING:
    import torch


class GoalMSE:
    """Squared distance between the last predicted latent and the last frame of the goal, computed in float32 or more.

    Args:
        pred_key: predictions (n, S, T, ...); any axes may follow the time axis, e.g. patches and width.
        goal_key: goal latents (n, T', ...), shared by all candidates and detached.
        reduction: 'sum' or 'mean' over the latent axes. Latents of different size are comparable only under 'mean'.
    """

    last_only = True

    def __init__(self, pred_key: str = "predicted_emb", goal_key: str = "goal_emb", reduction: str = "sum"):
        if reduction not in ("sum", "mean"):
            raise ContractError(f"reduction={reduction!r}: expected 'sum' or 'mean'")
        self.pred_key = pred_key
        self.goal_key = goal_key
        self.reduction = reduction

    def __call__(self, info: Info) -> torch.Tensor:
        return _reduce(self._errors(info, slice(-1, None)), self.reduction)

    def _errors(self, info: Info, steps: slice) -> torch.Tensor:
        """Squared errors (n, S, t, ...) of the given predictions."""
        prediction = _entry(info, self.pred_key)[:, :, steps]  # (n, S, t, ...)
        goal = _entry(info, self.goal_key)[:, -1].detach()[:, None, None]  # (n, 1, 1, ...)
        if prediction.shape[0] != goal.shape[0] or prediction.shape[3:] != goal.shape[3:]:
            raise ContractError(
                f"{self.pred_key} (n, S, T, ...) ends in {tuple(prediction.shape)}, {self.goal_key} (n, 1, 1, ...) in "
                f"{tuple(goal.shape)}: expected the same n and latent axes"
            )
        return (_at_least_float32(prediction) - _at_least_float32(goal)).square()


class PathMSE(GoalMSE):
    """Weighted mean over all planned steps of the squared distance to the goal's last frame.

    Step t of 0..H-1 has a weight proportional to discount^t; a discount above 1 makes late steps count more.

    Args:
        pred_key, goal_key, reduction: see GoalMSE.
        discount: > 0.
        action_key: the candidates, which tell how many of the predictions are planned ones and not context.
    """

    last_only = False

    def __init__(
        self,
        pred_key: str = "predicted_emb",
        goal_key: str = "goal_emb",
        reduction: str = "sum",
        discount: float = 1.0,
        action_key: str = "action_candidates",
    ):
        super().__init__(pred_key, goal_key, reduction)
        if discount <= 0.0:
            raise ContractError(f"discount={discount}: expected > 0")
        self.discount = discount
        self.action_key = action_key

    def __call__(self, info: Info) -> torch.Tensor:
        horizon = _entry(info, self.action_key).shape[2]
        errors = self._errors(info, slice(-horizon, None))  # (n, S, H, ...)
        weights = errors.new_tensor([self.discount**t for t in range(errors.shape[2])])
        per_step = _reduce(errors.flatten(0, 1), self.reduction)  # (n * S, H)
        return (per_step @ (weights / weights.sum())).unflatten(0, errors.shape[:2])


class ControlPenalty:
    """Sum of squared actions, over candidates (n, S, H, A) under `action_key`."""

    last_only = True

    def __init__(self, action_key: str = "action_candidates"):
        self.action_key = action_key

    def __call__(self, info: Info) -> torch.Tensor:
        return _reduce(_at_least_float32(_entry(info, self.action_key)).square(), "sum")


class ActionSmoothness:
    """Sum of squared differences between consecutive actions of candidates (n, S, H, A) under `action_key`.

    Args:
        action_size: size of one env action, of which a macro step holds several; None compares macro steps.
    """

    last_only = True

    def __init__(self, action_size: int | None = None, action_key: str = "action_candidates"):
        self.action_size = action_size
        self.action_key = action_key

    def __call__(self, info: Info) -> torch.Tensor:
        actions = _at_least_float32(_entry(info, self.action_key))
        size = self.action_size or actions.shape[-1]
        if actions.shape[-1] % size:
            raise ContractError(
                f"action_size={size}: expected a divisor of the macro step's {actions.shape[-1]} numbers"
            )
        steps = actions.flatten(2).unflatten(2, (-1, size))  # (n, S, env steps, action_size)
        return _reduce(steps.diff(dim=2).square(), "sum")


class AtMost:
    """The constraint `objective <= limit`, as a value (n, S) that is satisfied where <= 0."""

    def __init__(self, objective: Objective, limit: float):
        self.objective = objective
        self.limit = limit
        self.last_only = reads_last_only(objective)

    def __call__(self, info: Info) -> torch.Tensor:
        return self.objective(info) - self.limit


class WeightedSum:
    """Sum of weight times objective over `terms`, pairs of (weight, objective)."""

    def __init__(self, terms: Sequence[tuple[float, Objective]]):
        if not terms:
            raise ContractError("terms is empty: expected at least one (weight, objective)")
        self.terms = list(terms)
        self.last_only = all(reads_last_only(objective) for _, objective in self.terms)

    def __call__(self, info: Info) -> torch.Tensor:
        return sum(weight * objective(info) for weight, objective in self.terms)


def goal_objective(model: Any) -> Objective:
    """The distance to the goal that suits a world model.

    Models with one latent per input (`extra_encoders`) are compared input by input, mean squared errors with equal
    weight; the others by `GoalMSE()`.
    """
    extra = getattr(model, "extra_encoders", None)
    if extra is None or not len(extra):
        return GoalMSE()
    parts = ["pixels", *(name for name in extra if name != "action")]
    return WeightedSum([(1.0, GoalMSE(f"predicted_{part}_emb", f"{part}_goal_emb", "mean")) for part in parts])


def reads_last_only(objective: Objective) -> bool:
    """Whether an objective reads only the last prediction."""
    return bool(getattr(objective, "last_only", False))


def _entry(info: Info, key: str) -> torch.Tensor:
    if key not in info:
        raise MissingKeyError(f"the rolled-out info has no {key!r}; it has {sorted(info)}")
    return info[key]


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.element_size() < 4 else x


def _reduce(x: torch.Tensor, reduction: str) -> torch.Tensor:
    """(n, S, ...) -> (n, S)."""
    flat = x.flatten(2)
    return flat.sum(dim=2) if reduction == "sum" else flat.mean(dim=2)
