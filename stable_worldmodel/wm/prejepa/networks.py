"""Predictor, embedder and decoder of PreJEPA.

Shapes: N rows, T frames, P patches, W token width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.blocks import KeyValues, PatchBlock, frame_mask


class Embedder(nn.Module):
    """A linear map of vectors over time (a convolution of width 1): (N, T, in_dim) to (N, T, emb_dim)."""

    def __init__(self, in_dim: int, emb_dim: int = 10):
        super().__init__()
        self.emb_dim = emb_dim
        self.linear = nn.Linear(in_dim, emb_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class CausalPredictor(nn.Module):
    """Transformer over the patches of at most `window` frames; a patch sees its own frame and those before it."""

    def __init__(
        self,
        window: int,
        patches: int,
        width: int,
        depth: int = 6,
        heads: int = 16,
        head_dim: int = 64,
        mlp_width: int = 2048,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.window, self.patches = window, patches
        self.positions = nn.Parameter(torch.randn(1, window * patches, width))
        self.blocks = nn.ModuleList(PatchBlock(width, heads, head_dim, mlp_width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, past: Sequence[KeyValues] | None = None) -> tuple[torch.Tensor, list[KeyValues]]:
        """Map frames x (N, T, P, W) to their successors (N, T, P, W) and every block's keys and values.

        With a `past` of t frames, x is the single frame at position t.
        """
        frames = x.shape[1]
        start = past[0][0].shape[2] if past else 0
        tokens = x.flatten(1, 2)  # (N, T * P, W)
        if start + tokens.shape[1] > self.positions.shape[1]:
            raise ContractError(f"{frames} frames: the predictor sees at most window={self.window}")
        tokens = tokens + self.positions[:, start : start + tokens.shape[1]]
        mask = frame_mask(frames, x.shape[2], x.device) if frames > 1 else None
        present = []
        for i, block in enumerate(self.blocks):
            tokens, keys_values = block(tokens, past[i] if past else None, mask)  # (N, T * P, W)
            present.append(keys_values)
        return self.norm(tokens).unflatten(1, (frames, -1)), present


class PatchDecoder(nn.Module):
    """Images (N, 3, size, size) in [0, 1] from a square grid of patch features (N, P, F); two residual blocks and two
    transposed convolutions of stride 4, as the decoder of DINO-WM without quantisation.
    """

    def __init__(self, features: int, width: int, image_size: int):
        super().__init__()
        self.image_size = image_size
        self.stem = nn.Conv2d(features, width, 3, padding=1)
        self.residuals = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, width // 4, 3, padding=1), nn.ReLU(), nn.Conv2d(width // 4, width, 1)
            )
            for _ in range(2)
        )
        self.up = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(width, width // 2, 4, stride=4),
            nn.ReLU(),
            nn.ConvTranspose2d(width // 2, 3, 4, stride=4),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        side = math.isqrt(features.shape[1])
        x = self.stem(features.mT.unflatten(2, (side, side)))  # (N, width, side, side)
        for residual in self.residuals:
            x = x + residual(x)
        images = self.up(x).sigmoid()  # (N, 3, 16 * side, 16 * side)
        return F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=True)
