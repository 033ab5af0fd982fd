"""Discrete actions as one-hot blocks: what categorical CEM, PGD and random plans share.

A macro step of K env actions from MultiDiscrete([n_1 .. n_D]) has V = K * D variables, in the order of the env actions.
Models get them as one-hot blocks side by side, A = K * sum(n_d) numbers; plans are integers (n, H, V).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError


def is_discrete(action_space: gym.Space) -> bool:
    """Whether the actions of a (batched) space are choices; Gymnasium batches MultiDiscrete to a Box of integers."""
    if isinstance(action_space, gym.spaces.Box):
        return action_space.dtype is not None and np.issubdtype(action_space.dtype, np.integer)
    return isinstance(action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete)


@dataclass(frozen=True)
class Categories:
    """The variables of one macro step."""

    sizes: tuple[int, ...]  # choices of each of the V variables
    starts: tuple[int, ...]  # the env's number of each one's first choice

    @classmethod
    def of(cls, action_space: gym.Space, n_envs: int, action_block: int) -> Categories:
        """From the batched space of a pool: Discrete envs give MultiDiscrete (N,), MultiDiscrete ones a Box (N, D).

        A single Discrete or MultiDiscrete space is understood too. ContractError for other spaces.
        """
        if isinstance(action_space, gym.spaces.Discrete):
            sizes, starts = [int(action_space.n)], [int(action_space.start)]
        elif isinstance(action_space, gym.spaces.MultiDiscrete):
            is_batch = action_space.nvec.ndim > 1 or len(action_space.nvec) == n_envs
            sizes, starts = (
                np.atleast_1d(array[0] if is_batch else array).reshape(-1).tolist()
                for array in (action_space.nvec, action_space.start)
            )
        elif is_discrete(action_space):
            low, high = action_space.low[0].reshape(-1), action_space.high[0].reshape(-1)  # type: ignore[attr-defined]
            sizes, starts = (high - low + 1).tolist(), low.tolist()
        else:
            raise ContractError(f"action space {action_space}: expected Discrete or MultiDiscrete")
        return cls(tuple(sizes) * action_block, tuple(starts) * action_block)

    @property
    def variables(self) -> int:
        """V."""
        return len(self.sizes)

    @property
    def width(self) -> int:
        """A, the numbers of a one-hot macro step."""
        return sum(self.sizes)

    @property
    def largest(self) -> int:
        """Most choices of a variable, C; tables over all variables have this last axis."""
        return max(self.sizes)

    def mask(self, device: torch.device) -> torch.Tensor:
        """Which choices exist, bool (V, C)."""
        return torch.arange(self.largest, device=device) < torch.tensor(self.sizes, device=device)[:, None]

    def flat(self, table: torch.Tensor) -> torch.Tensor:
        """A table (..., V, C) as blocks side by side (..., A)."""
        if min(self.sizes) == self.largest:
            return table.flatten(-2)
        return table[..., self.mask(table.device)]

    def table(self, flat: torch.Tensor) -> torch.Tensor:
        """Blocks (..., A) as a table (..., V, C), 0 where there is no choice."""
        if min(self.sizes) == self.largest:
            return flat.unflatten(-1, (self.variables, self.largest))
        table = flat.new_zeros(*flat.shape[:-1], self.variables, self.largest)
        table[..., self.mask(flat.device)] = flat
        return table

    def one_hot(self, chosen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Choices (..., V), counted from 0, as a table (..., V, C)."""
        table = torch.zeros(*chosen.shape, self.largest, dtype=dtype, device=chosen.device)
        return table.scatter_(-1, chosen[..., None], 1.0)

    def env_actions(self, chosen: torch.Tensor) -> torch.Tensor:
        """Choices (..., V) counted from 0 as the env counts them."""
        return chosen + torch.tensor(self.starts, device=chosen.device)

    def choices(self, env_actions: torch.Tensor) -> torch.Tensor:
        """Choices counted from 0, int64 (..., V), from those of the env. ContractError outside of the space."""
        chosen = env_actions.round().long() - torch.tensor(self.starts, device=env_actions.device)
        if ((chosen < 0) | (chosen >= torch.tensor(self.sizes, device=chosen.device))).any():
            raise ContractError(f"discrete warm start outside of its space: expected below {self.sizes}")
        return chosen

    def uniform(self, numbers: torch.Tensor) -> torch.Tensor:
        """Uniform choices as the env counts them, int64 (..., V), from uniform numbers (..., V) in (0, 1)."""
        sizes = torch.tensor(self.sizes, device=numbers.device)
        return self.env_actions(torch.minimum((numbers * sizes).long(), sizes - 1))


def warm_table(categories: Categories, init: Any, horizon: int, n: int, device: torch.device) -> torch.Tensor:
    """Uniform probabilities (n, H, V, C), one-hot where the warm start (n, t, V) has a choice, t <= H."""
    mask = categories.mask(device)
    table = (mask / mask.sum(dim=1, keepdim=True)).expand(n, horizon, -1, -1).clone()
    if init is not None:
        init = torch.as_tensor(init)
        expected = (n, categories.variables)
        if init.ndim != 3 or (len(init), init.shape[2]) != expected or init.shape[1] > horizon:
            raise ContractError(
                f"init_action has shape {tuple(init.shape)}: expected ({n}, t, {categories.variables}) with "
                f"t <= {horizon}"
            )
        chosen = categories.choices(init.to(device))
        table[:, : init.shape[1]] = categories.one_hot(chosen, table.dtype)
    return table
