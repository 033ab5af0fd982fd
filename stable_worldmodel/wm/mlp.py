"""Parts of the models that are not transformers: normed linear layers, ensembles, frozen calls, image shifts.

Shapes: N rows, E ensemble members, W width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from stable_worldmodel.wm.distributed import drawn


class NormedLinear(nn.Sequential):
    """Linear, dropout, LayerNorm, activation over the last axis (Mish: TD-MPC2)."""

    def __init__(self, in_width: int, width: int, activation: nn.Module | None = None, dropout: float = 0.0):
        super().__init__(nn.Linear(in_width, width), nn.Dropout(dropout), nn.LayerNorm(width), activation or nn.Mish())


class SimNorm(nn.Module):
    """Softmax in groups of `group` neighbours: each group is a point of a simplex (arXiv 2204.00616)."""

    def __init__(self, group: int = 8):
        super().__init__()
        self.group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.group)).softmax(dim=-1).flatten(-2)


class EnsembleLinear(nn.Module):
    """E linear layers as one batched product: (N, in) or (E, N, in) to (E, N, out)."""

    def __init__(self, members: int, in_width: int, out_width: int):
        super().__init__()
        bound = 1 / math.sqrt(in_width)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(members, in_width, out_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_width).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias  # (E, N, out)


class EnsembleNorm(nn.Module):
    """LayerNorm over the last axis of (E, N, W), with weights for each member."""

    def __init__(self, members: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:]) * self.weight + self.bias  # (E, N, W)


class EnsembleMLP(nn.Sequential):
    """E multi-layer perceptrons of equal sizes: x (N, widths[0]) to (E, N, widths[-1]).

    Every hidden layer has dropout (the first one only), LayerNorm and an activation.
    """

    def __init__(
        self,
        members: int,
        widths: Sequence[int],
        activation: Callable[[], nn.Module] = nn.Mish,
        dropout: float = 0.0,
    ):
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths[:-1])):
            layers += [EnsembleLinear(members, before, after)]
            layers += [nn.Dropout(dropout)] if dropout and i == 0 else []
            layers += [EnsembleNorm(members, after), activation()]
        super().__init__(*layers, EnsembleLinear(members, widths[-2], widths[-1]))


def mlp(widths: Sequence[int], activation: Callable[[], nn.Module] = nn.GELU, norm: bool = True) -> nn.Sequential:
    """Linear, LayerNorm, activation for every hidden width; a linear layer at the end."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), *([nn.LayerNorm(after)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def frozen(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call `module` with its parameters as constants: gradients pass through to the arguments only."""
    tensors = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, tensors, args, kwargs)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move the parameters of `target` towards those of `source`: (1 - rate) * target + rate * source."""
    torch._foreach_lerp_([*target.parameters()], [*source.parameters()], rate)


def target_copy(module: nn.Module, source: nn.Module) -> nn.Module:
    """`module`, of the same kind as `source`, with its weights and no gradient; `follow` moves it."""
    module.load_state_dict(source.state_dict())
    return module.requires_grad_(False)


def random_shift(images: torch.Tensor, pad: int, generator: torch.Generator | None, frames: int = 1) -> torch.Tensor:
    """Images (N, C, h, w), each moved by up to `pad` pixels; what comes in repeats the edge (arXiv 2107.09645).

    frames: T, where the images are those of clips, N = B * T.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate")  # (N, C, h + 2 pad, w + 2 pad)
    device = images.device
    moves = functools.partial(torch.randint, 0, 2 * pad + 1)
    offset = drawn(moves, (2, n // frames, frames, 1, 1), generator, batch_axis=1, device=device)
    offset = offset.flatten(1, 2)  # (2, N, 1, 1)
    rows = offset[0] + torch.arange(height, device=device)[:, None]  # (N, h, 1)
    columns = offset[1] + torch.arange(width, device=device)  # (N, 1, w)
    return padded.movedim(1, -1)[torch.arange(n, device=device)[:, None, None], rows, columns].movedim(-1, 1)
