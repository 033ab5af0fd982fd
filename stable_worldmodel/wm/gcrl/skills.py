"""Skills in a Hilbert space (arXiv 2402.15567): to move an embedding in a given direction.

A skill z is a unit vector, its reward the progress along it, <phi(s') - phi(s), z>. The way to a goal is the skill that
points there, so one policy serves every goal.

Shapes: B clips, T frames, P patches, W token width, d width of an embedding, A action width.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.wm.distributed import drawn
from stable_worldmodel.wm.gcrl.networks import Predictor, QPredictor, TrunkSizes
from stable_worldmodel.wm.loss import Terms, expectile_loss
from stable_worldmodel.wm.mlp import follow


class Skills(nn.Module):
    """Implicit Q-learning of the value of skills. The policy that it weighs is the caller's."""

    def __init__(self, sizes: TrunkSizes, metric_dim: int, action_dim: int, critics: int, expectile: float) -> None:
        super().__init__()
        self.expectile = expectile
        self.embed = nn.Linear(metric_dim, sizes.width)
        self.value = Predictor(sizes, 1, pool="mean", zero=True)
        self.q = QPredictor(sizes, action_dim, critics)
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)

    def token(self, skill: torch.Tensor) -> torch.Tensor:
        """What networks take for a goal, (B, 1, W), for skills (B, d)."""
        return self.embed(skill)[:, None]

    def losses(
        self,
        now: torch.Tensor,
        later: torch.Tensor,
        progress: torch.Tensor,
        skill: torch.Tensor,
        actions: torch.Tensor,
        discount: float,
    ) -> Terms:
        """Losses of V and Q for tokens (B, T, P, W), progress phi(s') - phi(s) (B, T, d) and skills (B, d)."""
        token = self.token(skill)
        reward = (progress * skill[:, None]).sum(dim=-1)  # (B, T)
        with torch.no_grad():
            best = self.target_q(now, token, actions).float().amin(dim=0)  # (B, T)
            target = reward + discount * self.value(later, token).float()[..., 0]  # (B, T)
        value = self.value(now, token).float()[..., 0]  # (B, T)
        q = self.q(now, token, actions).float()  # (E, B, T)
        return {
            "skill_value": (1.0, expectile_loss(best, value, self.expectile).mean()),
            "skill_q": (1.0, (q - target).square().mean()),
        }

    @torch.no_grad()
    def advantage(self, now: torch.Tensor, skill: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q(s, a, z) - V(s, z), (B, T)."""
        token = self.token(skill)
        return self.target_q(now, token, actions).float().amin(dim=0) - self.value(now, token).float()[..., 0]

    def after_step(self, rate: float) -> None:
        """Move the target."""
        follow(self.target_q, self.q, rate)


def random_skills(rows: int, width: int, like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Unit vectors (rows, width), uniform over directions."""
    return F.normalize(drawn(torch.randn, (rows, width), generator, device=like.device), dim=-1)
