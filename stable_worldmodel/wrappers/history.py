"""A short history of every info value, stacked on a leading time axis."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers.base import Info, InfoWrapper


class StackedWrapper(InfoWrapper):
    """Replaces info values by their last `history_size` ones, `frameskip` steps apart, newest last.

    At reset the history is filled with the first value. Numbers and arrays become arrays (T, ...), tensors a tensor,
    anything else a list of T. Control keys (leading underscore) are left alone; a key missing in a step repeats its
    last value.

    Args:
        key: one key, a list of keys, or None for every key.
        history_size: T >= 1, else ContractError.
        frameskip: env steps between stacked entries, >= 1, else ContractError.
    """

    def __init__(self, env: gym.Env, key: str | list[str] | None = None, history_size: int = 1, frameskip: int = 1):
        super().__init__(env)
        for name, value in (("history_size", history_size), ("frameskip", frameskip)):
            if value < 1:
                raise ContractError(f"{name}={value}: expected an integer >= 1")
        self.history_size = history_size
        self.frameskip = frameskip
        self._keys = [key] if isinstance(key, str) else key
        self._rings: dict[str, deque] = {}

    def amend_reset(self, info: Info, observation: Any, seed: int | None, options: dict | None) -> None:
        self._rings = {}
        self.amend(info)

    def amend(self, info: Info) -> None:
        length = (self.history_size - 1) * self.frameskip + 1
        selected = info if self._keys is None else self._keys
        for name in {**dict.fromkeys(selected), **self._rings}:
            if name.startswith("_") or (name not in info and name not in self._rings):
                continue
            ring = self._rings.get(name)
            value = info[name] if name in info else ring[-1]  # type: ignore[index]
            if isinstance(value, np.ndarray):
                value = value.copy()  # the env may draw its next frame into the same array
            if ring is None:
                self._rings[name] = ring = deque([value] * length, maxlen=length)
            else:
                ring.append(value)
            info[name] = _stack(list(ring)[:: self.frameskip])


def _stack(values: list) -> Any:
    first = values[0]
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(first, torch.Tensor):
        return torch.stack(values)
    if isinstance(first, (np.ndarray, np.generic, bool, int, float)):
        return np.stack([np.asarray(value) for value in values])
    return values
