"""The envs of one process, stepped one after the other into preallocated arrays; every kind of pool is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate

from stable_worldmodel.pool.buffers import InfoBuffer
from stable_worldmodel.pool.spaces import is_array_space


def build(env_fns: Sequence[Callable[[], gym.Env]]) -> list[gym.Env]:
    """Call every factory once. If one fails, the envs built before it are closed."""
    envs: list[gym.Env] = []
    try:
        for make in env_fns:
            envs.append(make())
    except BaseException:
        close_all(envs)
        raise
    return envs


def _write(batch: Any, i: int, value: Any) -> None:
    """Put one observation into row i of a batch: an array, or a dict or tuple of batches."""
    if isinstance(batch, dict):
        for key, child in batch.items():
            _write(child, i, value[key])
    elif isinstance(batch, tuple):
        for child, part in zip(batch, value, strict=True):
            _write(child, i, part)
    else:
        batch[i] = value


def close_all(envs: Sequence[gym.Env], **kwargs: Any) -> None:
    """Close every env, even if one raises; the first error is raised at the end."""
    first_error = None
    for env in envs:
        try:
            env.close(**kwargs)
        except Exception as error:  # the remaining envs must still be closed
            first_error = first_error or error
    if first_error is not None:
        raise first_error


class Slots:
    """M envs, and where their transitions go.

    Args:
        envs: the envs.
        observations: batch of observations, written in place if the space is of arrays.
        rewards, terminateds, truncateds: (M,).
        infos: buffer of their infos.
        progress: int64 (2,): a counter of env calls, and the env of the current one. A watcher in another process
            reads it.
    """

    def __init__(
        self,
        envs: Sequence[gym.Env],
        observations: Any,
        rewards: np.ndarray,
        terminateds: np.ndarray,
        truncateds: np.ndarray,
        infos: InfoBuffer,
        progress: np.ndarray | None = None,
    ):
        self.envs = envs
        self.observations = observations
        self.rewards = rewards
        self.terminateds = terminateds
        self.truncateds = truncateds
        self.infos = infos
        self.progress = np.zeros(2, np.int64) if progress is None else progress
        self._space = envs[0].observation_space
        self.in_place = is_array_space(self._space)
        self.last: list[Any] = [None] * len(envs)  # observation of each env

    @property
    def current(self) -> int:
        """The env that was called last: the one to blame for an exception."""
        return int(self.progress[1])

    def _enter(self, i: int) -> gym.Env:
        self.progress[0] += 1
        self.progress[1] = i
        return self.envs[i]

    def reset(self, indices: Sequence[int], seeds: Sequence[int | None], options: Sequence[Any], full: bool) -> None:
        """Reset the envs of `indices`; `seeds` and `options` belong to them. `full`: start the infos anew."""
        infos = []
        for i, seed, env_options in zip(indices, seeds, options, strict=True):
            observation, info = self._enter(i).reset(seed=seed, options=env_options)
            self._observe(i, observation)
            infos.append(info)
        if full:
            self.infos.start(infos)
        else:
            for i, info in zip(indices, infos, strict=True):
                self.infos.write(i, info)
        rows = list(indices)
        self.rewards[rows], self.terminateds[rows], self.truncateds[rows] = 0.0, False, False

    def step(self, indices: Sequence[int], actions: Any) -> None:
        """Step the envs of `indices`; `actions[i]` is that of env i. The others get reward 0 and both flags False."""
        self.rewards[:], self.terminateds[:], self.truncateds[:] = 0.0, False, False
        for i in indices:
            observation, reward, terminated, truncated, info = self._enter(i).step(actions[i])
            self._observe(i, observation)
            self.rewards[i] = reward
            self.terminateds[i] = terminated
            self.truncateds[i] = truncated
            self.infos.write(i, info)

    def _observe(self, i: int, observation: Any) -> None:
        if self.in_place:
            _write(self.observations, i, observation)
        else:
            self.last[i] = observation

    def batch(self) -> Any:
        """The observations of all envs."""
        if not self.in_place:
            self.observations = concatenate(self._space, self.last, self.observations)
        return self.observations

    def call(self, indices: Sequence[int], name: str, arguments: Sequence[tuple[tuple, dict]]) -> list[Any]:
        """Call the method `name` of unwrapped envs, one (args, kwargs) each, or read the attribute."""
        results = []
        for i, (args, kwargs) in zip(indices, arguments, strict=True):
            member = getattr(self._enter(i).unwrapped, name)
            results.append(member(*args, **kwargs) if callable(member) else member)
        return results

    def get_attr(self, name: str) -> list[Any]:
        return [env.get_wrapper_attr(name) for env in self.envs]

    def set_attr(self, indices: Sequence[int], name: str, values: Sequence[Any]) -> None:
        for i, value in zip(indices, values, strict=True):
            self.envs[i].set_wrapper_attr(name, value)

    def has(self, name: str) -> bool:
        return all(hasattr(env.unwrapped, name) for env in self.envs)
