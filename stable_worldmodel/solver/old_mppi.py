"""The first MPPI planner under its early name: MPPISolver with TD-MPC2's settings, configured on construction."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.solver.mppi import MPPISolver


class MPPI(MPPISolver):
    """See `MPPISolver.tdmpc2`; candidates are clamped to the action space.

    Args:
        world_model: the cost.
        action_space: of one env, a Box.
        horizon: planned steps, each one env action.
        iterations, num_samples, num_elites, min_std, max_std: see MPPISolver; the first deviation is `max_std`.
        temperature: multiplies values, as in TD-MPC2.
        compile: capture an iteration as a CUDA graph where there is CUDA.
    """

    def __init__(
        self,
        world_model: Any,
        action_space: gym.spaces.Box,
        horizon: int = 3,
        iterations: int = 6,
        num_samples: int = 512,
        num_elites: int = 64,
        min_std: float = 0.05,
        max_std: float = 2.0,
        temperature: float = 0.5,
        compile: bool = True,
        **settings: Any,
    ):
        super().__init__(
            world_model,
            num_samples,
            num_elites,
            max_std,
            iterations,
            temperature=1 / temperature,
            min_std=min_std,
            max_std=max_std,
            relative=False,
            sample_elite=True,
            compiled=compile,
            **settings,
        )
        batched = gym.spaces.Box(action_space.low[None], action_space.high[None], dtype=action_space.dtype)
        config = SimpleNamespace(horizon=horizon, receding_horizon=1, action_block=1)
        bounds = action_space.low.reshape(-1).astype(np.float64), action_space.high.reshape(-1).astype(np.float64)
        self.configure(action_space=batched, n_envs=1, config=config, action_bounds=bounds)
