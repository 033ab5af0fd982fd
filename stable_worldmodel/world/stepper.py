"""One policy driving one pool, a step at a time: the state every rollout and `World.step` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, PolicyNotSetError
from stable_worldmodel.pool import Pool
from stable_worldmodel.protocols import Info, Policy


class Stepper:
    """Keeps which envs are alive, what they last returned, and what the policy still has to be told.

    Envs that end stay frozen until they are reset; nothing is reset automatically.
    """

    def __init__(self, pool: Pool, log_episodes: bool = False, on_first_reset: Callable[[], None] | None = None):
        self.pool = pool
        self._on_first_reset = on_first_reset
        self.log_episodes = log_episodes
        self.policy: Policy | None = None
        self.states: Any = None
        self.rewards: Any = None  # arrays (N,) from the first reset on
        self.terminateds: Any = None
        self.truncateds: Any = None
        self.infos: Info = {}
        self.alive = np.zeros(pool.num_envs, bool)
        self._needs_flush = np.zeros(pool.num_envs, bool)

    @property
    def was_reset(self) -> bool:
        return self.rewards is not None

    def reset(self, seeds: Sequence[int | None], options: Any = None, mask: np.ndarray | None = None) -> None:
        """Start episodes in the envs of `mask` (default: all) and tell the policy which seeds they have.

        `seeds` and `options` have one entry per env of the pool; those outside the mask are ignored.
        """
        num_envs = self.pool.num_envs
        chosen = np.ones(num_envs, bool) if mask is None else mask
        self.states, self.infos = self.pool.reset(seed=list(seeds), options=options, mask=mask)
        first = not self.was_reset
        if first or mask is None:
            self.rewards = np.zeros(num_envs)
            self.terminateds = np.zeros(num_envs, bool)
            self.truncateds = np.zeros(num_envs, bool)
        for flags in (self.rewards, self.terminateds, self.truncateds):
            flags[chosen] = 0
        self.alive |= chosen
        self._needs_flush |= chosen
        self._announce(np.flatnonzero(chosen), seeds)
        if first and self._on_first_reset is not None:
            self._on_first_reset()

    def _announce(self, env_indices: np.ndarray, seeds: Sequence[int | None]) -> None:
        hook = getattr(self.policy, "reset", None)
        if not callable(hook):
            return
        given = [seeds[i] for i in env_indices]
        seeded = [i for i, seed in enumerate(given) if seed is not None]
        if len(seeded) == len(given):
            hook(env_indices, np.array(given, np.int64))
        elif not seeded:
            hook(env_indices, None)
        else:  # a mixture: announce the two kinds separately
            unseeded = np.setdiff1d(np.arange(len(given)), seeded)
            hook(env_indices[seeded], np.array([given[i] for i in seeded], np.int64))
            hook(env_indices[unseeded], None)

    def step(self, mask: np.ndarray | None = None) -> np.ndarray:
        """Ask the policy, step the live envs (those of `mask`, if given) and return the mask of envs stepped."""
        stepped = self.alive.copy() if mask is None else self.alive & mask
        actions = self._ask_policy(stepped)
        states, rewards, terminateds, truncateds, infos = self.pool.step(actions, mask=stepped)
        self.states, self.infos = states, infos
        self.rewards, self.terminateds, self.truncateds = rewards.copy(), terminateds.copy(), truncateds.copy()
        self.alive &= ~(terminateds | truncateds)
        return stepped

    def _ask_policy(self, acting: np.ndarray) -> np.ndarray:
        if self.policy is None:
            raise PolicyNotSetError("no policy is set; call world.set_policy(policy) first")
        # A shallow copy, so that a policy that edits its dict cannot corrupt the pool.
        info = {**self.infos, "_active": acting.copy()}
        if self._needs_flush.any():
            info["_needs_flush"] = self._needs_flush.copy()
            self._needs_flush[:] = False
        actions = np.asarray(self.policy.get_action(info))
        expected = self.pool.action_space.shape or (self.pool.num_envs,)
        if actions.shape != expected:
            raise ContractError(
                f"{type(self.policy).__name__}.get_action returned shape {actions.shape}: expected {expected}"
            )
        if actions.dtype.kind == "f":
            bad = acting & np.isnan(actions).reshape(len(actions), -1).any(axis=1)
            if bad.any():
                raise ContractError(
                    f"{type(self.policy).__name__}.get_action returned NaN for live envs {np.flatnonzero(bad).tolist()}"
                )
        return actions
