"""The scripted expert of the classic control tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.gymnasium_control.controllers import TASKS, Controller
from stable_worldmodel.envs.scripted import NoisyPolicy
from stable_worldmodel.errors import ContractError


class ExpertPolicy(NoisyPolicy):
    """Solves each classic control task with a controller made for the factors of the episode.

    CartPole: linear-quadratic regulator. MountainCar and Pendulum: value iteration on a grid, for Pendulum with a
    regulator at the top. Acrobot: pumping energy, by the one of six laws that a simulation finds fastest.

    Reads `raw_state` from info, `inner_id` and `dynamics()` from the envs. Actions are those of the env: int64 (N,), or
    float32 (N, 1).

    Args:
        action_noise: standard deviation of Gaussian noise added to the effort, which lies in -1..1, before clipping it
            and, where actions are discrete, taking the nearest one.
        action_repeat_prob: probability of repeating the env's previous action, never across episodes.
        seed: see ScriptedPolicy.
    """

    _action_dim = 1

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes. Raises ContractError for an env of another family."""
        super().set_env(env)
        try:
            ids = set(self._call_envs("inner_id"))
        except AttributeError as error:
            raise ContractError(f"{type(self).__name__} drives classic control envs only ({error})") from error
        if len(ids) != 1 or not ids <= TASKS.keys():
            raise ContractError(
                f"{type(self).__name__} drives envs of one task of {sorted(TASKS)}, found {sorted(ids)}"
            )
        (self._id,) = ids
        self._controllers: list[Controller | None] = [None] * self.num_envs

    def _start_episodes(self, indices: np.ndarray) -> None:
        super()._start_episodes(indices)
        dynamics = self._call_envs("dynamics")
        for i in indices:
            self._controllers[i] = TASKS[self._id].controller(dynamics[i])

    def _intended(self, obs: Mapping[str, Any]) -> np.ndarray:
        states = self._latest(obs, "raw_state").astype(np.float64)
        controlled = zip(self._controllers, states, strict=True)
        return np.array([[control(state)] for control, state in controlled if control is not None])

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        efforts, task = super()._act(obs), TASKS[self._id]
        if not task.levels:
            return efforts * np.float32(task.scale)
        return np.rint((efforts[..., 0] + 1.0) / 2.0 * (task.levels - 1)).astype(np.int64)
