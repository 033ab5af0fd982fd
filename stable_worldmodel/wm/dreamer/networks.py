"""Layers, encoder and decoder of Dreamer.

Shapes: N rows, F width of the latent (deter and stoch), G blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.distributions import symlog
from stable_worldmodel.wm.dreamer.config import DreamerConfig
from stable_worldmodel.wm.tensors import check_images, entry, fill_nan

CHANNELS = (2, 3, 4, 4)  # times depth, from the full image to a sixteenth of its side


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal: (N, in) to (N, out), both cut into G equal blocks."""

    def __init__(self, in_width: int, out_width: int, blocks: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, in_width // blocks, out_width // blocks))
        self.bias = nn.Parameter(torch.zeros(out_width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(-1, (self.weight.shape[0], -1))  # (N, G, in / G)
        return torch.einsum("...gi,gio->...go", x, self.weight).flatten(-2) + self.bias  # (N, out)


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the precision of its input."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def dense(in_width: int, units: int, layers: int = 1) -> nn.Sequential:
    """Linear, RMSNorm, SiLU, `layers` times."""
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [nn.Linear(in_width if i == 0 else units, units), RMSNorm(units), nn.SiLU()]
    return nn.Sequential(*modules)


def head(in_width: int, units: int, layers: int, out_width: int) -> nn.Sequential:
    """`dense` and a linear layer."""
    return nn.Sequential(*dense(in_width, units, layers), nn.Linear(units, out_width))


def init_weights(module: nn.Module) -> None:
    """Truncated normal weights by fan-in and zero biases; for `Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d | BlockLinear):
        weight = module.weight
        fan_in = weight.shape[1] if isinstance(module, BlockLinear) else weight[0].numel()
        std = 1.1368 / math.sqrt(fan_in)  # which is 1 / sqrt(fan_in) after the truncation at two deviations
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def scale_output(network: nn.Sequential, scale: float) -> nn.Sequential:
    """Multiply the weights of the last layer."""
    with torch.no_grad():
        network[-1].weight.mul_(scale)  # type: ignore[operator]
    return network


class ChannelNorm(RMSNorm):
    """RMSNorm over the channels of (N, C, h, w)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Encoder(nn.Module):
    """Observed columns (B, T, ...) to tokens (B, T, width)."""

    def __init__(self, config: DreamerConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [multiple * c.depth for multiple in CHANNELS]
        if c.images:
            layers: list[nn.Module] = []
            for before, after in zip([3 * len(c.images), *widths], widths, strict=False):
                layers += [nn.Conv2d(before, after, 5, padding=2), nn.MaxPool2d(2), ChannelNorm(after)]
                layers += [nn.SiLU()]
            self.convolutions = nn.Sequential(*layers, nn.Flatten())
        if c.inputs:
            self.vectors = dense(sum(c.inputs.values()), c.units, layers=3)
        side = c.image_size // 16
        self.width = (widths[-1] * side * side if c.images else 0) + (c.units if c.inputs else 0)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = []
        if self.config.images:
            images = observed_images(self.config, batch) - 0.5  # (B, T, 3 * images, s, s)
            frames = images.flatten(0, 1).to(_dtype(self.convolutions))
            parts.append(self.convolutions(frames).unflatten(0, images.shape[:2]))
        if self.config.inputs:
            parts.append(self.vectors(observed_vectors(self.config, batch).to(_dtype(self.vectors))))
        return torch.cat([part.float() for part in parts], dim=-1)


class Decoder(nn.Module):
    """The latent (N, F) to images (N, 3 * images, s, s) in [0, 1] and vectors in symlog units (N, d)."""

    def __init__(self, config: DreamerConfig) -> None:
        super().__init__()
        self.config = c = config
        stoch = c.groups * c.classes
        self.side = c.image_size // 16
        if c.images:
            widths = [multiple * c.depth for multiple in reversed(CHANNELS)]
            grid = widths[0] * self.side**2
            self.from_deter = BlockLinear(c.deter, grid, c.blocks)
            self.from_stoch = head(stoch, 2 * c.units, 1, grid)
            self.norm = ChannelNorm(widths[0])
            layers: list[nn.Module] = []
            for before, after in pairwise(widths):
                layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(before, after, 5, padding=2)]
                layers += [ChannelNorm(after), nn.SiLU()]
            layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(widths[-1], 3 * len(c.images), 5, padding=2)]
            self.convolutions = nn.Sequential(*layers)
        if c.inputs:
            self.vectors = head(c.deter + stoch, c.units, 3, sum(c.inputs.values()))

    def forward(self, latent: torch.Tensor) -> dict[str, torch.Tensor]:
        """`images` and `vectors`, where the model observes such."""
        decoded = {}
        if self.config.images:
            deter, stoch = latent.split([self.config.deter, latent.shape[-1] - self.config.deter], dim=-1)
            grid = (self.from_deter(deter) + self.from_stoch(stoch)).unflatten(-1, (-1, self.side, self.side))
            decoded["images"] = self.convolutions(F.silu(self.norm(grid))).sigmoid()
        if self.config.inputs:
            decoded["vectors"] = self.vectors(latent)
        return decoded


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def observed_images(config: DreamerConfig, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The image columns in [0, 1] as channels, (B, T, 3 * images, s, s); float columns count as scaled already."""
    columns = [entry(batch, name) for name in config.images]
    for column in columns:
        check_images(column, config.image_size)
    scaled = [column.float() / 255 if column.dtype == torch.uint8 else column.float() for column in columns]
    return torch.cat(scaled, dim=2)


def observed_vectors(config: DreamerConfig, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The vector columns in symlog units, (B, T, d)."""
    columns = []
    for name, width in config.inputs.items():
        column = fill_nan(entry(batch, name).float().flatten(2))  # (B, T, width)
        if column.shape[-1] != width:
            raise ContractError(f"{name} of width {column.shape[-1]}: expected {width}")
        columns.append(column)
    return symlog(torch.cat(columns, dim=-1))
