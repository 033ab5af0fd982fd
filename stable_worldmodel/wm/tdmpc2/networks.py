"""Encoders of TD-MPC2: one per observed column.

Shapes: N rows, D width of the latent of one column.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.mlp import NormedLinear, SimNorm, random_shift
from stable_worldmodel.wm.tdmpc2.config import TDMPC2Config
from stable_worldmodel.wm.tensors import check_images, entry, fill_nan


class ColumnsEncoder(nn.Module):
    """Observed columns to one latent of simplices: each column to D numbers, concatenated, softmax in groups."""

    def __init__(self, config: TDMPC2Config) -> None:
        super().__init__()
        self.config = c = config
        self.image_encoders = nn.ModuleDict(
            {name: image_encoder(c.image_size, c.latent_dim) for name in c.encoded_images}
        )
        self.vector_encoders = nn.ModuleDict(
            {
                name: nn.Sequential(
                    NormedLinear(width, c.encoder_width),
                    nn.Linear(c.encoder_width, c.latent_dim),
                    nn.LayerNorm(c.latent_dim),
                )
                for name, width in c.encoded_inputs.items()
            }
        )
        self.simnorm = SimNorm(c.simnorm_group)

    @property
    def width(self) -> int:
        """Width of the latent."""
        return self.config.latent_dim * (len(self.image_encoders) + len(self.vector_encoders))

    def forward(
        self,
        batch: Mapping[str, torch.Tensor],
        frames: slice = slice(None),
        generator: torch.Generator | None = None,
        shift: bool = False,
    ) -> torch.Tensor:
        """Latents (B, T, width) of the chosen frames; a column with one frame, such as a goal, counts for all."""
        parts = []
        for name, encoder in self.image_encoders.items():
            pixels = _chosen(entry(batch, name), frames)  # (B, T, 3, h, w)
            check_images(pixels, self.config.image_size)
            images = pixels.flatten(0, 1).to(_parameter(encoder))  # (B * T, 3, h, w)
            if pixels.dtype == torch.uint8:
                images = images / 255 - 0.5
            if shift and self.config.shift:
                images = random_shift(images, self.config.shift, generator, pixels.shape[1])
            parts.append(encoder(images).unflatten(0, pixels.shape[:2]))  # (B, T, D)
        for name, encoder in self.vector_encoders.items():
            x = _chosen(entry(batch, name), frames).to(_parameter(encoder)).flatten(2)  # (B, T, d)
            width = self.config.encoded_inputs[name]
            if x.shape[-1] != width:
                raise ContractError(f"{name} of width {x.shape[-1]}: expected {width}")
            parts.append(encoder(fill_nan(x)))  # (B, T, D)
        length = max(part.shape[1] for part in parts)
        return self.simnorm(torch.cat([part.expand(-1, length, -1) for part in parts], dim=-1))


def image_encoder(image_size: int, width: int) -> nn.Sequential:
    """Four convolutions and a linear layer: images (N, 3, size, size) to (N, width)."""
    layers: list[nn.Module] = []
    channels, size = 3, image_size
    for kernel, stride in ((7, 2), (5, 2), (3, 2), (3, 1)):
        layers += [nn.Conv2d(channels, 32, kernel, stride), nn.Mish()]
        channels, size = 32, (size - kernel) // stride + 1
    return nn.Sequential(*layers[:-1], nn.Flatten(), nn.Linear(32 * size * size, width))


def init_weights(module: nn.Module) -> None:
    """Truncated normal weights of std 0.02 and zero biases, as the official code; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _chosen(x: torch.Tensor, frames: slice) -> torch.Tensor:
    return x if x.shape[1] == 1 else x[:, frames]


def _parameter(module: nn.Module) -> torch.Tensor:
    return next(module.parameters())
