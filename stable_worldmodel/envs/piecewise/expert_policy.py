"""The scripted expert: the action that lands on the target, the drift taken into account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.scripted import NoisyPolicy


class ExpertPolicy(NoisyPolicy):
    """Inverts the motion of the zone it is in: (target - agent - drift) / speed, clipped per component.

    Reads `state` and `goal_state` from info and `layout()` from the envs. Where a drift is stronger than the agent it
    may never arrive.

    Args:
        action_noise: standard deviation of Gaussian noise added to both components before clipping to [-1, 1].
        action_repeat_prob: probability of repeating the env's previous action, never across episodes.
        seed: see ScriptedPolicy.
    """

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        self._fields: list[Any] = [None] * self.num_envs

    def _start_episodes(self, indices: np.ndarray) -> None:
        super()._start_episodes(indices)
        fields = self._call_envs("layout")
        for i in indices:
            self._fields[i] = fields[i]

    def _intended(self, obs: Mapping[str, Any]) -> np.ndarray:
        state = self._latest(obs, "state").astype(np.float64)
        goal = self._latest(obs, "goal_state").astype(np.float64)
        drift = np.array([field.bias(position) for field, position in zip(self._fields, state, strict=True)])
        speed = np.array([[field.speed] for field in self._fields])
        return (goal - state - drift) / speed
