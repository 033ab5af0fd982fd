"""The infos of one env out of those of a vector env, in each of the shapes Gymnasium has given them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_FINAL_INFO, _FINAL_OBSERVATION = ("final_info",), ("final_obs", "final_observation")


def split_infos(infos: Any, env: int) -> dict[str, Any]:
    """What env number `env` said.

    `infos` is a mapping of arrays, in which a mask `_<key>` says whose values are real, or a sequence of one mapping
    per env. What was said at the end of an episode that has been reset already is left out, see `final_transition`.
    """
    if not isinstance(infos, Mapping):
        return dict(infos[env] or {})
    own: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        if key in (*_FINAL_INFO, *_FINAL_OBSERVATION) or not _is_said(infos, key, env):
            continue
        own[key] = split_infos(value, env) if isinstance(value, Mapping) else _item(value, env)
    return own


def final_transition(infos: Any, env: int) -> tuple[Any, dict[str, Any]] | None:
    """Last observation (None if not given) and info of an episode that the vector env ended and reset in one step.

    `final_info` may be a mapping of arrays or, before Gymnasium 1.0, one mapping or None per env. None without one.
    """
    if not isinstance(infos, Mapping):
        said = infos[env] or {}
        observation = next((said[key] for key in _FINAL_OBSERVATION if key in said), None)
        return (observation, dict(said["final_info"])) if said.get("final_info") is not None else None
    info = next((infos[key] for key in _FINAL_INFO if key in infos), None)
    if info is None or not _is_said(infos, "final_info", env):
        return None
    own = split_infos(info, env) if isinstance(info, Mapping) else dict(info[env] or {})
    observation = next((infos[key] for key in _FINAL_OBSERVATION if key in infos), None)
    return (None if observation is None else observation[env]), own


def _is_said(infos: Mapping[str, Any], key: str, env: int) -> bool:
    mask = infos.get(f"_{key}")
    return mask is None or bool(np.asarray(mask)[env])


def _item(value: Any, env: int) -> Any:
    """Numbers as Python's own where Gymnasium made arrays of them; arrays are copied."""
    item = value[env]
    if isinstance(item, np.generic):
        return item.item() if item.dtype in (np.dtype(bool), np.dtype(np.int64), np.dtype(np.float64)) else item
    return item.copy() if isinstance(item, np.ndarray) else item
