"""Transformer parts shared by the models: attention, image encoder, projector, action embedder, causal predictors.

Shapes: N rows, T time steps, P patches, W width of a transformer, A flattened size of one action block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.wm.distributed import mean_over_processes, num_processes

# Keys and values (N, heads, T, head_dim) of one attention layer.
KeyValues = tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Multi-head self-attention; it can continue from the keys and values of earlier tokens.

    `rotary` attention sees tokens by their distance alone (RoPE, arXiv 2104.09864). Keys are kept unrotated, so that a
    cache can lose its oldest tokens.
    """

    def __init__(self, width: int, heads: int, head_dim: int, *, causal: bool, qkv_bias: bool, rotary: bool = False):
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.rotary = rotary
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=qkv_bias)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(
        self, x: torch.Tensor, past: KeyValues | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, KeyValues]:
        """Map x (N, T, W) to (N, T, W) and the keys and values of past and present tokens.

        With a `past`, x are the tokens of one moment: they attend to all of the past and to each other. Without one,
        `mask` (T, T), True where a row may look, replaces the causal one.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (N, T, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, T, head_dim)
        if past is not None:
            k = torch.cat([past[0], k], dim=2)  # (N, heads, T', head_dim)
            v = torch.cat([past[1], v], dim=2)  # (N, heads, T', head_dim)
        causal = self.causal and past is None and mask is None
        rotated_q, rotated_k = self._rotated(q, k)
        y = F.scaled_dot_product_attention(rotated_q, rotated_k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2)), (k, v)  # (N, T, W)

    def _rotated(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.rotary:
            return q, k
        # A cache shorter than its history shifts all positions alike, which attention cannot see.
        return rotate(q, start=k.shape[2] - q.shape[2]), rotate(k)


def rotate(x: torch.Tensor, start: int = 0) -> torch.Tensor:
    """Turn the pairs (i, i + d/2) of x (N, heads, T, d) by (start + t) / 10000^(2i/d)."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, device=x.device) / half)  # (d/2,)
    angles = torch.arange(start, start + x.shape[2], device=x.device)[:, None] * rates  # (T, d/2)
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    a, b = x[..., :half], x[..., half:]  # each (N, heads, T, d/2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


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
    """ViT (arXiv 2010.11929) whose output are its `tokens` class tokens: images (N, 3, size, size) to (N, tokens * W).

    One token is the published CLS; more leave room for several objects.
    """

    def __init__(
        self, image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_width: int, tokens: int = 1
    ):
        super().__init__()
        self.patch_size = patch_size
        self.tokens = tokens
        self.embed_patch = nn.Linear(3 * patch_size**2, width)
        self.cls = nn.Parameter(torch.zeros(1, tokens, width))
        self.positions = nn.Parameter(torch.zeros(1, tokens + (image_size // patch_size) ** 2, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self._embedded(images)  # (N, tokens + P, W)
        for block in self.blocks[:-1]:
            x = block(x)  # (N, tokens + P, W)
        x = self.blocks[-1](x, tokens=self.tokens)  # (N, tokens, W): nothing reads the last block's patches
        return self.norm(x).flatten(1)  # (N, tokens * W)

    def patch_features(self, images: torch.Tensor) -> torch.Tensor:
        """Features (N, P, W) of all patches of images (N, 3, size, size)."""
        x = self._embedded(images)  # (N, tokens + P, W)
        for block in self.blocks:
            x = block(x)  # (N, tokens + P, W)
        return self.norm(x[:, self.tokens :])  # (N, P, W)

    def _embedded(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embed_patch(self._patches(images))  # (N, P, W)
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions  # (N, tokens + P, W)

    def _patches(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, h, w) to flat patches (N, P, 3 * p * p), row by row."""
        p = self.patch_size
        grid = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (N, 3, h/p, p, w/p, p)
        return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (N, P, 3 * p * p)


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm over rows (N, W) whose statistics, in training, are those of the rows of all processes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or num_processes() == 1:
            return super().forward(x)
        mean = mean_over_processes(x.float().mean(dim=0))  # (W,)
        variance = mean_over_processes((x.float() - mean).square().mean(dim=0))  # (W,)
        self._track(mean.detach(), variance.detach(), rows=len(x) * num_processes())
        normalised = (x - mean) * torch.rsqrt(variance + self.eps)
        return (normalised * self.weight + self.bias).to(x.dtype)  # (N, W)

    def _track(self, mean: torch.Tensor, variance: torch.Tensor, rows: int) -> None:
        momentum = 0.1 if self.momentum is None else self.momentum
        unbiased = variance * rows / max(1, rows - 1)
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            if running is not None:
                running.lerp_(value, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


NORMS = {"batch": BatchNorm, "layer": nn.LayerNorm}


class Projector(nn.Module):
    """Linear, norm, GELU, Linear over the last axis of (N, T, in_width).

    `norm` is `batch`, as published, or `layer`, which keeps the frames of a batch apart and suits small batches.
    """

    def __init__(self, in_width: int, hidden: int, out_width: int, norm: str = "batch"):
        super().__init__()
        self.up = nn.Linear(in_width, hidden)
        self.norm = NORMS[norm](hidden)
        self.down = nn.Linear(hidden, out_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.up(x.flatten(0, 1)))  # (N * T, hidden)
        return self.down(F.gelu(h)).unflatten(0, x.shape[:2])  # (N, T, out_width)


class ActionEmbedder(nn.Module):
    """Action blocks (N, T, A) to (N, T, W), computed in float32: actions carry small differences that half precision
    loses. The result has the dtype of the weights if that is a lower one.
    """

    def __init__(self, action_dim: int, width: int, bottleneck: int = 10):
        super().__init__()
        self.smooth = nn.Linear(action_dim, bottleneck)
        self.up = nn.Linear(bottleneck, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        with torch.autocast(actions.device.type, enabled=False):
            x = F.silu(_linear32(self.up, _linear32(self.smooth, actions)))
            return _linear32(self.down, x).to(self.down.weight.dtype)  # (N, T, W)


def _linear32(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """`layer` in float32, whatever the dtype of its weights."""
    return F.linear(x.float(), layer.weight.float(), layer.bias.float())


class ConditionalBlock(nn.Module):
    """Causal transformer block; a condition shifts, scales and gates its two branches (AdaLN, arXiv 2212.09748).

    `branch_norm` puts an affine LayerNorm behind each modulation, as published LeWM does; it cancels the part of the
    modulation that is uniform over the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        mlp_width: int,
        dropout: float,
        branch_norm: bool,
        rotary: bool = False,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention_norm = nn.LayerNorm(width) if branch_norm else nn.Identity()
        self.attention = Attention(width, heads, head_dim, causal=True, qkv_bias=False, rotary=rotary)
        self.attention_dropout = nn.Dropout(dropout)
        self.mlp_norm = nn.LayerNorm(width) if branch_norm else nn.Identity()
        self.mlp = FeedForward(width, mlp_width, dropout)

    def forward(
        self,
        x: torch.Tensor,
        modulation: torch.Tensor,
        past: KeyValues | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, KeyValues]:
        """Map x (N, T, W), modulated by (N, T, 6, W), to (N, T, W) and the keys and values of past and present."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.unbind(2)  # each (N, T, W)
        y = self.attention_norm(self.norm(x) * (1 + scale_a) + shift_a)  # (N, T, W)
        y, keys_values = self.attention(y, past, mask)  # (N, T, W)
        x = x + gate_a * self.attention_dropout(y)  # (N, T, W)
        y = self.mlp_norm(self.norm(x) * (1 + scale_m) + shift_m)  # (N, T, W)
        return x + gate_m * self.mlp(y), keys_values  # (N, T, W)


class ConditionalPredictor(nn.Module):
    """Causal transformer; every frame looks back on `window` frames and is conditioned on the action that leaves it.

    The modulations start at zero, so that every block starts as the identity.

    Learned positions, as published, number the frames of one window. `rotary` ones know distances only: clips may be of
    any length, each layer looks back on `window` frames, and keys and values stay valid when the window slides.
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
        rotary: bool = False,
    ):
        super().__init__()
        self.window = window
        self.rotary = rotary
        if not rotary:
            self.positions = nn.Parameter(torch.randn(1, window, width))
        self.modulate = nn.Linear(width, depth * 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.blocks = nn.ModuleList(
            ConditionalBlock(width, heads, head_dim, mlp_width, dropout, branch_norm, rotary) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def modulations(self, act_emb: torch.Tensor) -> torch.Tensor:
        """Modulation (N, T, depth, 6, W) of all blocks for act_emb (N, T, W); it depends on the actions alone."""
        return self.modulate(F.silu(act_emb)).unflatten(-1, (len(self.blocks), 6, -1))

    def forward(
        self, x: torch.Tensor, modulations: torch.Tensor, past: Sequence[KeyValues] | None = None
    ) -> tuple[torch.Tensor, list[KeyValues]]:
        """Map frames x (N, T, W) to their successors (N, T, W) and every block's keys and values.

        `modulations` (N, T, depth, 6, W) belong to the same frames. With a `past` of t frames, x is the single frame
        that follows them.
        """
        mask = None
        if self.rotary:
            past = past and [self._recent(keys_values) for keys_values in past]
            mask = self._band(x) if past is None and x.shape[1] > self.window else None
        else:
            start = past[0][0].shape[2] if past else 0
            x = x + self.positions[:, start : start + x.shape[1]]  # (N, T, W)
        present = []
        for i, block in enumerate(self.blocks):
            x, keys_values = block(x, modulations[:, :, i], past[i] if past else None, mask)  # (N, T, W)
            present.append(keys_values)
        return self.norm(x), present

    def _recent(self, past: KeyValues) -> KeyValues:
        """The keys and values that the next frame sees beside its own."""
        first = max(0, past[0].shape[2] + 1 - self.window)
        return past[0][:, :, first:], past[1][:, :, first:]

    def _band(self, x: torch.Tensor) -> torch.Tensor:
        """(T, T), True from a frame to itself and the window - 1 before it."""
        ones = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        return ones.tril() & ones.triu(1 - self.window)


class PatchBlock(nn.Module):
    """Pre-norm transformer block over the patches of several frames; keys and values can be kept."""

    def __init__(self, width: int, heads: int, head_dim: int, mlp_width: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_dim, causal=False, qkv_bias=False)
        self.attention_dropout = nn.Dropout(dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, mlp_width, dropout)

    def forward(
        self, x: torch.Tensor, past: KeyValues | None = None, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, KeyValues]:
        """Map x (N, T * P, W) to (N, T * P, W) and the keys and values of past and present."""
        y, keys_values = self.attention(self.attention_norm(x), past, mask)  # (N, T * P, W)
        x = x + self.attention_dropout(y)  # (N, T * P, W)
        return x + self.mlp(self.mlp_norm(x)), keys_values  # (N, T * P, W)


def frame_mask(frames: int, patches: int, device: torch.device) -> torch.Tensor:
    """(T * P, T * P), True where a patch may look: its own frame and those before it."""
    number = torch.arange(frames, device=device).repeat_interleave(patches)  # (T * P,)
    return number[:, None] >= number[None]


def keep_scale(module: nn.Module) -> None:
    """He initialisation (arXiv 1502.01852): what differs between inputs differs as much between outputs.

    PyTorch's default makes differences about a third as large at every layer, and seven layers do not begin to learn.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
