"""From the pool's infos to what a model takes: scaled columns, channel-first images, tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info, Transformable

Process = Mapping[str, Transformable]
Transform = Mapping[str, Callable[[torch.Tensor], Any]]


def prepare_info(info: Info, process: Process, transform: Transform) -> Info:
    """Return a new info: numeric arrays as tensors, everything else as it is.

    Columns named in `process` are scaled; `goal_<column>` shares the column's scaler unless it has one of its own.
    uint8 images under `pixels*` and `goal*` with a trailing channel axis (n, T, H, W, C) become (n, T, C, H, W).
    Values named in `transform` are passed through it one item (of n * T) at a time.
    """
    prepared: Info = {}
    for key, value in info.items():
        scaler = process.get(key, process.get(key.removeprefix("goal_")))
        if scaler is not None:
            value = apply_scaler(scaler.transform, key, value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(np.ascontiguousarray(_channels_first(key, value)))
        if key in transform:
            value = _transform_items(transform[key], key, value)
        prepared[key] = value
    return prepared


def live_envs(info: Info, num_envs: int) -> np.ndarray:
    """Which envs act, bool (N,): those in `_active`; without it those that `terminated` and `truncated` do not end."""
    if info.get("_active") is not None:
        return np.asarray(info["_active"], bool)
    ended = np.zeros(num_envs, bool)
    for key in ("terminated", "truncated"):
        if key in info:
            ended |= np.asarray(info[key]).reshape(num_envs, -1)[:, -1].astype(bool)
    return ~ended


def apply_scaler(scale: Callable[[np.ndarray], Any], key: str, value: Any) -> np.ndarray:
    """Scale an array (n, d) or (n, T, ..., d) as rows, and restore its shape."""
    if not isinstance(value, np.ndarray):
        raise ContractError(f"process[{key!r}] takes a NumPy array, found {type(value).__name__}")
    rows = value.reshape(-1, *value.shape[2:]) if value.ndim > 2 else value
    return np.asarray(scale(rows)).reshape(value.shape)


def _channels_first(key: str, value: np.ndarray) -> np.ndarray:
    is_image = key.startswith(("pixels", "goal")) and value.dtype == np.uint8 and value.ndim == 5
    if not is_image or value.shape[-1] not in (1, 3, 4):
        return value
    return np.moveaxis(value, -1, -3)


def _transform_items(transform: Callable[[torch.Tensor], Any], key: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ContractError(f"transform[{key!r}] takes a numeric array or tensor, found {type(value).__name__}")
    items = torch.stack([torch.as_tensor(transform(item)) for item in value.flatten(0, 1)])
    return items.unflatten(0, value.shape[:2])
