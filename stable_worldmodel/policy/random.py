"""Uniformly random actions, a function of the episode."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector.utils import batch_space

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy.base import BasePolicy

_BLOCK = 64  # actions drawn at once per episode; part of the stream's definition, so changing it changes datasets


class RandomPolicy(BasePolicy):
    """Samples the action space.

    An env whose episode has a seed draws from its own stream, keyed by (policy seed, episode seed), so its actions do
    not depend on the number of envs or on those beside it. Other envs draw from the batched action space: the policy's
    own seeded copy, or without a seed the pool's.

    Args:
        seed: the policy's seed. None counts as 0 in the key of an episode's stream.
    """

    type = "random"

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed

    def set_env(self, env: Any) -> None:
        """Attach a pool and forget all episodes. Its actions must be arrays (ContractError)."""
        if env.action_space.shape is None:
            raise ContractError(f"RandomPolicy draws arrays: expected an action space with a shape, {env.action_space}")
        super().set_env(env)
        self._space = env.action_space
        self._streamed = np.zeros(env.num_envs, bool)
        self._streams: list[Any] = [None] * env.num_envs  # per env: a seeded space of _BLOCK actions
        self._blocks = np.zeros((env.num_envs, _BLOCK, *env.action_space.shape[1:]), env.action_space.dtype)
        self._cursor = np.full(env.num_envs, _BLOCK)
        if self.seed is not None:
            self.set_seed(self.seed)

    def set_seed(self, seed: int | None) -> None:
        """Store the seed and, with a pool attached, restart the batched space with it."""
        self.seed = seed
        if self.env is not None and seed is not None:
            # A copy, because two policies on one pool must not advance each other.
            self._space = copy.deepcopy(self.env.action_space)
            self._space.seed(seed)

    def reset(self, env_indices: Sequence[int], episode_seeds: Sequence[int] | None) -> None:
        """Start the streams of envs that begin an episode; `episode_seeds` None means the episodes have no seed."""
        env = self._attached_env()
        self._streamed[env_indices] = episode_seeds is not None
        if episode_seeds is None:
            return
        if len(env_indices) != len(episode_seeds):
            raise ContractError(f"{len(env_indices)} env_indices, {len(episode_seeds)} episode_seeds: expected as many")
        for index, episode_seed in zip(env_indices, episode_seeds, strict=True):
            space = batch_space(env.single_action_space, _BLOCK)
            space.seed(_stream_seed(self.seed or 0, int(episode_seed)))
            self._streams[index] = space
            self._cursor[index] = _BLOCK

    def get_action(self, obs: Any, **kwargs: Any) -> np.ndarray:
        """Return random actions (N, *action_shape); RuntimeError before `set_env`."""
        self._attached_env()
        for index in np.flatnonzero(self._streamed & (self._cursor == _BLOCK)):
            self._blocks[index] = self._streams[index].sample()
            self._cursor[index] = 0
        rows = np.flatnonzero(self._streamed)
        drawn = self._blocks[rows, self._cursor[rows]]
        self._cursor[rows] += 1
        if len(rows) == len(self._streamed):
            return drawn
        actions = self._space.sample()
        actions[rows] = drawn
        return actions


def _stream_seed(policy_seed: int, episode_seed: int) -> int:
    """One seed from two, without the collisions of adding them."""
    low, high = np.random.SeedSequence([policy_seed, episode_seed]).generate_state(2)
    return int(low) | int(high) << 32
