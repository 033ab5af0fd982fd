"""Policies that say how much a task demands: what doing nothing, or repeating the recording, achieves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import BasePolicy


class NoopPolicy(BasePolicy):
    """Always zero, or the action of the space nearest to it; in a Discrete space its first action."""

    type = "noop"

    def get_action(self, obs: Any, **kwargs: Any) -> np.ndarray:
        """Return the same actions (N, *action_shape) at every step."""
        space = self._attached_env().action_space
        if space.shape is None:
            raise ContractError(f"NoopPolicy gives arrays: expected an action space with a shape, {space}")
        zeros = np.zeros(space.shape, space.dtype)
        if hasattr(space, "low"):
            return np.clip(zeros, space.low, space.high)
        return zeros + np.asarray(getattr(space, "start", 0), space.dtype)


class ReplayPolicy(BasePolicy):
    """Env i executes the recorded actions of item i from where it starts, then zeros.

    Args:
        actions: per env, (steps, *action_shape) in the env's units.
    """

    type = "replay"

    def __init__(self, actions: Sequence[np.ndarray], **kwargs: Any):
        super().__init__(**kwargs)
        self.actions = [np.asarray(rows) for rows in actions]

    def set_env(self, env: Any) -> None:
        """Attach a pool of as many envs as there are recordings (ContractError)."""
        if env.num_envs != len(self.actions):
            raise ContractError(f"{len(self.actions)} recordings for {env.num_envs} envs: expected one per env")
        super().set_env(env)
        self._steps = np.zeros(env.num_envs, np.int64)

    def reset(self, env_indices: Sequence[int], episode_seeds: Sequence[int] | None) -> None:
        """Envs `env_indices` begin again."""
        self._steps[np.asarray(env_indices, np.int64)] = 0

    def get_action(self, obs: Any, **kwargs: Any) -> np.ndarray:
        """Return the next recorded actions (N, *action_shape)."""
        space = self._attached_env().action_space
        actions = np.zeros(space.shape, space.dtype)
        for env, rows in enumerate(self.actions):
            if self._steps[env] < len(rows):
                actions[env] = rows[self._steps[env]]
        self._steps += 1
        return actions
