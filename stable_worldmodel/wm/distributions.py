"""Squashed numbers, two-hot regression, and squashed Gaussians.

Two-hot regression predicts a number as a distribution over fixed bins (arXiv 1707.06887, 2301.04104): its target puts
all weight on the two bins around the number, so that their mean is the number again.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from stable_worldmodel.wm.distributed import drawn, gathered
from stable_worldmodel.wm.tensors import ExactBuffers

LOG_2PI = math.log(2 * math.pi)


def symlog(x: torch.Tensor) -> torch.Tensor:
    """sign(x) * log(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: torch.Tensor) -> torch.Tensor:
    """sign(x) * (exp(|x|) - 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class TwoHot(ExactBuffers):
    """Numbers as distributions over `bins` bins between `low` and `high`, in symlog units.

    With `squash` the interpolation is linear in symlog(x), bins at linspace(low, high) (TD-MPC2); without it in x, bins
    at symexp(linspace(low, high)) (DreamerV3). All in float32.
    """

    centres: torch.Tensor

    def __init__(self, bins: int, low: float, high: float, squash: bool):
        super().__init__()
        self.squash = squash
        # Built from two equal halves: uniform logits decode to exactly 0 when the range is symmetric.
        centres = torch.linspace(low, high, bins, dtype=torch.float64)
        if low == -high:
            centres = (centres - centres.flip(0)) / 2
        self.register_buffer("centres", (centres if squash else symexp(centres)).float(), persistent=False)

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (...) between logits (..., bins) and the two-hot distribution of target (...)."""
        lower, weight = self._position(target.float())
        log_p = logits.float().log_softmax(dim=-1)  # (..., bins)
        below = log_p.gather(-1, lower[..., None])[..., 0]
        above = log_p.gather(-1, lower[..., None] + 1)[..., 0]
        return -((1 - weight) * below + weight * above)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Two-hot distribution (..., bins) of x (...)."""
        lower, weight = self._position(x.float())
        p = x.new_zeros(*x.shape, len(self.centres), dtype=torch.float32)
        p.scatter_(-1, lower[..., None], (1 - weight)[..., None])
        return p.scatter_(-1, lower[..., None] + 1, weight[..., None])

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Numbers (...), the mean under logits (..., bins)."""
        p = logits.float().softmax(dim=-1)
        if self.squash:
            return symexp(p @ self.centres)
        # Huge bins of both signs would drown the small ones in rounding: pair them, smallest first.
        middle = len(self.centres) // 2
        weighted = p * self.centres  # (..., bins)
        pairs = weighted[..., :middle].flip(-1) + weighted[..., -middle:]  # (..., middle)
        centre = weighted[..., middle] if len(self.centres) % 2 else 0.0
        return pairs.sum(dim=-1) + centre

    def _position(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Index of the bin below each number, and the weight of the one above."""
        x = (symlog(x) if self.squash else x).clamp(self.centres[0], self.centres[-1])
        lower = torch.searchsorted(self.centres, x.contiguous(), right=True).sub(1).clamp(0, len(self.centres) - 2)
        left, right = self.centres[lower], self.centres[lower + 1]
        return lower, (x - left) / (right - left)


def gaussian_log_prob(x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log density (...) of x (..., A) under independent normals."""
    error = (x - mean) * torch.exp(-log_std)
    return (-0.5 * error.square() - log_std - 0.5 * LOG_2PI).sum(dim=-1)


def squashed_gaussian(
    mean: torch.Tensor, log_std: torch.Tensor, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A reparametrised sample tanh(mean + std * noise) (..., A) in [-1, 1] and its log density (...)."""
    noise = drawn(torch.randn, mean.shape, generator, device=mean.device, dtype=mean.dtype)
    x = mean + log_std.exp() * noise  # (..., A)
    # log(1 - tanh(x)^2), in the form that stays finite.
    correction = (2 * (math.log(2) - x - F.softplus(-2 * x))).sum(dim=-1)
    return x.tanh(), gaussian_log_prob(x, mean, log_std) - correction


def categorical_kl(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    """KL(p || q) (...) of categoricals with logits (..., groups, classes), summed over the groups."""
    p, q = p_logits.log_softmax(dim=-1), q_logits.log_softmax(dim=-1)
    return (p.exp() * (p - q)).sum(dim=(-2, -1))


class PercentileScale(ExactBuffers):
    """Running range between the 5th and the 95th percentile, for scaling returns (arXiv 2301.04104, eq. 7).

    It starts at `start` and never falls below `floor`.
    """

    value: torch.Tensor

    def __init__(self, rate: float = 0.01, start: float = 1.0, floor: float = 1.0):
        super().__init__()
        self.rate, self.floor = rate, floor
        self.register_buffer("value", torch.tensor(float(start)))

    @torch.no_grad()
    def update(self, x: torch.Tensor) -> None:
        """Move towards the range of x, any shape; with several processes, of the x of all of them."""
        low, high = torch.quantile(gathered(x.float().flatten()), x.new_tensor([0.05, 0.95], dtype=torch.float32))
        self.value.lerp_((high - low).to(self.value), self.rate)

    def forward(self) -> torch.Tensor:
        """The range, a scalar >= floor."""
        return self.value.clamp(min=self.floor)
