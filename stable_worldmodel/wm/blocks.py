"""The parts LeWM and its relatives are built from: image encoder, projector, action embedder, causal predictor.

Shapes: N rows, T time steps, P patches, W width of a transformer, A flattened size of one action block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# Keys and values (N, heads, T, head_dim) of one attention layer.
KeyValues = tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Multi-head self-attention; causal attention also continues from the keys and values of earlier tokens."""

    def __init__(self, width: int, heads: int, head_dim: int, *, causal: bool, qkv_bias: bool):
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=qkv_bias)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(self, x: torch.Tensor, past: KeyValues | None = None) -> tuple[torch.Tensor, KeyValues]:
        """Map x (N, T, W) to (N, T, W) and the keys and values of past and present tokens.

        With a `past`, x must be a single token: it attends to all of the past and itself.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (N, T, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, T, head_dim)
        if past is not None:
            k = torch.cat([past[0], k], dim=2)  # (N, heads, T', head_dim)
            v = torch.cat([past[1], v], dim=2)  # (N, heads, T', head_dim)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal and past is None)
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)  # (N, T, W)


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear over the last axis; dropout after each half."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0):
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )


class EncoderBlock(nn.Module):
    """Pre-norm transformer block without a mask."""

    def __init__(self, width: int, heads: int, mlp_width: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, width // heads, causal=False, qkv_bias=True)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, mlp_width)

    def forward(self, x: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
        """Map x (N, 1 + P, W) to its first `tokens` outputs (N, tokens, W), by default all."""
        x = (x + self.attention(self.attention_norm(x))[0])[:, :tokens]  # (N, tokens, W)
        return x + self.mlp(self.mlp_norm(x))  # (N, tokens, W)


class VisionTransformer(nn.Module):
    """ViT (arXiv 2010.11929) whose output is the CLS token: images (N, 3, size, size) to (N, W)."""

    def __init__(self, image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_width: int):
        super().__init__()
        self.patch_size = patch_size
        self.embed_patch = nn.Linear(3 * patch_size**2, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed_patch(self._patches(images))  # (N, P, W)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions  # (N, 1 + P, W)
        for block in self.blocks[:-1]:
            x = block(x)  # (N, 1 + P, W)
        x = self.blocks[-1](x, tokens=1)  # (N, 1, W): nothing reads the last block's patches
        return self.norm(x[:, 0])  # (N, W)

    def _patches(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) to flat patches (N, P, 3 * p * p), row by row."""
        p = self.patch_size
        grid = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (N, 3, h/p, p, w/p, p)
        return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (N, P, 3 * p * p)


class Projector(nn.Module):
    """Linear, norm, GELU, Linear over the last axis of (N, T, in_width)."""

    def __init__(self, in_width: int, hidden: int, out_width: int):
        super().__init__()
        self.up = nn.Linear(in_width, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.down = nn.Linear(hidden, out_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.up(x.flatten(0, 1)))  # (N * T, hidden)
        return self.down(F.gelu(h)).unflatten(0, x.shape[:2])  # (N, T, out_width)


class ActionEmbedder(nn.Module):
    """Action blocks (N, T, A) to (N, T, W), in float32: actions carry small differences that half precision loses."""

    def __init__(self, action_dim: int, width: int, bottleneck: int = 10):
        super().__init__()
        self.smooth = nn.Linear(action_dim, bottleneck)
        self.up = nn.Linear(bottleneck, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        with torch.autocast(actions.device.type, enabled=False):
            return self.down(F.silu(self.up(self.smooth(actions.float()))))  # (N, T, W)


class ConditionalBlock(nn.Module):
    """Causal transformer block; a condition shifts, scales and gates its two branches (AdaLN, arXiv 2212.09748).

    `branch_norm` puts an affine LayerNorm behind each modulation, as published LeWM does; it cancels the part of the
    modulation that is uniform over the width.
    """

    def __init__(self, width: int, heads: int, head_dim: int, mlp_width: int, dropout: float, branch_norm: bool):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention_norm = nn.LayerNorm(width) if branch_norm else nn.Identity()
        self.attention = Attention(width, heads, head_dim, causal=True, qkv_bias=False)
        self.attention_dropout = nn.Dropout(dropout)
        self.mlp_norm = nn.LayerNorm(width) if branch_norm else nn.Identity()
        self.mlp = FeedForward(width, mlp_width, dropout)

    def forward(
        self, x: torch.Tensor, modulation: torch.Tensor, past: KeyValues | None = None
    ) -> tuple[torch.Tensor, KeyValues]:
        """Map x (N, T, W), modulated by (N, T, 6, W), to (N, T, W) and the keys and values of past and present."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.unbind(2)  # each (N, T, W)
        y = self.attention_norm(self.norm(x) * (1 + scale_a) + shift_a)  # (N, T, W)
        y, keys_values = self.attention(y, past)  # (N, T, W)
        x = x + gate_a * self.attention_dropout(y)  # (N, T, W)
        y = self.mlp_norm(self.norm(x) * (1 + scale_m) + shift_m)  # (N, T, W)
        return x + gate_m * self.mlp(y), keys_values  # (N, T, W)


class ConditionalPredictor(nn.Module):
    """Causal transformer over at most `window` frames, each conditioned on the action block that leaves it.

    The modulations start at zero, so that every block starts as the identity.
    """

    def __init__(
        self,
        window: int,
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp_width: int,
        dropout: float,
        branch_norm: bool,
    ):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, window, width))
        self.modulate = nn.Linear(width, depth * 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.blocks = nn.ModuleList(
            ConditionalBlock(width, heads, head_dim, mlp_width, dropout, branch_norm) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def modulations(self, act_emb: torch.Tensor) -> torch.Tensor:
        """Modulation (N, T, depth, 6, W) of all blocks for act_emb (N, T, W); it depends on the actions alone."""
        return self.modulate(F.silu(act_emb)).unflatten(-1, (len(self.blocks), 6, -1))

    def forward(
        self, x: torch.Tensor, modulations: torch.Tensor, past: Sequence[KeyValues] | None = None
    ) -> tuple[torch.Tensor, list[KeyValues]]:
        """Map frames x (N, T, W) to their successors (N, T, W) and every block's keys and values.

        `modulations` (N, T, depth, 6, W) belong to the same frames. With a `past` of t frames, x is the single frame at
        position t.
        """
        start = past[0][0].shape[2] if past else 0
        x = x + self.positions[:, start : start + x.shape[1]]  # (N, T, W)
        present = []
        for i, block in enumerate(self.blocks):
            x, keys_values = block(x, modulations[:, :, i], past[i] if past else None)  # (N, T, W)
            present.append(keys_values)
        return self.norm(x), present
