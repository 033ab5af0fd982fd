"""Observations of an env as the tensors a LeRobot policy takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.lerobot.constants import OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_PREFIX, OBS_STATE

_VECTORS = {"environment_state": OBS_ENV_STATE, "agent_pos": OBS_STATE}
_UNCHANGED = ("policy", "camera_obs")
_NESTED = "robot_state"


def preprocess_observation(observations: Mapping[str, Any], *, passthrough: bool = False) -> dict[str, Any]:
    """A new dict of tensors, which share no memory with `observations`.

    | key | becomes |
    |---|---|
    | `pixels`, array (H, W, C) or (B, H, W, C), uint8 | `observation.image`, float32 (B, C, H, W) in [0, 1] |
    | `pixels`, a mapping of cameras | `observation.images.<camera>`, each the same |
    | `environment_state`, `agent_pos` | `observation.environment_state`, `observation.state`, float32 (B, n) |
    | `robot_state` | `observation.robot_state`, by `convert_nested_dict` |
    | `policy`, `camera_obs` | `observation.<key>`, unchanged |

    Other keys are dropped. A missing batch axis is added. Raises ContractError for images of another dtype or layout.

    Args:
        passthrough: keep other arrays as `observation.<key>`, float32 with a batch axis.
    """
    found: dict[str, Any] = {}
    for key, value in observations.items():
        if key == "pixels":
            views = {f"{OBS_IMAGES}.{name}": view for name, view in value.items()} if _is_mapping(value) else None
            for name, view in (views or {OBS_IMAGE: value}).items():
                found[name] = image_to_tensor(view, key if views is None else f"{key}.{name.rpartition('.')[2]}")
        elif key in _VECTORS:
            found[_VECTORS[key]] = vector_to_tensor(value)
        elif key == _NESTED:
            found[OBS_PREFIX + key] = convert_nested_dict(value)
        elif key in _UNCHANGED:
            found[OBS_PREFIX + key] = value
        elif passthrough and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            found[OBS_PREFIX + key] = vector_to_tensor(value)
    return found


def convert_nested_dict(d: Mapping[str, Any]) -> dict[str, Any]:
    """`d` with arrays as tensors of their own dtype and memory, at any depth; everything else as it is."""
    torch = require("torch")
    converted: dict[str, Any] = {}
    for key, value in d.items():
        if _is_mapping(value):
            converted[key] = convert_nested_dict(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            converted[key] = torch.tensor(value)
        else:
            converted[key] = value
    return converted


def image_to_tensor(image: Any, key: str) -> Any:
    """Images (H, W, C) or (B, H, W, C), uint8, as float32 (B, C, H, W) in [0, 1], contiguous."""
    torch = require("torch")
    tensor = torch.as_tensor(np.asarray(image) if not torch.is_tensor(image) else image)
    if tensor.ndim == 3:
        tensor = tensor[None]
    shape = tuple(tensor.shape)
    if len(shape) != 4 or not (shape[3] < shape[1] and shape[3] < shape[2]):
        raise ContractError(f"{key}: expected images (H, W, C) or (B, H, W, C) with C < H and C < W, found {shape}")
    if tensor.dtype != torch.uint8:
        raise ContractError(f"{key}: expected uint8 images, found {tensor.dtype}")
    channel_first = tensor.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # (B, C, H, W)
    return channel_first.div_(255)


def vector_to_tensor(value: Any) -> Any:
    """Numbers as a new float32 tensor; a batch axis is added to those with one axis."""
    torch = require("torch")
    tensor = torch.as_tensor(np.asarray(value) if not torch.is_tensor(value) else value)
    tensor = tensor.to(torch.float32, copy=True)
    return tensor[None] if tensor.ndim == 1 else tensor


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)
