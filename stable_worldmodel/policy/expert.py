"""The base of scripted experts."""

from __future__ import annotations

from typing import Any

import numpy as np

from stable_worldmodel.policy.base import BasePolicy


class ExpertPolicy(BasePolicy):
    """A scripted policy that knows an env's state; each env's expert subclasses it."""

    type = "expert"

    def get_action(self, obs: Any, goal_obs: Any = None, **kwargs: Any) -> np.ndarray:
        """Return actions (N, *action_shape) for the infos `obs`, towards `goal_obs` where the expert takes one."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_action")
