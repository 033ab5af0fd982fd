"""The expert of the point mazes: from cell to cell on a shortest way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.scripted import NoisyPolicy
from stable_worldmodel.errors import ContractError

REACH = 0.2  # m that an action of 1 moves the point


class MazeExpertPolicy(NoisyPolicy):
    """Walks the point through a maze, MazeEnv with `loco_env_type="point"`.

    Args:
        action_noise: standard deviation of Gaussian noise; the package's "navigate" data has 0.5.
        action_repeat_prob, seed: see NoisyPolicy.
    """

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes. ContractError unless all are points."""
        super().set_env(env)
        kinds = set(self._call_envs("loco_env_type"))
        if kinds != {"point"}:
            raise ContractError(
                f"loco_env_type={', '.join(sorted(kinds))}: there is a scripted expert for 'point' only"
            )

    def _intended(self, obs: Mapping[str, Any]) -> np.ndarray:
        away = np.stack(self._call_envs("oracle_subgoal")) - self._latest(obs, "xy")
        return away / np.maximum(REACH, np.abs(away).max(1, keepdims=True))
