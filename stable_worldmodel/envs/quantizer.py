"""Discrete actions for continuous envs: bins, and the action in the middle of each."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stable_worldmodel.errors import ContractError


@runtime_checkable
class Quantizable(Protocol):
    """What turns actions into bins and back."""

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Number of bins per component."""

    def quantize(self, action: np.ndarray) -> np.ndarray:
        """The bins of continuous actions."""

    def dequantize(self, bins: np.ndarray) -> np.ndarray:
        """The actions in the middle of bins."""


class PolarQuantizer:
    """Bins of a 2-D action by its length and direction.

    There is no bin for the zero action. Lengths beyond `max_action_distance` fall into the last bin.

    Args:
        num_bins_radial: bins of the length, all of the same width.
        num_bins_angular: bins of the direction; the first begins at the positive x axis.
        max_action_distance: upper end of the last bin of the length.
    """

    def __init__(self, num_bins_radial: int, num_bins_angular: int, max_action_distance: float):
        if num_bins_radial < 1 or num_bins_angular < 1:
            raise ContractError(f"{num_bins_radial}x{num_bins_angular} bins: expected at least one of each")
        if not max_action_distance > 0:
            raise ContractError(f"max_action_distance={max_action_distance}: expected > 0")
        self.num_bins_radial = num_bins_radial
        self.num_bins_angular = num_bins_angular
        self.max_action_distance = max_action_distance

    @property
    def action_shape(self) -> tuple[int, ...]:
        """(radial bins, angular bins)."""
        return self.num_bins_radial, self.num_bins_angular

    def quantize(self, action: Any) -> np.ndarray:
        """Bins (..., 2) int32, length and direction, of actions (..., 2)."""
        action = _pairs("action", action)
        length = np.hypot(action[..., 0], action[..., 1]) / self.max_action_distance
        turn = np.mod(np.arctan2(action[..., 1], action[..., 0]), 2 * math.pi) / (2 * math.pi)
        counts = np.array(self.action_shape)
        return np.clip(np.stack((length, turn), axis=-1) * counts, 0, counts - 1).astype(np.int32)

    def dequantize(self, bins: Any) -> np.ndarray:
        """Actions (..., 2) float32 in the middle of bins (..., 2). Raises ContractError for bins that do not exist."""
        bins = _pairs("bins", bins)
        if not ((bins >= 0) & (bins < self.action_shape) & (bins == np.floor(bins))).all():
            raise ContractError(f"bins={bins}: expected integers below {self.action_shape}")
        length = (bins[..., 0] + 0.5) / self.num_bins_radial * self.max_action_distance
        angle = (bins[..., 1] + 0.5) / self.num_bins_angular * 2 * math.pi
        return np.stack((length * np.cos(angle), length * np.sin(angle)), axis=-1).astype(np.float32)


def _pairs(name: str, value: Any) -> np.ndarray:
    values = np.asarray(value, np.float64)
    if values.shape[-1:] != (2,) or not np.isfinite(values).all():
        raise ContractError(f"{name}={value!r}: expected finite values of shape (..., 2)")
    return values
