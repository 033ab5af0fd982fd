"""The spaces of a pool, of one env and of all, and the proof that its envs agree on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers import variation_space_of


class EnvSpaces(NamedTuple):
    """What a pool must know of one env."""

    observation: gym.Space
    action: gym.Space
    variation: gym.Space | None
    history_size: int  # T, the length of the time axis its infos have already, 1 if they have none

    @classmethod
    def of(cls, env: gym.Env) -> EnvSpaces:
        history_size = env.get_wrapper_attr("history_size") if env.has_wrapper_attr("history_size") else 1
        return cls(env.observation_space, env.action_space, variation_space_of(env), history_size)


class PoolSpaces:
    """The six spaces of a pool. ContractError if the envs differ in shape or dtype of observations or actions."""

    def __init__(self, envs: Sequence[EnvSpaces]):
        first, num_envs = envs[0], len(envs)
        for name in ("observation", "action"):
            layouts = [space_layout(getattr(env, name)) for env in envs]
            for index, layout in enumerate(layouts):
                if layout != layouts[0]:
                    raise ContractError(
                        f"{name}_space: env 0 has {layouts[0]}, env {index} has {layout}; they must agree"
                    )
        self.single_observation = first.observation
        self.single_action = first.action
        self.single_variation = first.variation
        self.observation = batch_space(first.observation, num_envs)
        self.action = batch_space(first.action, num_envs)
        has_all = all(env.variation is not None for env in envs)
        self.variation = batch_space(first.variation, num_envs) if has_all and first.variation is not None else None
        self.history_size = first.history_size


def space_layout(space: gym.Space) -> Any:
    """What two envs of a pool must share, comparable: kind, shape and dtype of every leaf."""
    if isinstance(space, gym.spaces.Dict):
        return {key: space_layout(child) for key, child in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(space_layout(child) for child in space.spaces)
    return type(space).__name__, space.shape, space.dtype


def is_array_space(space: gym.Space) -> bool:
    """Whether a batch of its elements is a NumPy array, or a tree of them."""
    if isinstance(space, gym.spaces.Dict):
        return all(is_array_space(child) for child in space.spaces.values())
    if isinstance(space, gym.spaces.Tuple):
        return all(is_array_space(child) for child in space.spaces)
    return isinstance(
        space, (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
    ) and np.dtype(space.dtype).kind in ("b", "i", "u", "f")
