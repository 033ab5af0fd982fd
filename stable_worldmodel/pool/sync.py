"""Many envs as one, stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.arguments import mask_per_env, options_per_env, seeds_per_env
from stable_worldmodel.pool.buffers import InfoBuffer, common_value
from stable_worldmodel.wrappers import variation_space_of


class EnvPool:
    """A fixed set of envs with stacked infos. It never resets an env on its own.

    All returned arrays are live buffers that the next `reset` or `step` writes in place: copy what you keep.

    Args:
        env_fns: one zero-argument factory per env, each called once. If one fails, the envs built before it are
            closed. Envs must agree on the shape and dtype of their observation and action spaces (ContractError).
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]):
        if not env_fns:
            raise ContractError("env_fns is empty: expected at least one factory")
        self.envs: list[gym.Env] = []
        try:
            for make in env_fns:
                self.envs.append(make())
            self._set_spaces()
        except BaseException:
            self.close()
            raise
        self.seeds = np.full(self.num_envs, -1, np.int64)
        self._buffer = InfoBuffer(self.num_envs, stacked=self._history_size() > 1)
        self._observations: list[Any] = []
        self._rewards = np.zeros(self.num_envs, np.float64)
        self._terminateds = np.zeros(self.num_envs, bool)
        self._truncateds = np.zeros(self.num_envs, bool)

    def _set_spaces(self) -> None:
        for name in ("observation_space", "action_space"):
            common_value((_space_layout(getattr(env, name)) for env in self.envs), name)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._states: Any = create_empty_array(self.single_observation_space, self.num_envs)
        factors = [variation_space_of(env) for env in self.envs]
        self.single_variation_space = factors[0]
        has_all = all(space is not None for space in factors)
        self.variation_space = batch_space(factors[0], self.num_envs) if has_all else None

    def _history_size(self) -> int:
        env = self.envs[0]
        return env.get_wrapper_attr("history_size") if env.has_wrapper_attr("history_size") else 1

    @property
    def num_envs(self) -> int:
        return len(self.envs)

    @property
    def infos(self) -> dict[str, Any]:
        """The stacked infos (N, T, ...), a live view."""
        return self._buffer.data

    def reset(self, seed: Any = None, options: Any = None, mask: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset the envs of `mask` (all by default); the others keep their slots.

        Args:
            seed: an integer s (env i gets s + i), a sequence with one entry per env, or None.
            options: a mapping for all, or a sequence with one mapping or None per env.
            mask: bool (N,). The first reset must be full (RuntimeError).

        Returns:
            Batched observations without time axis, and the stacked infos.
        """
        seeds = seeds_per_env(seed, self.num_envs)
        env_options = options_per_env(options, self.num_envs)
        chosen = mask_per_env(mask, self.num_envs)
        if not self._observations and not chosen.all():
            raise RuntimeError("the first reset of a pool must be full; call reset() without a mask first")
        results = {
            i: self.envs[i].reset(seed=seeds[i], options=env_options[i]) for i in np.flatnonzero(chosen).tolist()
        }
        if chosen.all():
            self._observations = [results[i][0] for i in range(self.num_envs)]
            self._buffer.start([results[i][1] for i in range(self.num_envs)])
        else:
            for i, (observation, info) in results.items():
                self._observations[i] = observation
                self._buffer.write(i, info)
        for i in results:
            seed_of_env = seeds[i]
            self.seeds[i] = -1 if seed_of_env is None else seed_of_env
        self._rewards[chosen] = 0.0
        self._terminateds[chosen] = False
        self._truncateds[chosen] = False
        return self._batch(), self.infos

    def step(self, actions: Any, mask: Any = None) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the envs of `mask` (all by default) in index order.

        The others are frozen: they keep their slots and contribute reward 0 and both flags False.

        Args:
            actions: length N; entries of frozen envs are ignored.

        Returns:
            observations, rewards (N,) float64, terminateds (N,) bool, truncateds (N,) bool, infos.
        """
        if not self._observations:
            raise RuntimeError("step() before the first reset()")
        if len(actions) != self.num_envs:
            raise ContractError(f"actions has length {len(actions)}: expected one per env ({self.num_envs})")
        chosen = mask_per_env(mask, self.num_envs)
        self._rewards[:] = 0.0
        self._terminateds[:] = False
        self._truncateds[:] = False
        for i in np.flatnonzero(chosen).tolist():
            observation, reward, terminated, truncated, info = self.envs[i].step(actions[i])
            self._observations[i] = observation
            self._rewards[i] = reward
            self._terminateds[i] = terminated
            self._truncateds[i] = truncated
            self._buffer.write(i, info)
        return self._batch(), self._rewards, self._terminateds, self._truncateds, self.infos

    def _batch(self) -> Any:
        self._states = concatenate(self.single_observation_space, self._observations, self._states)
        return self._states

    def call(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the method `name` of every unwrapped env (or read the attribute); one result per env."""
        results = []
        for env in self.envs:
            member = getattr(env.unwrapped, name)
            results.append(member(*args, **kwargs) if callable(member) else member)
        return results

    def call_each(self, name: str, arguments: Sequence[dict[str, Any] | None]) -> list[Any]:
        """Call the method `name` of unwrapped env i with keyword arguments `arguments[i]`; None skips that env."""
        return [
            None if kwargs is None else getattr(env.unwrapped, name)(**kwargs)
            for env, kwargs in zip(self.envs, arguments, strict=True)
        ]

    def has(self, name: str) -> bool:
        """Whether every unwrapped env has a member `name`."""
        return all(hasattr(env.unwrapped, name) for env in self.envs)

    def close(self, **kwargs: Any) -> None:
        """Close every env, even if one raises; the first error is raised at the end. A second call does nothing."""
        envs, first_error = getattr(self, "_open", self.envs), None
        self._open: list[gym.Env] = []
        for env in envs:
            try:
                env.close(**kwargs)
            except Exception as error:  # the remaining envs must still be closed
                first_error = first_error or error
        if first_error is not None:
            raise first_error


def _space_layout(space: gym.Space) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _space_layout(child) for key, child in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_space_layout(child) for child in space.spaces)
    return type(space).__name__, space.shape, space.dtype
