"""Actor and critic of Dreamer, learned on imagined states.

Shapes: N rows, T imagined states, H = T - 1 actions between them, F latent width, A action width, K bins.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.wm.distributed import drawn
from stable_worldmodel.wm.distributions import LOG_2PI, PercentileScale, TwoHot
from stable_worldmodel.wm.dreamer.config import DreamerConfig
from stable_worldmodel.wm.dreamer.networks import head, scale_output

STD_RANGE = (0.1, 1.0)


def lambda_returns(
    rewards: torch.Tensor, continues: torch.Tensor, values: torch.Tensor, lam: float, end: torch.Tensor | None = None
) -> torch.Tensor:
    """R_t = r_{t+1} + c_{t+1} * ((1 - lam) * v_{t+1} + lam * R_{t+1}) for all but the last of T states, (..., T - 1).

    rewards, continues and values are (..., T), the first two on arrival at their state. R of the last state is `end`
    (...), or its value.
    """
    following = values[..., -1] if end is None else end  # (...)
    returns = []
    for t in range(values.shape[-1] - 1, 0, -1):
        mixed = (1 - lam) * values[..., t] + lam * following
        following = rewards[..., t] + continues[..., t] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], dim=-1)


class Actor(nn.Module):
    """A policy over latents (..., F): a bounded normal, or a categorical for one-hot actions."""

    def __init__(self, config: DreamerConfig, latent: int) -> None:
        super().__init__()
        self.config = c = config
        self.network = head(latent, c.units, 3, c.action_dim if c.discrete else 2 * c.action_dim)

    def sample(self, latent: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """A drawn action (..., A)."""
        if self.config.discrete:
            log_p = self._log_p(latent)  # (..., A)
            uniform = drawn(torch.rand, log_p.shape, generator, device=log_p.device).clamp(1e-20, 1 - 1e-7)
            return F.one_hot((log_p - (-uniform.log()).log()).argmax(dim=-1), log_p.shape[-1]).to(log_p)
        mean, std = self._normal(latent)
        return mean + std * drawn(torch.randn, mean.shape, generator, device=mean.device)

    def mode(self, latent: torch.Tensor) -> torch.Tensor:
        """The most likely action (..., A)."""
        if self.config.discrete:
            return F.one_hot(self._log_p(latent).argmax(dim=-1), self.config.action_dim).float()
        return self._normal(latent)[0]

    def log_prob_entropy(self, latent: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy (...) of actions (..., A)."""
        if self.config.discrete:
            log_p = self._log_p(latent)  # (..., A)
            return (log_p * action).sum(dim=-1), -(log_p.exp() * log_p).sum(dim=-1)
        mean, std = self._normal(latent)
        log_std = std.log()
        log_prob = -0.5 * ((action - mean) / std).square() - log_std - 0.5 * LOG_2PI
        return log_prob.sum(dim=-1), (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)

    def _normal(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, raw = self.network(latent).float().chunk(2, dim=-1)
        low, high = STD_RANGE
        return mean.tanh(), low + (high - low) * torch.sigmoid(raw + 2)

    def _log_p(self, latent: torch.Tensor) -> torch.Tensor:
        p = self.network(latent).float().softmax(dim=-1)
        return ((1 - self.config.unimix) * p + self.config.unimix / self.config.action_dim).log()


class Behaviour(nn.Module):
    """Actor, critic, slow critic and the scale of returns. Calling it gives their losses on imagined states."""

    def __init__(self, config: DreamerConfig, latent: int) -> None:
        super().__init__()
        self.config = c = config
        self.actor = Actor(c, latent)
        self.critic = head(latent, c.units, 3, c.bins)
        self.slow_critic = head(latent, c.units, 3, c.bins)
        self.twohot = TwoHot(c.bins, -20.0, 20.0, squash=False)
        self.scale = PercentileScale(rate=0.01, start=1.0, floor=1.0)

    def finish_init(self) -> None:
        """Small first actions, values of 0, and a slow critic equal to the critic; after all other initialisation."""
        scale_output(self.actor.network, 0.01)
        scale_output(self.critic, 0.0)
        self.slow_critic.load_state_dict(self.critic.state_dict())
        self.slow_critic.requires_grad_(False)

    def forward(
        self, latents: torch.Tensor, actions: torch.Tensor, rewards: torch.Tensor, continues: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
        """Losses `actor` and `critic`, metrics, and the returns (N, H) of imagined, detached latents (N, T, F).

        actions (N, H, A) lead from state to state; rewards and continues (N, T) are those on arrival.

        actor:  -sg((R - V) / max(1, S)) * log pi(a) - entropy_weight * entropy
        critic: cross-entropy to R, and to the slow critic's value
        """
        c = self.config
        logits = self.critic(latents)  # (N, T, K)
        values = self.twohot.decode(logits).detach()  # (N, T)
        returns = lambda_returns(rewards, continues, values, c.return_lambda).detach()  # (N, H)
        if self.training:
            self.scale.update(returns)
        # How likely each state is still part of the episode, discounted; the first entry says it of where it starts.
        weight = continues[:, :-1].cumprod(dim=1)  # (N, H)
        advantage = (returns - values[:, :-1]) / self.scale()  # (N, H)
        log_prob, entropy = self.actor.log_prob_entropy(latents[:, :-1], actions)  # each (N, H)
        actor = -(weight * (advantage * log_prob + c.entropy_weight * entropy)).mean()
        critic = (weight * self.critic_error(latents[:, :-1], logits[:, :-1], returns)).mean()
        metrics = {"return": returns.mean(), "entropy": entropy.mean(), "scale": self.scale.value.clone()}
        return {"actor": actor, "critic": critic}, metrics, returns

    def critic_error(self, latents: torch.Tensor, logits: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
        """Cross-entropies (...) of the critic's logits (..., K) to returns (...) and to the slow critic's values."""
        with torch.no_grad():
            slow = self.twohot.decode(self.slow_critic(latents))  # (...)
        return self.twohot.loss(logits, returns) + self.config.slow_critic_weight * self.twohot.loss(logits, slow)
