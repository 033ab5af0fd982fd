"""Gymnasium's vector envs with a batched variation space, and with seeds and options per env.

World uses EnvPool instead; these are for code that is written against `gymnasium.vector`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector.utils import batch_differing_spaces, batch_space, concatenate, create_empty_array, iterate

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers.base import variation_space_of


class VariationWrapper(gym.vector.VectorWrapper):
    """Adds the variation space of the sub-envs to a vector env.

    Attributes:
        envs: the sub-envs.
        single_variation_space: that of the first sub-env; None when any sub-env has none.
        variation_space: its batched form, or None likewise.

    Args:
        env: a vector env that holds its sub-envs in this process, such as SyncVectorEnv.
        variation_mode: 'same' batches the first space, 'different' batches all, so that bounds may differ; a
            Gymnasium space is taken as the batched one.

    Raises:
        ContractError: the spaces differ in structure, shape or dtype ('same', 'different'), the mode is unknown, or
            the sub-envs cannot be reached.
    """

    def __init__(self, env: gym.vector.VectorEnv, variation_mode: str | gym.Space = "same"):
        super().__init__(env)
        known = isinstance(variation_mode, gym.Space) or variation_mode in ("same", "different")
        if not known:
            raise ContractError(f"variation_mode={variation_mode!r}: expected 'same', 'different' or a space")
        if not hasattr(env.unwrapped, "envs"):
            raise ContractError(f"{env.unwrapped} has no `envs`: expected a vector env like SyncVectorEnv")
        self.variation_mode = variation_mode
        self.single_variation_space: gym.Space | None = None
        self.variation_space: gym.Space | None = None
        spaces = [variation_space_of(sub) for sub in self.envs]
        if any(space is None for space in spaces):
            return
        self.single_variation_space = spaces[0]
        self.variation_space = _batched(spaces, variation_mode)

    @property
    def envs(self) -> list[gym.Env]:
        """The sub-envs."""
        return self.env.unwrapped.envs  # type: ignore[attr-defined]


def _batched(spaces: list[gym.Space], mode: str | gym.Space) -> gym.Space:
    if isinstance(mode, gym.Space):
        return mode
    for i, space in enumerate(spaces):
        if not is_space_dtype_shape_equiv(spaces[0], space):
            raise ContractError(
                f"variation spaces differ in structure, shape or dtype: env 0 has {spaces[0]}, env {i} has {space}; "
                "pass the batched space as variation_mode"
            )
    return batch_space(spaces[0], len(spaces)) if mode == "same" else _batch_differing(spaces)


def _batch_differing(spaces: list[Any]) -> gym.Space:
    """Gymnasium's function of that name, for subclasses of its spaces too; it refuses those."""
    first = spaces[0]
    if isinstance(first, gym.spaces.Dict):
        children = [(key, _batch_differing([space[key] for space in spaces])) for key in first.spaces]
        return gym.spaces.Dict(children)
    if isinstance(first, gym.spaces.Tuple):
        return gym.spaces.Tuple(
            _batch_differing(list(items)) for items in zip(*(s.spaces for s in spaces), strict=True)
        )
    return batch_differing_spaces.dispatch(type(first))(spaces)


class SyncWorld(gym.vector.SyncVectorEnv):
    """A synchronous vector env that takes seeds and options per env and never resets an env on its own.

    Args:
        env_fns: one factory per env, at least one (ContractError).
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]):
        if not env_fns:
            raise ContractError("env_fns is empty: expected at least one factory")
        super().__init__(env_fns)
        modes = getattr(gym.vector, "AutoresetMode", None)  # Gymnasium 1.0 has none
        if modes is not None:
            self.autoreset_mode = self.metadata["autoreset_mode"] = modes.DISABLED
        self._last: list[Any] = [None] * self.num_envs
        self._ended = np.zeros(self.num_envs, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset the envs and return batched observations and infos.

        Args:
            seed: an integer s (env i gets s + i), one integer or None per env, or None.
            options: a mapping for all envs, one mapping or None per env, or None; every env gets a copy of its own. As
                in Gymnasium, a mapping for all may have `reset_mask`, bool (N,): the others keep their state.

        Raises:
            ContractError: a list has another length than there are envs, or a seed or mask is not one. The first
                reset must be full.
        """
        mask, per_env = self._split_options(options)
        seeds = self._split_seeds(seed)
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask).tolist():
            self._last[i], info = self.envs[i].reset(seed=seeds[i], options=copy.deepcopy(per_env[i]))
            infos = self._add_info(infos, info, i)
        self._ended[mask] = False
        return self._batch(), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every env; RuntimeError if one has ended, or was not reset yet."""
        if any(observation is None for observation in self._last):
            raise RuntimeError("step() before the first reset()")
        if self._ended.any():
            raise RuntimeError(f"envs {np.flatnonzero(self._ended).tolist()} have ended; reset them before stepping on")
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        for i, action in enumerate(iterate(self.action_space, actions)):
            self._last[i], rewards[i], terminated[i], truncated[i], info = self.envs[i].step(action)
            infos = self._add_info(infos, info, i)
        self._ended = terminated | truncated
        return self._batch(), rewards, terminated, truncated, infos

    def _batch(self) -> Any:
        empty: Any = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, self._last, empty)

    def _split_seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, Integral) and not isinstance(seed, bool):
            seed = [seed + i for i in range(self.num_envs)]
        self._check_length(seed, "seed")
        wrong = [s for s in seed if s is not None and (isinstance(s, bool) or not isinstance(s, Integral) or s < 0)]
        if wrong:
            raise ContractError(f"seed {wrong[0]!r}: expected a non-negative integer or None")
        return [None if s is None else int(s) for s in seed]

    def _split_options(self, options: Any) -> tuple[np.ndarray, list[Any]]:
        """Which envs to reset, and the options of each."""
        everyone = np.ones(self.num_envs, bool)
        if options is None or isinstance(options, Mapping):
            rest = None if options is None else {key: options[key] for key in options if key != "reset_mask"}
            mask = np.asarray((options or {}).get("reset_mask", everyone))
            if mask.dtype != bool or mask.shape != (self.num_envs,):
                raise ContractError(f"reset_mask: expected bool ({self.num_envs},), found {mask.dtype} {mask.shape}")
            if not mask.all() and any(observation is None for observation in self._last):
                raise ContractError("the first reset must be full: leave reset_mask out")
            return mask, [rest] * self.num_envs
        self._check_length(options, "options")
        if not all(item is None or isinstance(item, Mapping) for item in options):
            raise ContractError(f"options={options!r}: expected a mapping or None for every env")
        return everyone, list(options)

    def _check_length(self, values: Any, name: str) -> None:
        if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str) or len(values) != self.num_envs:
            raise ContractError(f"{name}={values!r}: expected one entry per env ({self.num_envs})")
