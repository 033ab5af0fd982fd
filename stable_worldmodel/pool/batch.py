"""Envs that know how to step together: one NumPy program instead of one env after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from stable_worldmodel.pool.base import Transition
from stable_worldmodel.pool.sync import EnvPool
from stable_worldmodel.wrappers import MegaWrapper
from stable_worldmodel.wrappers.images import AddPixelsWrapper, ImageFormat, ResizeGoalWrapper
from stable_worldmodel.wrappers.info import EnsureInfoKeysWrapper, EverythingToInfoWrapper, SteadyGoalWrapper

_PLAIN = (OrderEnforcing, MegaWrapper, EverythingToInfoWrapper, EnsureInfoKeysWrapper, SteadyGoalWrapper)


class BatchPool(EnvPool):
    """The in-process pool of envs that `can_batch` accepts; its results are those of EnvPool, to the last bit.

    Episodes start in the envs, through all their wrappers. Steps go past them: the envs' own batch moves and draws
    them, and what the wrappers would add to the infos is written here.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]]):
        super().__init__(env_fns)
        self._batch = self.envs[0].unwrapped.batched([env.unwrapped for env in self.envs])  # type: ignore[attr-defined]
        self._limits = np.array([_limit(env) for env in self.envs])
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._draws = any(isinstance(layer, AddPixelsWrapper) for layer in _layers(self.envs[0]))

    def _reset(self, indices: list[int], seeds: list[int | None], options: list[Any]) -> Any:
        self._lengths[indices] = 0
        return super()._reset(indices, seeds, options)

    def _step(self, indices: list[int], actions: Any) -> Transition:
        slots, batch, full = self._slots, self._batch, len(indices) == self.num_envs
        rows = slice(None) if full else np.array(indices, int)
        moved = batch.step(actions, rows)
        self._lengths[rows] += 1
        for flags in (slots.rewards, slots.terminateds, slots.truncateds):
            flags[:] = 0
        slots.rewards[rows] = moved.rewards[rows]
        slots.terminateds[rows] = moved.terminateds[rows]
        slots.truncateds[rows] = (moved.truncateds | (self._lengths >= self._limits))[rows]
        observed = batch.observations if isinstance(batch.observations, dict) else {"observation": batch.observations}
        for key, value in observed.items():
            into = slots.observations[key] if isinstance(slots.observations, dict) else slots.observations
            into[rows] = value[rows]
        data = self.infos
        lifted = {
            "action": actions,
            "reward": slots.rewards,
            "terminated": slots.terminateds,
            "truncated": slots.truncateds,
            "step_idx": self._lengths,
        }
        # All keys, not only those that changed: whoever reads infos may have written into them.
        for key, value in {**batch.infos, **observed, **lifted}.items():
            column = data[key]
            if isinstance(column, list):
                for i in indices:
                    column[i] = value[i]
            else:
                column[rows, 0] = value[rows]
        if self._draws:
            start = time.perf_counter()
            batch.draw(data["pixels"][:, 0], rows)
            data["render_time"][rows, 0] = (time.perf_counter() - start) / max(len(indices), 1)
        return slots.batch(), slots.rewards, slots.terminateds, slots.truncateds, data


def can_batch(env: gym.Env) -> bool:
    """Whether copies of this env can be stepped together: it knows how to, and is in nothing but standard wrappers."""
    layers = list(_layers(env))
    if env.render_mode == "human":  # drawing is then more than filling an array
        return False
    return hasattr(env.unwrapped, "batched") and all(map(_is_plain, layers)) and MegaWrapper in map(type, layers)


def _layers(env: gym.Env) -> Any:
    """The wrappers of an env, outermost first."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env


def _is_plain(layer: Any) -> bool:
    """Whether a wrapper does only what a BatchPool does too."""
    if isinstance(layer, (AddPixelsWrapper, ResizeGoalWrapper)):
        base = layer.unwrapped
        return type(layer) in (AddPixelsWrapper, ResizeGoalWrapper) and _leaves_alone(layer._format, base)
    return type(layer) in (*_PLAIN, TimeLimit)


def _leaves_alone(form: ImageFormat, env: Any) -> bool:
    """Whether pictures of this env have the form already."""
    return form.transform is None and form.channels in (None, 3) and env.render_shape == (form.height, form.width)


def _limit(env: gym.Env) -> float:
    limits = [layer._max_episode_steps for layer in _layers(env) if isinstance(layer, TimeLimit)]
    return min(limits, default=float("inf"))
