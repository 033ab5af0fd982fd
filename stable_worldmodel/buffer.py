"""The recent past of every env, for policies whose model looks back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError


class HistoryBuffer:
    """One ring of the last `max_len` entries per env, read at a stride of `action_block`.

    Args:
        n_envs: number of envs.
        max_len: entries kept per env.
        action_block: stride K at which entries are read, in env steps.
        block_keys: keys of which every entry counts, e.g. actions: they are read as blocks of K entries.
    """

    def __init__(self, n_envs: int, max_len: int, action_block: int = 1, block_keys: Iterable[str] = ()):
        for name, value in (("n_envs", n_envs), ("max_len", max_len), ("action_block", action_block)):
            if value < 1:
                raise ContractError(f"{name}={value}: expected >= 1")
        self.n_envs = n_envs
        self.max_len = max_len
        self.action_block = action_block
        self.block_keys = frozenset(block_keys)
        self._rings: dict[str, np.ndarray] = {}  # key -> (n_envs, max_len, ...)
        self._counts = np.zeros(n_envs, np.int64)  # entries appended since the last reset

    def __len__(self) -> int:
        """Entries held by the env that holds fewest."""
        return int(self._fill().min())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Store a copy of one value per env and key: arrays or CPU tensors (n_envs, ...), the same keys every time."""
        values = {key: np.asarray(value) for key, value in entry.items()}
        if self._rings and values.keys() != self._rings.keys():
            raise ContractError(f"entry has keys {sorted(values)}: expected {sorted(self._rings)}")
        for key, value in values.items():
            ring = self._rings.get(key)
            expected = (self.n_envs, *value.shape[1:]) if ring is None else (self.n_envs, *ring.shape[2:])
            if value.shape != expected:
                raise ContractError(f"{key}: expected shape {expected}, found {value.shape}")
            if ring is None:
                ring = np.empty((self.n_envs, self.max_len, *value.shape[1:]), value.dtype)
                self._rings[key] = ring
            ring[np.arange(self.n_envs), self._counts % self.max_len] = value
        self._counts += 1

    def get(self, n: int, env_ids: Iterable[int] | None = None) -> dict[str, np.ndarray] | None:
        """The last n strided entries of the chosen envs (default: all), oldest first; row order follows `env_ids`.

        Returns:
            Values stored as (E, T, ...) come as (E, n * T, ...), those stored as (E,) as (E, n). Block keys with d
            numbers per entry come as (E, n - 1, K * d), and not at all for n = 1: block i holds the K entries after
            strided frame i up to frame i + 1, NaN as 0. Where an env has fewer entries, its oldest strided one is
            repeated, with zero blocks in between. None if n <= 0 or a chosen env has no entry.
        """
        ids = self._ids(env_ids)
        if n <= 0 or not self._rings or (self._counts[ids] == 0).any():
            return None
        real = np.minimum(self.num_strided(ids), n)  # (E,)
        back = np.minimum(np.arange(n - 1, -1, -1), real[:, None] - 1) * self.action_block  # (E, n) entries ago
        result = {}
        for key, ring in self._rings.items():
            if key not in self.block_keys:
                frames = ring[ids[:, None], self._slots(ids, back)]  # (E, n, T, ...)
                result[key] = frames if frames.ndim < 3 else frames.reshape(len(ids), -1, *frames.shape[3:])
            elif n > 1:
                result[key] = self._blocks(ring, ids, n, real)
        return result

    def num_strided(self, env_ids: Iterable[int] | None = None) -> np.ndarray:
        """Real strided entries per chosen env, int64 (E,): 0 if empty, else (fill - 1) // K + 1."""
        return (self._fill()[self._ids(env_ids)] + self.action_block - 1) // self.action_block

    def reset(self, env_ids: Iterable[int] | None = None) -> None:
        """Forget the entries of the chosen envs (default: all)."""
        self._counts[self._ids(env_ids)] = 0

    def _blocks(self, ring: np.ndarray, ids: np.ndarray, n: int, real: np.ndarray) -> np.ndarray:
        size = (n - 1) * self.action_block
        back = np.broadcast_to(np.arange(size - 1, -1, -1), (len(ids), size))
        entries = ring[ids[:, None], self._slots(ids, back)].reshape(len(ids), size, -1)  # (E, (n - 1) * K, d)
        known = back < (real[:, None] - 1) * self.action_block
        entries = np.where(known[:, :, None] & ~np.isnan(entries), entries, 0)
        return entries.reshape(len(ids), n - 1, -1)

    def _slots(self, ids: np.ndarray, back: np.ndarray) -> np.ndarray:
        return (self._counts[ids][:, None] - 1 - back) % self.max_len

    def _fill(self) -> np.ndarray:
        return np.minimum(self._counts, self.max_len)

    def _ids(self, env_ids: Iterable[int] | None) -> np.ndarray:
        return np.arange(self.n_envs) if env_ids is None else np.asarray(list(env_ids), np.int64)
