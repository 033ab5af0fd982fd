"""Loss terms of the world models. All are computed in float32.

Statistics of a batch are those of the whole batch of a data-parallel step, see `wm.distributed`.

Shapes: B clips or samples, T frames, D latent width, M directions, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.distributed import broadcast, mean_over_processes, num_processes
from stable_worldmodel.wm.tensors import ExactBuffers

# Name -> (weight, value) of the terms of a loss.
Terms = dict[str, tuple[float, torch.Tensor]]

# SIGReg's statistic grows with the number of samples. Tying it to one batch size lets a weight tuned at that size (128,
# as published) hold at any other.
REFERENCE_BATCH = 128


def weighted_sum(terms: Mapping[str, tuple[float, torch.Tensor]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, sum of weight times value over the terms that have a weight, and all values detached with it."""
    values = [weight * value for weight, value in terms.values() if weight]
    if not values:
        raise ContractError(f"all of the loss terms {sorted(terms)} have weight 0")
    loss = torch.stack(values).sum()
    return loss, {"loss": loss.detach(), **{name: value.detach() for name, (_, value) in terms.items()}}


class SIGReg(ExactBuffers):
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

        `generator` (on the device of z) draws the directions; processes that share a step must pass equal ones.
        Without one, the first process draws for all.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            shape = (z.shape[-1], self.directions)
            directions = torch.randn(shape, device=z.device, generator=generator)  # (D, M)
            if generator is None:
                directions = broadcast(directions)
            directions = directions / directions.norm(dim=0)  # (D, M)
            cos_mean, sin_mean = self.moments(z @ directions)  # each (T, M, K)
            return self.statistic(mean_over_processes(cos_mean), mean_over_processes(sin_mean))

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of cos(t x) and sin(t x) over the batch, each (T, M, K), for projections x (T, B, M).

        They are all a process has to share with the others: averaged over processes of equal batch, they are those of
        the whole batch.
        """
        angles = x[..., None] * self.t  # (T, B, M, K)
        return angles.cos().mean(dim=1), angles.sin().mean(dim=1)

    def statistic(self, cos_mean: torch.Tensor, sin_mean: torch.Tensor) -> torch.Tensor:
        """Statistic, a scalar, from moments (T, M, K)."""
        error = (cos_mean - self.target).square() + sin_mean.square()  # (T, M, K)
        return REFERENCE_BATCH * (error @ self.weights).mean()


class VCReg(nn.Module):
    """Variance and covariance terms of VICReg (arXiv 2105.04906, eqs. 1-4), over the batch and over time.

        std = mean over dimensions of max(0, 1 - sqrt(var + 1e-4))
        cov = sum of squared off-diagonal covariances / (D^2 - D)

    Both use unbiased estimates, and each of the T time steps of a batch is a sample of its own.
    """

    def forward(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scalars `std` and `cov` over the batch of z (B, T, D) or (B, D), and for clips `std_t`, `cov_t` over time."""
        if z.ndim not in (2, 3):
            raise ContractError(f"embeddings {tuple(z.shape)}: expected (B, T, D) or (B, D)")
        with torch.autocast(z.device.type, enabled=False):
            clips = z.float() if z.ndim == 3 else z.float()[:, None]  # (B, T, D)
            std, cov = self._over_batch(clips.transpose(0, 1))
            if z.ndim == 2:
                return {"std": std, "cov": cov}
            std_t, cov_t = self._over_time(clips)
            return {"std": std, "cov": cov, "std_t": std_t, "cov_t": cov_t}

    def _over_batch(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """std and cov of z (T, B, D) over all samples of all processes; the largest tensor is (T, D, D)."""
        samples = z.shape[1] * num_processes()
        centred = z - mean_over_processes(z.mean(dim=1, keepdim=True))  # (T, B, D)
        second = mean_over_processes(centred.mT @ centred / z.shape[1])  # (T, D, D)
        covariance = second * samples / max(1, samples - 1)  # (T, D, D)
        variance = covariance.diagonal(dim1=1, dim2=2)  # (T, D)
        off_diagonal = covariance.square().sum() - variance.square().sum()
        return _hinge(variance), off_diagonal / (len(z) * _pairs(z.shape[-1]))

    def _over_time(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """std and cov of every clip of z (B, T, D) over its frames; the largest tensor is (B, T, T)."""
        steps = max(1, z.shape[1] - 1)
        centred = z - z.mean(dim=1, keepdim=True)  # (B, T, D)
        variance = centred.square().sum(dim=1) / steps  # (B, D)
        # The squares of X'X and of XX' have the same sum, and clips are short.
        gram = centred @ centred.mT / steps  # (B, T, T)
        off_diagonal = gram.square().sum() - variance.square().sum()
        return _hinge(variance), off_diagonal / (len(z) * _pairs(z.shape[-1]))


def _hinge(variance: torch.Tensor) -> torch.Tensor:
    return F.relu(1 - (variance + 1e-4).sqrt()).mean()


def _pairs(width: int) -> int:
    """Off-diagonal entries of a (width, width) matrix."""
    return max(1, width * width - width)


class TemporalStraighteningLoss(nn.Module):
    """Minus the mean cosine between consecutive velocities of a clip: -1 on straight paths."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """A scalar, for latents z (B, T, D) with T >= 3."""
        if z.shape[1] < 3:
            raise ContractError(f"clips of {z.shape[1]} frames: expected at least 3, two consecutive velocities")
        velocity = z.float().diff(dim=1)  # (B, T - 1, D)
        return -F.cosine_similarity(velocity[:, 1:], velocity[:, :-1], dim=-1).mean()


class PLDMLoss(nn.Module):
    """The regularisers of PLDM (arXiv 2502.14819) with their weights; a weight of 0 leaves a term in the metrics only.

    `first_only` applies `std` and `cov` to the first frame of each clip, as the original code does.
    """

    def __init__(
        self,
        std: float = 18.0,
        cov: float = 12.0,
        std_t: float = 0.7,
        cov_t: float = 0.0,
        temp_align: float = 0.2,
        temp_straight: float = 0.0,
        first_only: bool = False,
    ):
        super().__init__()
        self.weights = {"std": std, "cov": cov, "std_t": std_t, "cov_t": cov_t, "temp_align": temp_align}
        self.temp_straight = temp_straight
        self.first_only = first_only
        self.vcreg = VCReg()
        self.straightening = TemporalStraighteningLoss()

    def forward(self, z: torch.Tensor) -> Terms:
        """(weight, value) of each term, for latents z (B, T, D)."""
        z = z.float()
        values = self.vcreg(z)
        if self.first_only:
            values |= self.vcreg(z[:, 0])
        values["temp_align"] = (z[:, 1:] - z[:, :-1]).square().mean()
        terms: Terms = {name: (weight, values[name]) for name, weight in self.weights.items()}
        if self.temp_straight:
            terms["temp_straight"] = (self.temp_straight, self.straightening(z))
        return terms


def expectile_loss(target: torch.Tensor, predicted: torch.Tensor, expectile: float) -> torch.Tensor:
    """Asymmetric square (Newey and Powell 1987), elementwise: |expectile - 1(target < predicted)| * difference^2.

    With an expectile above 1/2, predictions below the target cost more, so that the best one lies near the maximum.
    """
    difference = target - predicted
    return torch.where(difference < 0, 1 - expectile, expectile) * difference.square()


class ExpectileLoss(nn.Module):
    """Mean of `expectile_loss`."""

    def __init__(self, expectile: float = 0.9):
        super().__init__()
        self.expectile = expectile

    def forward(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return expectile_loss(target, predicted, self.expectile).mean()
