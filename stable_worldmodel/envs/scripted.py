"""What all scripted experts share: their envs, a random stream per episode, and knowing when an episode starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError


class ScriptedPolicy:
    """A policy that reads the state of the simulators it drives.

    It drives a pool (anything with `call(name) -> list`, or a list `envs`) or a single env. Subclasses define
    `_act(obs)` and `_start_episodes(indices)`.

    An episode starts where `reset` says so. If nobody calls `reset`, it starts where `obs["step_idx"]` is 0; without
    that key every call counts as a start, so that what is read from the envs is never stale.

    Args:
        seed: seed of the noise. An episode with a seed draws from its own stream, keyed by (this seed or 0, episode
            seed), so its actions do not depend on the envs beside it. Other episodes draw from one stream per env,
            derived from this seed (None: from entropy).
    """

    type = "expert"

    def __init__(self, seed: int | None = None):
        self.env: Any = None
        self.seed = seed
        self.num_envs = 0
        self._streams: list[np.random.Generator] = []
        self._starting = np.zeros(0, bool)
        self._told = False  # whether `reset` announces the episodes

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        self.env = env
        self.num_envs = len(env.envs) if hasattr(env, "envs") else getattr(env, "num_envs", 1)
        self._told = False
        self._starting = np.ones(self.num_envs, bool)
        self.set_seed(self.seed)

    def set_seed(self, seed: int | None) -> None:
        """Restart the streams of episodes without a seed, and key those that start from now on with `seed`."""
        self.seed = seed
        self._streams = list(np.random.default_rng(seed).spawn(self.num_envs))

    def reset(self, env_indices: Sequence[int], episode_seeds: Sequence[int] | None = None) -> None:
        """Announce that these envs start an episode; call it before their first `get_action`."""
        self._check_attached()
        self._told = True
        self._starting[np.asarray(env_indices, int)] = True
        if episode_seeds is None:
            return
        if len(env_indices) != len(episode_seeds):
            raise ContractError(f"{len(env_indices)} env_indices, {len(episode_seeds)} episode_seeds: expected as many")
        for index, episode_seed in zip(env_indices, episode_seeds, strict=True):
            self._streams[index] = np.random.default_rng([self.seed or 0, int(episode_seed)])

    def get_action(self, obs: Mapping[str, Any], goal_obs: Any = None, **kwargs: Any) -> np.ndarray:
        """Return actions (N, A) float32 for infos stacked to (N, T, ...) or (N, ...); (A,) for one env's own info.

        `goal_obs` is accepted for policies that take a separate goal observation, and not used.
        """
        self._check_attached()
        if not self._told:
            self._starting |= self._latest(obs, "step_idx", 0) == 0 if "step_idx" in obs else True
        if self._starting.any():
            self._start_episodes(np.flatnonzero(self._starting))
            self._starting[:] = False
        return self._act(obs)

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not define _act")

    def _start_episodes(self, indices: np.ndarray) -> None:
        """Forget the last episode of the envs `indices` and read what is fixed during the new one."""

    def _call_envs(self, name: str) -> list[Any]:
        """The result of the unwrapped envs' method `name` (or its value, if an attribute), one per env."""
        if hasattr(self.env, "call"):
            return list(self.env.call(name))
        members = [getattr(env.unwrapped, name) for env in getattr(self.env, "envs", [self.env])]
        return [member() if callable(member) else member for member in members]

    def _latest(self, obs: Mapping[str, Any], key: str, ndim: int = 1) -> np.ndarray:
        """The newest value of `key` per env: (N, ...) with `ndim` axes after the first."""
        if key not in obs:
            raise MissingKeyError(f"{type(self).__name__} needs {key!r} in info; it has {sorted(obs)}")
        value = np.asarray(obs[key])
        if value.ndim == ndim + 2:
            value = value[:, -1]
        elif value.ndim == ndim:
            value = value[None]
        if value.ndim != ndim + 1 or len(value) != self.num_envs:
            raise ContractError(
                f"info[{key!r}] has shape {np.shape(obs[key])}: expected ({self.num_envs}, T, ...) or "
                f"({self.num_envs}, ...), one entry per env"
            )
        return value

    def _check_attached(self) -> None:
        if self.env is None:
            raise RuntimeError(f"{type(self).__name__} has no env; call set_env(pool) first (World.set_policy does)")


class NoisyPolicy(ScriptedPolicy):
    """A scripted policy with continuous actions and two kinds of noise. Subclasses define `_intended(obs)`.

    Args:
        action_noise: standard deviation of Gaussian noise added to every component before clipping to the bounds.
        action_repeat_prob: probability of repeating the env's previous action, never across episodes.
        seed: see ScriptedPolicy.
    """

    limit = 1.0  # actions lie in [-limit, limit]
    _action_dim = 2

    def __init__(self, action_noise: float = 0.0, action_repeat_prob: float = 0.0, seed: int | None = None):
        super().__init__(seed)
        if action_noise < 0:
            raise ContractError(f"action_noise={action_noise}: expected >= 0")
        if not 0 <= action_repeat_prob <= 1:
            raise ContractError(f"action_repeat_prob={action_repeat_prob}: expected a probability")
        self.action_noise = action_noise
        self.action_repeat_prob = action_repeat_prob

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        self._previous = np.zeros((self.num_envs, self._action_dim), np.float32)
        self._has_previous = np.zeros(self.num_envs, bool)

    def _start_episodes(self, indices: np.ndarray) -> None:
        self._has_previous[indices] = False

    def _intended(self, obs: Mapping[str, Any]) -> np.ndarray:
        """The actions before noise, (N, A) float64."""
        raise NotImplementedError(f"{type(self).__name__} does not define _intended")

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        actions = self._intended(obs)
        if self.action_noise:
            noise = [stream.standard_normal(self._action_dim) for stream in self._streams]
            actions = actions + self.action_noise * np.stack(noise)
        actions = np.clip(actions, -self.limit, self.limit).astype(np.float32)
        if self.action_repeat_prob:
            actions = self._repeat(actions)
        return actions if np.ndim(obs["state"]) > 1 else actions[0]

    def _repeat(self, actions: np.ndarray) -> np.ndarray:
        """Put back the previous action where an env's stream says so, and remember what was chosen."""
        drawn = np.array([stream.random() for stream in self._streams]) < self.action_repeat_prob
        actions = np.where((drawn & self._has_previous)[:, None], self._previous, actions)
        self._previous = actions
        self._has_previous[:] = True
        return actions.copy()
