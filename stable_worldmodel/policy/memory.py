"""What a planner needs not compute again: latents of a goal that stays, and of frames that were seen before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from stable_worldmodel.protocols import Info


class GoalMemory:
    """What encoding the goal of each of `n_envs` envs gave, while the goal stays the same."""

    def __init__(self, n_envs: int):
        self._known = np.zeros(n_envs, bool)
        self._seen: dict[str, np.ndarray] = {}  # raw goals (n_envs, ...)
        self._entries: dict[str, torch.Tensor] = {}  # (n_envs, ...), on the solver's device

    def forget(self, rows: np.ndarray) -> None:
        """The goals of these envs are about to change."""
        self._known[rows] = False

    def recall(self, info: Info, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The entries (n, ...) of these envs' goals; empty unless all of them are known and as they were."""
        goals = _raw_goals(info)
        if not self._known[rows].all() or goals.keys() != self._seen.keys():
            return {}
        if not all(np.array_equal(self._seen[key][rows], value) for key, value in goals.items()):
            return {}
        return {key: value[torch.from_numpy(rows).to(value.device)] for key, value in self._entries.items()}

    def remember(self, info: Info, rows: np.ndarray, entries: dict[str, torch.Tensor] | None) -> None:
        """Keep what encoding the goals of these envs gave; None if the solver does not tell."""
        if not entries:
            return
        goals = _raw_goals(info)
        if goals.keys() != self._seen.keys() or entries.keys() != self._entries.keys():
            self._seen = {
                key: np.zeros((len(self._known), *value.shape[1:]), value.dtype) for key, value in goals.items()
            }
            self._entries = {key: value.new_zeros(len(self._known), *value.shape[1:]) for key, value in entries.items()}
            self._known[:] = False
        for key, value in goals.items():
            self._seen[key][rows] = value
        for key, entry in entries.items():
            self._entries[key][torch.from_numpy(rows).to(entry.device)] = entry
        self._known[rows] = True


class LatentMemory:
    """The latents of the frames of each env's last context, up to `length` of them, where the solver returns them.

    One macro step of `action_block` env steps later the frames are the same, but for the oldest and a new one.
    """

    def __init__(self, n_envs: int, length: int, action_block: int):
        self._length = length
        self._action_block = action_block
        self._counts = np.zeros(n_envs, np.int64)
        self._ages = np.zeros(n_envs, np.int64)  # env steps since the context was the present
        self._emb: torch.Tensor | None = None  # (n_envs, length, ...), the newest last

    def forget(self, rows: np.ndarray) -> None:
        """These envs begin anew."""
        self._counts[rows] = 0

    def advance(self) -> None:
        """All envs have made a step."""
        self._ages += 1

    def holds(self, rows: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Whether the `count` (n,) frames before the present one are there, bool (n,); False for none."""
        return (count > 0) & (self._counts[rows] >= count) & (self._ages[rows] == self._action_block)

    def recall(self, rows: np.ndarray, count: int) -> torch.Tensor:
        """The latents (n, count, ...) of the last `count` frames of these envs, oldest first."""
        assert self._emb is not None  # `holds` said so
        return self._emb[torch.from_numpy(rows).to(self._emb.device), self._length - count :]

    def remember(self, rows: np.ndarray, entries: Mapping[str, torch.Tensor] | None) -> None:
        """Keep the `emb` (n, L, ...) of these envs' contexts; None if the solver does not tell."""
        if self._length == 1 or not entries:
            return
        emb = entries["emb"]
        if self._emb is None or self._emb.shape[2:] != emb.shape[2:]:
            self._emb = emb.new_zeros(len(self._counts), self._length, *emb.shape[2:])
            self._counts[:] = 0
        self._emb[torch.from_numpy(rows).to(emb.device), self._length - emb.shape[1] :] = emb
        self._counts[rows], self._ages[rows] = emb.shape[1], 0


def _raw_goals(info: Info) -> dict[str, np.ndarray]:
    return {
        key: value
        for key, value in info.items()
        if (key == "goal" or key.startswith("goal_")) and isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
