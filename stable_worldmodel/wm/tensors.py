"""Small helpers of the world models: shapes, images, precision.

Shapes: n envs, S candidates, B clips, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from stable_worldmodel.errors import ContractError, MissingKeyError

# Mean and standard deviation of ImageNet, per RGB channel of images in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

Batch = Mapping[str, torch.Tensor]
Metrics = dict[str, torch.Tensor]


class ExactBuffers(nn.Module):
    """A module whose buffers keep their dtype when that of a model is changed (`model.bfloat16()`): constants and
    running values that losses compute with in float32.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> ExactBuffers:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            changed = self._buffers[name]
            if buffer is not None and changed is not None and changed.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(changed.device)
        return self


def entry(mapping: Mapping[str, Any], key: str) -> torch.Tensor:
    """`mapping[key]`, or MissingKeyError that lists what there is."""
    if key not in mapping:
        raise MissingKeyError(f"no {key!r} among {sorted(mapping)}")
    return mapping[key]


def windows(x: torch.Tensor, size: int) -> torch.Tensor:
    """All runs of `size` steps of x (B, T, ...), clip by clip: (B * (T - size + 1), size, ...)."""
    return x.unfold(1, size, 1).movedim(-1, 2).flatten(0, 1)


def repeat(x: torch.Tensor, samples: int) -> torch.Tensor:
    """(n, ...) to (n * samples, ...), env by env."""
    return x[:, None].expand(-1, samples, *x.shape[1:]).flatten(0, 1)


def first_sample(x: torch.Tensor, ndim: int) -> torch.Tensor:
    """Drop the sample axis of x, if it has one more axis than `ndim`."""
    return x[:, 0] if x.ndim == ndim + 1 else x


def fill_nan(x: torch.Tensor) -> torch.Tensor:
    """x with 0 for NaN, the filler of an episode's last action and first reward."""
    return x.masked_fill(x.isnan(), 0.0)


def action_blocks(actions: torch.Tensor, width: int, like: torch.Tensor) -> torch.Tensor:
    """Actions (..., A) on device and in dtype of `like`, NaN as 0. ContractError unless A is `width`."""
    if actions.shape[-1] != width:
        raise ContractError(
            f"actions of width {actions.shape[-1]}: expected action_dim={width}, the env's flattened action size "
            "times frameskip (action_block)"
        )
    return fill_nan(actions.to(like))


def action_history(info: Mapping[str, Any], emb: torch.Tensor, width: int) -> torch.Tensor:
    """Executed blocks (n, L - 1, width) between the frames of emb (n, L, ...), from `action_history` of the info."""
    n, length = emb.shape[:2]
    history = info.get("action_history")
    if history is None:
        history = emb.new_empty(n, 0, width)
    history = first_sample(history, 3).to(emb)
    if history.shape[1] != length - 1:
        raise ContractError(
            f"action_history has {history.shape[1]} blocks for {length} context frames: expected {length - 1}, "
            "one between each two frames"
        )
    return history


def normalise_images(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 3, h, w) scaled to [0, 1] and normalised; floats count as normalised already."""
    if pixels.dtype == torch.uint8:
        return (pixels.to(mean) / 255 - mean) / std
    return pixels.to(mean)


def check_images(pixels: torch.Tensor, size: int | None) -> None:
    """ContractError unless pixels are (B, T, 3, size, size); None allows any size."""
    height = pixels.shape[-1] if size is None else size
    if pixels.ndim != 5 or pixels.shape[2:] != (3, height, height):
        side = "size" if size is None else size
        remedy = "" if size is None else f"; render at image_shape=({size}, {size}) or train with another image_size"
        raise ContractError(f"pixels {tuple(pixels.shape)}: expected (B, T, 3, {side}, {side}), channels first{remedy}")
