"""Actions, observations, rewards and flags of a pool in shared memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import create_empty_array

from stable_worldmodel.pool.memory import SharedArrays
from stable_worldmodel.pool.spaces import is_array_space


class Rows(NamedTuple):
    """The arrays of consecutive envs. `actions` and `observations` are None where their space is not of arrays."""

    actions: np.ndarray | None
    observations: Any
    rewards: np.ndarray
    terminateds: np.ndarray
    truncateds: np.ndarray


class Transitions:
    """What goes back and forth at every step.

    Args:
        action_space, observation_space: of one env.
        num_envs: N.
        workers: W; `progress` (W, 2) int64 holds a counter of env calls and the env called last of each.
        descriptor: of the memory another process made, None to make it.
    """

    def __init__(
        self,
        action_space: gym.Space,
        observation_space: gym.Space,
        num_envs: int,
        workers: int,
        descriptor: int | None = None,
    ):
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "progress": ((workers, 2), np.int64),
            "rewards": ((num_envs,), np.float64),
            "terminateds": ((num_envs,), bool),
            "truncateds": ((num_envs,), bool),
        }
        if action_space.shape is not None and is_array_space(action_space):
            shapes["actions"] = ((num_envs, *action_space.shape), action_space.dtype)
        leaves: list[str] = []
        if is_array_space(observation_space):
            leaves = _add_leaves(shapes, observation_space, num_envs)
        self.memory = SharedArrays(shapes, descriptor)
        arrays = self.memory.arrays
        self.progress = arrays["progress"]
        observations = None
        if leaves:
            in_order = iter(leaves)
            observations = create_empty_array(observation_space, num_envs, lambda *_, **__: arrays[next(in_order)])
        self.all = Rows(
            arrays.get("actions"), observations, arrays["rewards"], arrays["terminateds"], arrays["truncateds"]
        )

    def rows(self, rows: slice) -> Rows:
        """The part that belongs to the envs of one worker."""
        return Rows(*(_slice(value, rows) for value in self.all))


def _add_leaves(shapes: dict[str, Any], space: gym.Space, num_envs: int) -> list[str]:
    """Add the arrays of a batch of `space`, in the order in which Gymnasium creates them; return their names."""
    names: list[str] = []

    def note(shape: Any, dtype: Any) -> None:
        names.append(f"observation {len(names)}")
        shapes[names[-1]] = (shape, dtype)

    create_empty_array(space, num_envs, note)
    return names


def _slice(value: Any, rows: slice) -> Any:
    if isinstance(value, dict):
        return {key: _slice(child, rows) for key, child in value.items()}
    if isinstance(value, tuple):
        return tuple(_slice(child, rows) for child in value)
    return None if value is None else value[rows]
