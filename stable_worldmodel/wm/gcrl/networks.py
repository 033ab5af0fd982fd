"""Networks over the patches of a history of frames, conditioned on the patches of a goal.

Shapes: N rows, T frames, P patches, W token width, E heads of a value function, A action width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.blocks import FeedForward, PatchBlock, frame_mask, keep_scale
from stable_worldmodel.wm.mlp import EnsembleMLP


@dataclass(frozen=True)
class TrunkSizes:
    """What one trunk is, see `make_trunk`."""

    window: int
    patches: int
    width: int
    depth: int
    heads: int
    head_dim: int
    mlp_width: int
    kind: str = "transformer"  # or mlp


class CrossAttention(nn.Module):
    """Multi-head attention from tokens x (N, Q, W) to tokens y (N, K, W)."""

    def __init__(self, sizes: TrunkSizes):
        super().__init__()
        inner = sizes.heads * sizes.head_dim
        self.heads = sizes.heads
        self.query = nn.Linear(sizes.width, inner, bias=False)
        self.key_value = nn.Linear(sizes.width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, sizes.width)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, Q, head_dim)
        k, v = self.key_value(y).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, K, head_dim)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # (N, Q, W)


class CrossBlock(nn.Module):
    """Pre-norm transformer block that looks at a goal."""

    def __init__(self, sizes: TrunkSizes):
        super().__init__()
        self.attention_norm = nn.LayerNorm(sizes.width)
        self.goal_norm = nn.LayerNorm(sizes.width)
        self.attention = CrossAttention(sizes)
        self.mlp_norm = nn.LayerNorm(sizes.width)
        self.mlp = FeedForward(sizes.width, sizes.mlp_width)

    def forward(self, x: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Map x (N, T * P, W), given goal (N, P, W), to (N, T * P, W)."""
        x = x + self.attention(self.attention_norm(x), self.goal_norm(goal))
        return x + self.mlp(self.mlp_norm(x))


class Trunk(nn.Module):
    """Frames (N, T, P, W) and a goal (N, P, W) to one vector (N, T, W) per frame, which sees no later frame.

    Even layers attend to the frames so far, odd ones to the goal. `pool` says how the patches of a frame become one
    vector: a learned `query`, or their `mean`. Without `goal` all layers attend to the frames.
    """

    def __init__(self, sizes: TrunkSizes, goal: bool = True, pool: str = "query"):
        super().__init__()
        self.window, self.has_goal = sizes.window, goal
        self.positions = nn.Parameter(torch.empty(1, sizes.window, sizes.patches, sizes.width))
        nn.init.normal_(self.positions)
        if goal:
            self.goal_positions = nn.Parameter(torch.empty(1, sizes.patches, sizes.width))
            nn.init.normal_(self.goal_positions)
        self.layers = nn.ModuleList(
            CrossBlock(sizes)
            if goal and i % 2
            else PatchBlock(sizes.width, sizes.heads, sizes.head_dim, sizes.mlp_width, dropout=0.0)
            for i in range(sizes.depth)
        )
        self.pool = CrossAttention(sizes) if pool == "query" else None
        if self.pool is not None:
            self.query = nn.Parameter(torch.empty(1, 1, sizes.width))
            nn.init.trunc_normal_(self.query, std=0.02)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, frames: torch.Tensor, goal: torch.Tensor | None = None) -> torch.Tensor:
        length, patches = frames.shape[1:3]
        if length > self.window:
            raise ContractError(f"{length} frames: expected at most window={self.window}")
        x = (frames + self.positions[:, :length]).flatten(1, 2)  # (N, T * P, W)
        goal = goal + self.goal_positions if goal is not None and self.has_goal else None  # (N, P, W)
        mask = frame_mask(length, patches, x.device) if length > 1 else None
        for layer in self.layers:
            x = layer(x, goal) if isinstance(layer, CrossBlock) else layer(x, mask=mask)[0]  # (N, T * P, W)
        x = x.unflatten(1, (length, patches))  # (N, T, P, W)
        if self.pool is None:
            return self.norm(x.mean(dim=2))  # (N, T, W)
        tokens = x.flatten(0, 1)  # (N * T, P, W)
        pooled = self.pool(self.query.expand(len(tokens), -1, -1), tokens)  # (N * T, 1, W)
        return self.norm(pooled[:, 0].unflatten(0, frames.shape[:2]))  # (N, T, W)


