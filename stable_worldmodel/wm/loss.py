"""Regularisers that keep a joint-embedding model from collapsing."""

from __future__ import annotations

import torch
from torch import nn

# The statistic grows with the number of samples. Tying it to one batch size lets a weight tuned at that size (128, as
# published) hold at any other.
REFERENCE_BATCH = 128


class SIGReg(nn.Module):
    """Distance of embeddings from a standard normal, by the Epps-Pulley test along random directions (LeJEPA/LeWM).

    A batch is standard normal if its projections on all directions are. Each projection is compared with N(0, 1)
    through the empirical characteristic function at `knots` points t in [0, 3]:

        err(t) = (mean cos(t x) - exp(-t^2 / 2))^2 + (mean sin(t x))^2
        statistic = 128 * integral of err(t) exp(-t^2 / 2) over [-3, 3]   (trapezoid rule; err is even)

    The result is averaged over directions and time steps. Everything is computed in float32.
    """

    t: torch.Tensor
    target: torch.Tensor
    weights: torch.Tensor

    def __init__(self, knots: int = 17, directions: int = 1024, limit: float = 3.0):
        super().__init__()
        self.directions = directions
        t = torch.linspace(0, limit, knots)  # (K,)
        dt = limit / (knots - 1)
        trapezoid = torch.full((knots,), 2 * dt)  # (K,), 2 for the mirrored half
        trapezoid[[0, -1]] = dt
        gaussian = torch.exp(-t.square() / 2)  # (K,)
        self.register_buffer("t", t, persistent=False)
        self.register_buffer("target", gaussian, persistent=False)
        self.register_buffer("weights", trapezoid * gaussian, persistent=False)

    def forward(self, z: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Statistic, a scalar, of embeddings z (T, B, D): tested over B, averaged over T.

        `generator` (on the device of z) draws the directions; ranks that share a step must pass equal ones.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            shape = (z.shape[-1], self.directions)
            directions = torch.randn(shape, device=z.device, generator=generator)  # (D, M)
            directions = directions / directions.norm(dim=0)  # (D, M)
            return self.statistic(*self.moments(z @ directions))

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of cos(t x) and sin(t x) over the batch, each (T, M, K), for projections x (T, B, M).

        They are all a rank has to share with the others: averaged over ranks of equal batch, they are those of the
        whole batch.
        """
        angles = x[..., None] * self.t  # (T, B, M, K)
        return angles.cos().mean(dim=1), angles.sin().mean(dim=1)

    def statistic(self, cos_mean: torch.Tensor, sin_mean: torch.Tensor) -> torch.Tensor:
        """Statistic, a scalar, from moments (T, M, K)."""
        error = (cos_mean - self.target).square() + sin_mean.square()  # (T, M, K)
        return REFERENCE_BATCH * (error @ self.weights).mean()
