"""Scripted policies: a weak one that plays around the block, and an expert that plans pushes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.pusht.physics import ACTION_SCALE, SIZE
from stable_worldmodel.envs.pusht.planner import Pusher
from stable_worldmodel.envs.scripted import ScriptedPolicy
from stable_worldmodel.errors import ContractError

_FAMILY = "swm/PushT"


class _PushTPolicy(ScriptedPolicy):
    """Turns targets in px into actions of the envs it drives: relative, absolute or bins."""

    discrete = False

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes. Raises ContractError for an env of another family."""
        super().set_env(env)
        for spec in self._call_envs("spec"):
            if spec is not None and _FAMILY not in spec.id:
                raise ContractError(f"{type(self).__name__} drives {_FAMILY} envs, found {spec.id!r}")
        self._relative = self._call_envs("relative")[0]
        self._quantizer = self._call_envs("quantizer")[0]
        self.discrete = self._quantizer is not None

    def _actions(self, obs: Mapping[str, Any], targets: np.ndarray) -> np.ndarray:
        """Continuous actions (N, 2) that aim at `targets`, cut to the action space."""
        if not self._relative:
            return np.clip(targets, 0, SIZE)
        return np.clip((targets - self._latest(obs, "pos_agent")) / ACTION_SCALE, -1.0, 1.0)

    def _shaped(self, obs: Mapping[str, Any], actions: np.ndarray) -> np.ndarray:
        shaped = self._quantizer.quantize(actions) if self.discrete else actions.astype(np.float32)
        return shaped if np.ndim(obs["pos_agent"]) > 1 else shaped[0]


class WeakPolicy(_PushTPolicy):
    """Heads for a random place within 100 px per axis, kept near the block: many contacts, and no goal.

    Args:
        dist_constraint: px per axis from the block's origin beyond which it never aims.
        seed: see ScriptedPolicy.
    """

    type = "weak"

    def __init__(self, dist_constraint: float = 100, seed: int | None = None):
        super().__init__(seed)
        if not dist_constraint > 0:
            raise ContractError(f"dist_constraint={dist_constraint}: expected > 0")
        self.dist_constraint = dist_constraint

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        block = self._latest(obs, "block_pose")[:, :2]
        steps = ACTION_SCALE * np.stack([stream.uniform(-1.0, 1.0, 2) for stream in self._streams])
        targets = self._latest(obs, "pos_agent") + steps
        targets = np.clip(targets, block - self.dist_constraint, block + self.dist_constraint)
        return self._shaped(obs, self._actions(obs, targets))


class ExpertPolicy(_PushTPolicy):
    """Pushes the block to its goal pose and then takes the agent to its goal. Reads `setup()` from the envs.

    It tries many short pushes in a simulation of its own, carries out the best one, and plans again. See `planner.py`.

    Args:
        action_noise: standard deviation of Gaussian noise in units of the action space (100 px, or 1 px for absolute
            actions) added to both components before cutting them to the action space.
        action_repeat_prob: probability of repeating the env's previous action, never across episodes.
        seed: see ScriptedPolicy.
    """

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
        self._pushers: list[Pusher | None] = [None] * self.num_envs
        self._previous: list[np.ndarray | None] = [None] * self.num_envs

    def _start_episodes(self, indices: np.ndarray) -> None:
        setups = self._call_envs("setup")
        for i in indices:
            pusher = self._pushers[i]
            # Its tables depend on the setup alone; without step numbers every call counts as a start.
            if pusher is None or pusher.setup != setups[i] or self._told:
                self._pushers[i] = Pusher(setups[i])
                self._previous[i] = None

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        agents, velocities, blocks, goals = (
            self._latest(obs, key).astype(np.float64) for key in ("pos_agent", "vel_agent", "block_pose", "goal_state")
        )
        rows = zip(self._pushers, agents, velocities, blocks, goals, strict=True)
        targets = np.stack([pusher.target(*row) for pusher, *row in rows if pusher is not None])
        actions = self._actions(obs, targets)
        if self.action_noise:
            actions += self.action_noise * np.stack([stream.standard_normal(2) for stream in self._streams])
            low, high = (-1.0, 1.0) if self._relative else (0.0, SIZE)
            actions = np.clip(actions, low, high)
        if self.action_repeat_prob:
            for i, stream in enumerate(self._streams):
                previous = self._previous[i]
                if stream.random() < self.action_repeat_prob and previous is not None:
                    actions[i] = previous
                self._previous[i] = actions[i].copy()
        return self._shaped(obs, actions)
