"""The base of all policies."""

from __future__ import annotations

from typing import Any

import numpy as np


class BasePolicy:
    """Maps the stacked infos of a pool to one action per env.

    Keyword arguments become attributes. `env` is the attached pool, None before `set_env`. Subclasses that keep state
    per episode also define `reset(env_indices, episode_seeds)`, which World calls for envs that start an episode.
    """

    type: str = "base"

    def __init__(self, **kwargs: Any):
        self.env: Any = None
        for name, value in kwargs.items():
            setattr(self, name, value)

    def set_env(self, env: Any) -> None:
        """Attach a pool: `num_envs`, batched `action_space`, `single_action_space`."""
        self.env = env

    def get_action(self, obs: Any, **kwargs: Any) -> np.ndarray:
        """Return actions (N, *action_shape) for the stacked infos `obs`; rows of envs that ended are ignored."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_action")

    def _attached_env(self) -> Any:
        if self.env is None:
            raise RuntimeError(f"{type(self).__name__} has no env; call set_env(pool) first (World.set_policy does)")
        return self.env


Policy = BasePolicy
