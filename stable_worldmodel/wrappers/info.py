"""Everything a step produces goes into `info`, and `info` is checked before anyone relies on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict
from stable_worldmodel.wrappers.base import Info, InfoWrapper, variation_space_of

INTEGER_ACTION_FILLER = np.iinfo(np.int64).min  # stands where no integer action was taken; floats use NaN


def action_filler(space: gym.Space) -> Any:
    """The placeholder of an action that was not taken: NaN of the action's shape, int64 minimum for integer spaces."""
    if isinstance(space, gym.spaces.Discrete):
        return np.int64(INTEGER_ACTION_FILLER)
    if not isinstance(space, (gym.spaces.Box, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)):
        raise ContractError(f"action space {space}: expected Box, Discrete, MultiDiscrete or MultiBinary")
    if np.issubdtype(space.dtype, np.floating):
        return np.full(space.shape, np.nan, space.dtype)
    return np.full(space.shape, INTEGER_ACTION_FILLER, np.int64)


class EverythingToInfoWrapper(InfoWrapper):
    """Lifts the whole transition into info.

    Adds `observation` (or the keys of a dict observation), `reward`, `terminated`, `truncated`, `action` (the one that
    led here), `step_idx`, `id` and `variation.<name>` for every factor this reset was asked to vary. At reset the
    reward is NaN and the action the filler of `action_filler`.

    Raises ContractError when the env's own info already has one of these keys.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._filler = action_filler(env.action_space)
        self._integer_actions = np.asarray(self._filler).dtype == np.int64
        self._float_dtype = None if self._integer_actions else env.action_space.dtype
        self._constants: Info = {}
        self._step_idx = 0

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        self._step_idx = 0
        self._constants = {"id": _episode_id(seed), **self._watched_factors(options or {})}
        self._lift(info, observation, self._filler, float("nan"), False, False)

    def amend_step(self, info: Info, observation, action, reward, terminated, truncated) -> None:
        self._step_idx += 1
        # A copy, because the caller may reuse its action buffer.
        taken = np.array(action, np.int64 if self._integer_actions else self._float_dtype)
        self._lift(info, observation, taken if taken.ndim else taken[()], float(reward), terminated, truncated)

    def _lift(self, info: Info, observation, action, reward: float, terminated, truncated) -> None:
        lifted = {
            "action": action,
            "reward": reward,
            "terminated": bool(terminated),
            "truncated": bool(truncated),
            "step_idx": self._step_idx,
            **self._constants,
        }
        seen = flatten_dict(observation) if isinstance(observation, Mapping) else {"observation": observation}
        _merge(info, seen, "the observation")
        _merge(info, lifted, "EverythingToInfoWrapper")

    def _watched_factors(self, options: Mapping) -> Info:
        names = [*(options.get("variation") or ()), *(options.get("variation_values") or {})]
        if not names:
            return {}
        space = variation_space_of(self.env)
        if space is None:
            raise ContractError(f"options ask to vary {names}, but {self.env.unwrapped} has no variation space")
        values = flatten_dict(space.value)
        watched = {
            leaf: value
            for leaf, value in values.items()
            if any(name == "all" or leaf == name or leaf.startswith(f"{name}.") for name in names)
        }
        return {f"variation.{leaf}": np.array(value) for leaf, value in watched.items()}


def _merge(info: Info, new: Info, source: str) -> None:
    clash = info.keys() & new.keys()
    if clash:
        raise ContractError(f"info keys {sorted(clash)} come both from the env's info and from {source}; rename one")
    info.update(new)


def _episode_id(seed: int | None) -> int:
    """A non-negative int64 that names the episode; a pure function of its seed, fresh entropy without one."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)


class EnsureInfoKeysWrapper(InfoWrapper):
    """Raises RuntimeError when a regular expression of `required_keys` fully matches no key of info."""

    def __init__(self, env: gym.Env, required_keys: Iterable[str]):
        super().__init__(env)
        self._patterns = [re.compile(pattern) for pattern in required_keys]
        self._checked: set[str] = set()

    def amend(self, info: Info) -> None:
        if info.keys() == self._checked:
            return
        missing = [p.pattern for p in self._patterns if not any(p.fullmatch(key) for key in info)]
        if missing:
            raise RuntimeError(f"no info key matches {missing}; keys present: {sorted(info)}")
        self._checked = set(info)


class EnsureGoalInfoWrapper(InfoWrapper):
    """Raises RuntimeError when info lacks `goal` after reset (`check_reset`) or after a step (`check_step`)."""

    def __init__(self, env: gym.Env, check_reset: bool, check_step: bool = False):
        super().__init__(env)
        self.check_reset = check_reset
        self.check_step = check_step

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        if self.check_reset and "goal" not in info:
            raise RuntimeError(f"{self.env.unwrapped} gave no 'goal' in info after reset; keys: {sorted(info)}")

    def amend_step(self, info: Info, observation, action, reward, terminated, truncated) -> None:
        if self.check_step and "goal" not in info:
            raise RuntimeError(f"{self.env.unwrapped} gave no 'goal' in info after a step; keys: {sorted(info)}")


class SteadyGoalWrapper(EnsureGoalInfoWrapper):
    """Requires `goal` at every reset and step if, and only if, the first reset of the env brought one."""

    def __init__(self, env: gym.Env):
        super().__init__(env, check_reset=False, check_step=False)
        self._first = True

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        if self._first:
            self.check_reset = self.check_step = "goal" in info
            self._first = False
        super().amend_reset(info, observation, seed, options)


class MapKeysWrapper(InfoWrapper):
    """Renames info keys by `key_map` (old -> new). A missing source raises KeyError, a taken target ContractError."""

    def __init__(self, env: gym.Env, key_map: Mapping[str, str]):
        super().__init__(env)
        self._key_map = dict(key_map)

    def amend(self, info: Info) -> None:
        missing = [old for old in self._key_map if old not in info]
        if missing:
            raise KeyError(f"cannot rename {missing}: not among the info keys {sorted(info)}")
        moved = {new: info.pop(old) for old, new in self._key_map.items()}
        _merge(info, moved, "MapKeysWrapper")
