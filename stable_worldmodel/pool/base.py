"""What every pool does, whoever steps its envs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.arguments import mask_per_env, options_per_env, seeds_per_env
from stable_worldmodel.pool.spaces import PoolSpaces

Transition = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class Pool(ABC):
    """A fixed set of envs with stacked infos. It never resets an env on its own.

    All returned arrays are live buffers that the next `reset` or `step` writes in place: copy what you keep.
    """

    seeds: np.ndarray  # int64 (N,): the seed each env was last reset with, -1 if none
    resets_singly: bool = True  # whether `reset` takes a mask; if not, episodes start together
    _was_reset = False

    @property
    @abstractmethod
    def num_envs(self) -> int: ...

    @property
    @abstractmethod
    def infos(self) -> dict[str, Any]:
        """The stacked infos (N, T, ...), a live view; empty before the first reset."""

    @property
    @abstractmethod
    def spaces(self) -> PoolSpaces:
        """All spaces of the pool."""

    observation_space = property(lambda self: self.spaces.observation, doc="Batched observation space.")
    action_space = property(lambda self: self.spaces.action, doc="Batched action space.")
    variation_space = property(lambda self: self.spaces.variation, doc="Batched factors of variation, or None.")
    single_observation_space = property(lambda self: self.spaces.single_observation, doc="Of env 0.")
    single_action_space = property(lambda self: self.spaces.single_action, doc="Of env 0.")
    single_variation_space = property(lambda self: self.spaces.single_variation, doc="Of env 0, or None.")

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
        if not self._was_reset and not chosen.all():
            raise RuntimeError("the first reset of a pool must be full; call reset() without a mask first")
        indices = np.flatnonzero(chosen).tolist()
        if indices:
            self.seeds[indices] = [-1 if seeds[i] is None else seeds[i] for i in indices]
            observations = self._reset(indices, [seeds[i] for i in indices], [env_options[i] for i in indices])
            self._was_reset = True
        else:
            observations = self._observations()
        return observations, self.infos

    def step(self, actions: Any, mask: Any = None) -> Transition:
        """Step the envs of `mask` (all by default).

        The others are frozen: they keep their slots and contribute reward 0 and both flags False.

        Args:
            actions: length N, cast to the dtype of the action space; entries of frozen envs are ignored.

        Returns:
            observations, rewards (N,) float64, terminateds (N,) bool, truncateds (N,) bool, infos.
        """
        if not self._was_reset:
            raise RuntimeError("step() before the first reset()")
        if len(actions) != self.num_envs:
            raise ContractError(f"actions has length {len(actions)}: expected one per env ({self.num_envs})")
        if self.action_space.shape is not None:
            actions = _cast(actions, self.action_space.dtype)
        return self._step(np.flatnonzero(mask_per_env(mask, self.num_envs)).tolist(), actions)

    def call(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the method `name` of every unwrapped env (or read the attribute); one result per env."""
        return self._call(list(range(self.num_envs)), name, [(args, kwargs)] * self.num_envs)

    def call_each(self, name: str, arguments: Sequence[dict[str, Any] | None]) -> list[Any]:
        """Call the method `name` of unwrapped env i with keyword arguments `arguments[i]`; None skips that env."""
        if len(arguments) != self.num_envs:
            raise ContractError(f"arguments has {len(arguments)} entries: expected one per env ({self.num_envs})")
        indices = [i for i, kwargs in enumerate(arguments) if kwargs is not None]
        results: list[Any] = [None] * self.num_envs
        found = self._call(indices, name, [((), arguments[i] or {}) for i in indices])
        for i, result in zip(indices, found, strict=True):
            results[i] = result
        return results

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute where it is defined, on a wrapper or the env; a list or tuple holds one value per env."""
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ContractError(f"values has {len(values)} entries: expected one per env ({self.num_envs})")
        self._set_attr(name, list(values))

    @abstractmethod
    def get_attr(self, name: str) -> list[Any]:
        """The attribute `name` of every env, from the outermost wrapper that has it."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether every unwrapped env has a member `name`."""

    @abstractmethod
    def close(self, **kwargs: Any) -> None:
        """Close every env, even if one raises; the first error is raised at the end. A second call does nothing."""

    @abstractmethod
    def _reset(self, indices: list[int], seeds: list[int | None], options: list[Any]) -> Any: ...

    @abstractmethod
    def _step(self, indices: list[int], actions: Any) -> Transition: ...

    @abstractmethod
    def _observations(self) -> Any: ...

    @abstractmethod
    def _call(self, indices: list[int], name: str, arguments: list[tuple[tuple, dict]]) -> list[Any]: ...

    @abstractmethod
    def _set_attr(self, name: str, values: list[Any]) -> None: ...


def _cast(actions: Any, dtype: Any) -> np.ndarray:
    """Actions in the dtype of their space, so that an env computes with the same numbers wherever it runs."""
    array = np.asarray(actions)
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "f" and np.dtype(dtype).kind in "iub":
        array = np.nan_to_num(array)  # entries of frozen envs
    return array.astype(dtype)
