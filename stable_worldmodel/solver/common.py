"""What every planner needs: slicing infos, finding the cost's functions, completing warm starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info


def num_rows(info: Info) -> int:
    """How many envs an info describes: the length that all its arrays, tensors and lists share."""
    lengths = {key: len(value) for key, value in info.items() if _has_rows(value)}
    if not lengths:
        raise ContractError(
            f"info has no array, tensor or list among its keys {sorted(info)}: expected one row per env"
        )
    if len(set(lengths.values())) > 1:
        raise ContractError(f"info values differ in their number of envs: {lengths}; expected one row per env in each")
    n = next(iter(lengths.values()))
    if n == 0:
        raise ContractError("info has no rows: expected at least one env")
    return n


def select_rows(info: Info, rows: np.ndarray) -> Info:
    """A new info with copies of the given rows (int64, (r,)); values without an env axis are passed on as they are.

    The copy keeps a model that writes into its inputs away from the caller's data, and gives every env the same memory
    layout whatever it was stacked with.
    """
    selected: Info = {}
    for key, value in info.items():
        if not _has_rows(value):
            selected[key] = value
        elif isinstance(value, torch.Tensor):
            selected[key] = value[torch.from_numpy(rows)]
        elif isinstance(value, np.ndarray):
            selected[key] = value[rows]
        else:
            selected[key] = [value[row] for row in rows]
    return selected


def to_device(info: Info, device: torch.device, dtype: torch.dtype) -> Info:
    """Numeric arrays become tensors; tensors move to `device`, floating ones to `dtype`; the rest stays."""
    return {key: _to_device(value, device, dtype) for key, value in info.items()}


def _to_device(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(value)
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _has_rows(value: Any) -> bool:
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def resolve_cost(model: Any, cost: Any) -> Any:
    """The object to minimise, given under its early name `model` or its present one `cost`."""
    if (model is None) == (cost is None):
        raise ContractError("pass exactly one of `cost` and `model` (its earlier name): an object with get_cost")
    chosen = model if cost is None else cost
    if not callable(getattr(chosen, "get_cost", None)):
        raise TypeError(
            f"{type(chosen).__name__} has no get_cost(info, candidates); wrap a world model in "
            "stable_worldmodel.planning.ShootingCostEvaluator"
        )
    return chosen


def cost_parameter(cost: Any) -> torch.Tensor | None:
    """The first parameter of a cost, which tells its device and dtype; None if it has none."""
    parameters = getattr(cost, "parameters", None)
    return next(iter(parameters()), None) if callable(parameters) else None


def prepare_init_action(
    model: Any,
    info: Info,
    init_action: Any,
    horizon: int,
    n_envs: int,
    action_dim: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Complete a warm start to the whole horizon.

    Args:
        model: the cost; if it `proposes_actions`, it does so for the missing tail, otherwise the tail is zero.
        info: un-expanded info of these envs.
        init_action: array or tensor (n, t, A) with 0 <= t <= H, or None; never modified.

    Returns:
        A new tensor (n, H, A) on `device`.
    """
    given = torch.zeros(n_envs, 0, action_dim) if init_action is None else torch.as_tensor(init_action)
    if given.ndim != 3 or (len(given), given.shape[2]) != (n_envs, action_dim) or given.shape[1] > horizon:
        raise ContractError(
            f"init_action has shape {tuple(given.shape)}: expected ({n_envs}, t, {action_dim}) with t <= {horizon}"
        )
    given = given.to(device, dtype)
    missing = horizon - given.shape[1]
    if missing == 0:
        return given.clone()
    tail = given.new_zeros(n_envs, missing, action_dim)
    if proposes_actions(model):
        tail = _proposed_tail(model, info, given, tail)
    return torch.cat([given, tail], dim=1)


def proposes_actions(model: Any) -> bool:
    """Whether a cost has `get_action`, and does not say by `has_actor` that there is nothing behind it."""
    return callable(getattr(model, "get_action", None)) and bool(getattr(model, "has_actor", True))


def _proposed_tail(model: Any, info: Info, prefix: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
    """What an Actionable model proposes after `prefix`, like `tail` (n, h, A)."""
    horizon = tail.shape[1]
    proposed = model.get_action(info, horizon=horizon, prefix_actions=prefix if prefix.shape[1] else None)
    proposed = torch.as_tensor(proposed).to(tail)
    if horizon == 1 and proposed.ndim == 2:  # a horizon of one comes without a time axis
        proposed = proposed[:, None]
    if proposed.shape != tail.shape:
        raise ContractError(
            f"{type(model).__name__}.get_action(horizon={horizon}) returned shape {tuple(proposed.shape)}: "
            f"expected {tuple(tail.shape)}"
        )
    return proposed
