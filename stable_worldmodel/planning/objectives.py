"""Objectives: costs (n, S), lower is better, of what a rollout of action sequences left in the info."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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

    def __init__(self, pred_key: str = "predicted_emb", goal_key: str = "goal_emb", reduction: str = "sum"):
        if reduction not in ("sum", "mean"):
            raise ContractError(f"reduction={reduction!r}: expected 'sum' or 'mean'")
        self.pred_key = pred_key
        self.goal_key = goal_key
        self.reduction = reduction

    def __call__(self, info: Info) -> torch.Tensor:
        prediction = _entry(info, self.pred_key)[:, :, -1]  # (n, S, ...)
        goal = _entry(info, self.goal_key)[:, -1].detach()[:, None]  # (n, 1, ...)
        if prediction.shape[0] != goal.shape[0] or prediction.shape[2:] != goal.shape[2:]:
            raise ContractError(
                f"{self.pred_key} (n, S, ...) ends in {tuple(prediction.shape)}, {self.goal_key} (n, 1, ...) in "
                f"{tuple(goal.shape)}: expected the same n and latent axes"
            )
        error = (_at_least_float32(prediction) - _at_least_float32(goal)).square()
        return _reduce(error, self.reduction)


class ControlPenalty:
    """Sum of squared actions, over candidates (n, S, H, A) under `action_key`."""

    def __init__(self, action_key: str = "action_candidates"):
        self.action_key = action_key

    def __call__(self, info: Info) -> torch.Tensor:
        return _reduce(_at_least_float32(_entry(info, self.action_key)).square(), "sum")


class WeightedSum:
    """Sum of weight times objective over `terms`, pairs of (weight, objective)."""

    def __init__(self, terms: Sequence[tuple[float, Objective]]):
        if not terms:
            raise ContractError("terms is empty: expected at least one (weight, objective)")
        self.terms = list(terms)

    def __call__(self, info: Info) -> torch.Tensor:
        return sum(weight * objective(info) for weight, objective in self.terms)


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
