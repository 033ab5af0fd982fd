"""Seeds and reset options, one per env, out of the forms a caller may give."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError


def check_seed(seed: Any, name: str = "seed") -> int:
    """A non-negative Python int out of any integral type; bool, negative or non-integral raises ContractError."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, Integral) or seed < 0:
        raise ContractError(f"{name}={seed!r}: expected a non-negative integer")
    return int(seed)


def seeds_per_env(seed: Any, num_envs: int) -> list[int | None]:
    """An integer s becomes s, s + 1, …; None leaves every env unseeded; a sequence gives one entry (or None) each."""
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, (Sequence, np.ndarray)) or isinstance(seed, (str, bytes)):
        first = check_seed(seed)
        return [first + i for i in range(num_envs)]
    if len(seed) != num_envs:
        raise ContractError(f"seed has {len(seed)} entries: expected one per env ({num_envs})")
    return [None if item is None else check_seed(item, f"seed[{i}]") for i, item in enumerate(seed)]


def options_per_env(options: Any, num_envs: int) -> list[dict | None]:
    """None, one mapping for all, or a sequence of mappings (or None), one per env. Every env gets a deep copy."""
    if options is None:
        return [None] * num_envs
    if isinstance(options, Mapping):
        items: Sequence[Any] = [options] * num_envs
    elif isinstance(options, Sequence) and not isinstance(options, (str, bytes)):
        items = options
    else:
        raise ContractError(f"options: expected None, a mapping or a sequence of them, found {type(options).__name__}")
    if len(items) != num_envs:
        raise ContractError(f"options has {len(items)} entries: expected one per env ({num_envs})")
    return [_check_options(item) for item in items]


def _check_options(options: Any) -> dict | None:
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise ContractError(f"reset options: expected a mapping, found {type(options).__name__}")
    variation = options.get("variation")
    if variation is not None and not isinstance(variation, (list, tuple)):
        raise ContractError(f"options['variation']={variation!r}: expected a list or tuple of factor names")
    return copy.deepcopy(dict(options))


def mask_per_env(mask: Any, num_envs: int) -> np.ndarray:
    """A boolean mask (N,); None means all. Any other dtype or length raises ContractError."""
    if mask is None:
        return np.ones(num_envs, bool)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != (num_envs,):
        raise ContractError(f"mask: expected bool ({num_envs},), found {mask.dtype} {mask.shape}")
    return mask
