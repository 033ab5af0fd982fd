"""`swm/PushT-Discrete-v1`: PushT with bins as actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.pusht.env import PushT
from stable_worldmodel.envs.pusht.near_block import BinsNearBlock
from stable_worldmodel.envs.quantizer import PolarQuantizer, Quantizable
from stable_worldmodel.errors import ContractError


class PushTDiscrete(PushT):
    """PushT with bins as actions, MultiDiscrete; everything else is the same.

    Args:
        quantizer: what turns bins into relative actions; None: 16 lengths up to 1 in 16 directions.
        *args, **kwargs: those of PushT. `relative=False` is refused.
    """

    def __init__(self, quantizer: Quantizable | None = None, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not self.relative:
            raise ContractError("relative=False: bins are relative actions; expected relative=True")
        self._bins: Quantizable = PolarQuantizer(16, 16, 1.0) if quantizer is None else quantizer
        self.quantizer = self._bins
        self.action_space = gym.spaces.MultiDiscrete(np.array(self._bins.action_shape))

    def _move(self, action: Any) -> None:
        super()._move(self._bins.dequantize(np.asarray(action)))

    def fix_action_sample(self) -> None:
        """Make `action_space.sample()` draw bins that lead near the block (within 50 px per axis)."""
        self.action_space = BinsNearBlock(self, self._bins)
