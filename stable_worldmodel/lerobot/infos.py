"""The infos of a World as the observations of a LeRobot policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.lerobot.constants import (
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_IMAGES,
    OBS_LANGUAGE,
    OBS_PREFIX,
    OBS_STATE,
)
from stable_worldmodel.lerobot.observation import image_to_tensor, vector_to_tensor
from stable_worldmodel.protocols import Info

TASK_KEYS = ("task_description", "task")
# Feature -> the info keys that may hold it, the best first.
_SOURCES = {OBS_STATE: ("agent_pos", "proprio"), OBS_ENV_STATE: ("environment_state", "state")}
_VIEW = "pixels."


def observation_from_infos(
    infos: Info,
    rows: np.ndarray,
    input_features: Mapping[str, Any] | None = None,
    rename_map: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The newest observations of some envs, float32 tensors with a batch axis.

    | info | feature |
    |---|---|
    | `pixels`, `pixels.<view>`, uint8 (N, T, H, W, C) | `observation.image(s.<view>)`, (b, C, H, W) |
    | `agent_pos`, else `proprio` | `observation.state` |
    | `environment_state`, else `state` | `observation.environment_state` |
    | `x` | `observation.x`, where the policy asks for it |

    Args:
        rows: numbers of the envs (b,).
        input_features: what the policy reads; of two keys the one of the right size is taken. None or empty gives all
            of the first three lines that there are.
        rename_map: feature as above -> feature of the policy.

    Raises MissingKeyError for a feature that the infos do not have, ContractError for one of another shape.
    """
    names = dict(rename_map or {})
    wanted = dict(input_features or {})
    back = {new: old for old, new in names.items()}
    images = {f"{OBS_IMAGES}.{key.removeprefix(_VIEW)}": key for key in infos if key.startswith(_VIEW)}
    if "pixels" in infos:
        images[OBS_IMAGE] = "pixels"
    if not wanted:
        sources = {
            **images,
            **{name: key for name in _SOURCES if (key := _first(infos, _SOURCES[name], None)) is not None},
        }
        return {names.get(name, name): _tensor(infos, key, rows, name in images) for name, key in sources.items()}
    found = {}
    for feature, expected in wanted.items():
        if feature.startswith(OBS_LANGUAGE):
            continue  # made by the preprocessor, of the task's sentence
        name = back.get(feature, feature)
        shape = tuple(getattr(expected, "shape", None) or ())
        key = images.get(name) or _first(infos, _SOURCES.get(name, (name.removeprefix(OBS_PREFIX),)), shape)
        if key is None:
            raise MissingKeyError(
                f"the policy reads {feature!r}, which the envs do not give: they have {sorted(images)} and the infos "
                f"{sorted(infos)}; rename_map says which feature of the envs is meant"
            )
        found[feature] = _tensor(infos, key, rows, name in images)
        if shape and tuple(found[feature].shape[1:]) != shape:
            raise ContractError(
                f"{feature!r} is {tuple(found[feature].shape[1:])} ({key!r} of info): the policy expects {shape}"
            )
    return found


def _first(infos: Info, keys: tuple[str, ...], shape: tuple[int, ...] | None) -> str | None:
    """The first of `keys` in infos whose values have `shape`; else the first there is."""
    there = [key for key in keys if hasattr(infos.get(key), "shape")]
    fitting = [key for key in there if shape and tuple(infos[key].shape[2:]) == shape]
    return next(iter([*fitting, *there]), None)


def _tensor(infos: Info, key: str, rows: np.ndarray, is_image: bool) -> Any:
    newest = infos[key][rows, -1]  # (b, ...)
    if is_image:
        return image_to_tensor(newest, key)
    tensor = vector_to_tensor(newest)
    return tensor.reshape(len(rows), -1) if newest.ndim == 1 else tensor