class MLPTrunk(nn.Module):
    """Frames (N, T, P, W) and a goal (N, P, W) to one vector (N, T, W) per frame, which sees neither other frames nor
    an attention: all patches of frame and goal side by side, and two hidden layers.

    Features that differ in few patches, such as those of a small convolutional network, would be lost in a mean over
    patches, and next to the others in a norm.
    """

    def __init__(self, sizes: TrunkSizes, goal: bool = True):
        super().__init__()
        self.patches, self.has_goal = sizes.patches, goal
        self.layers = nn.Sequential(
            nn.Linear((1 + goal) * sizes.patches * sizes.width, sizes.mlp_width),
            nn.GELU(),
            nn.Linear(sizes.mlp_width, sizes.mlp_width),
            nn.GELU(),
            # No activation here: so few units may all be below zero for every input, and would then never learn again.
            nn.Linear(sizes.mlp_width, sizes.width),
        )
        keep_scale(self.layers)

    def forward(self, frames: torch.Tensor, goal: torch.Tensor | None = None) -> torch.Tensor:
        x = frames.flatten(2)  # (N, T, P * W)
        if goal is not None and self.has_goal:
            wanted = goal.expand(-1, self.patches, -1).flatten(1)  # (N, P * W); a skill is one token
            x = torch.cat([x, wanted[:, None].expand(-1, x.shape[1], -1)], dim=-1)  # (N, T, 2 * P * W)
        return self.layers(x)


def make_trunk(sizes: TrunkSizes, goal: bool = True, pool: str = "query") -> nn.Module:
    """The trunk of the given kind; `pool` matters to transformers only."""
    return MLPTrunk(sizes, goal) if sizes.kind == "mlp" else Trunk(sizes, goal, pool)


def set_to_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Predictor(nn.Module):
    """A trunk and a linear layer: (N, T, out_dim) for frames (N, T, P, W) and goal (N, P, W).

    zero: begin with an output of 0.
    """

    def __init__(self, sizes: TrunkSizes, out_dim: int, pool: str = "query", zero: bool = False):
        super().__init__()
        self.trunk = make_trunk(sizes, pool=pool)
        self.out = nn.Linear(sizes.width, out_dim)
        if zero:
            set_to_zero(self.out)

    def forward(self, frames: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return self.out(self.trunk(frames, goal))


class QPredictor(nn.Module):
    """Values (E, N, T) of actions (N, T, A) at frames (N, T, P, W) for goal (N, P, W): one trunk, E heads.

    They begin at 0. With a V that does, too, no action outweighs others before anything is learned; those of random
    networks weighed 64 on average.
    """

    def __init__(self, sizes: TrunkSizes, action_dim: int, critics: int, hidden: int = 256):
        super().__init__()
        self.trunk = make_trunk(sizes, pool="mean")
        self.heads = EnsembleMLP(critics, [sizes.width + action_dim, hidden, hidden, 1], activation=nn.GELU)
        set_to_zero(self.heads[-1])
        self.norm, self.state = None, None
        if sizes.kind == "mlp":
            # What a state is worth needs no head and is learned first; then actions are all that the heads have to
            # explain (dueling networks, arXiv 1511.06581). Features grow with it until actions are lost beside them,
            # so heads see them normed, as those of a transformer are.
            self.norm, self.state = nn.LayerNorm(sizes.width), nn.Linear(sizes.width, 1)
            set_to_zero(self.state)

    def forward(self, frames: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        features = self.trunk(frames, goal)  # (N, T, W)
        if self.norm is None or self.state is None:
            return self._heads(features, actions)
        return self._heads(self.norm(features), actions) + self.state(features)[..., 0]

    def _heads(self, features: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        joint = torch.cat([features, actions], dim=-1)  # (N, T, W + A)
        return self.heads(joint.flatten(0, 1))[..., 0].unflatten(1, joint.shape[:2])  # (E, N, T)


class MetricValuePredictor(nn.Module):
    """Values (N, T, E) = -|phi_e(frame) - phi_e(goal)| for frames (N, T, P, W) and goal (N, P, W)."""

    def __init__(self, sizes: TrunkSizes, metric_dim: int, critics: int):
        super().__init__()
        self.critics = critics
        self.trunk = make_trunk(sizes, goal=False, pool="mean")
        self.out = nn.Linear(sizes.width, critics * metric_dim)

    def forward(self, frames: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        difference = self.phi(frames) - self.phi(goal[:, None])  # (N, T, E, d)
        # The gradient of a root is infinite at 0, which the embedding of a reached goal attains.
        return -difference.float().square().sum(dim=-1).clamp(min=1e-6).sqrt()

    def phi(self, frames: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, T, E, d) of frames (N, T, P, W)."""
        return self.out(self.trunk(frames)).unflatten(-1, (self.critics, -1))
