"""Many envs as one, stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import create_empty_array

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.base import Pool, Transition
from stable_worldmodel.pool.buffers import InfoBuffer
from stable_worldmodel.pool.slots import Slots, build, close_all
from stable_worldmodel.pool.spaces import EnvSpaces, PoolSpaces


class EnvPool(Pool):
    """The in-process pool.

    Args:
        env_fns: one zero-argument factory per env, each called once. If one fails, the envs built before it are
            closed. Envs must agree on the shape and dtype of their observation and action spaces (ContractError).
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]):
        if not env_fns:
            raise ContractError("env_fns is empty: expected at least one factory")
        self.envs: list[gym.Env] = build(env_fns)
        self._open = list(self.envs)
        try:
            self._spaces = PoolSpaces([EnvSpaces.of(env) for env in self.envs])
        except BaseException:
            self.close()
            raise
        n = self.num_envs
        self.seeds = np.full(n, -1, np.int64)
        buffer = InfoBuffer(n, stacked=self._spaces.history_size > 1)
        observations = create_empty_array(self._spaces.single_observation, n)
        self._slots = Slots(self.envs, observations, np.zeros(n), np.zeros(n, bool), np.zeros(n, bool), buffer)

    @property
    def num_envs(self) -> int:
        return len(self.envs)

    @property
    def spaces(self) -> PoolSpaces:
        return self._spaces

    @property
    def infos(self) -> dict[str, Any]:
        return self._slots.infos.data

    def _observations(self) -> Any:
        return self._slots.batch()

    def _reset(self, indices: list[int], seeds: list[int | None], options: list[Any]) -> Any:
        self._slots.reset(indices, seeds, options, full=len(indices) == self.num_envs)
        return self._slots.batch()

    def _step(self, indices: list[int], actions: Any) -> Transition:
        slots = self._slots
        slots.step(indices, actions)
        return slots.batch(), slots.rewards, slots.terminateds, slots.truncateds, slots.infos.data

    def _call(self, indices: list[int], name: str, arguments: list[tuple[tuple, dict]]) -> list[Any]:
        return self._slots.call(indices, name, arguments)

    def get_attr(self, name: str) -> list[Any]:
        return self._slots.get_attr(name)

    def _set_attr(self, name: str, values: list[Any]) -> None:
        self._slots.set_attr(range(self.num_envs), name, values)

    def has(self, name: str) -> bool:
        return self._slots.has(name)

    def close(self, **kwargs: Any) -> None:
        envs, self._open = self._open, []
        close_all(envs, **kwargs)
