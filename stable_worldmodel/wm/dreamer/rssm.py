"""The recurrent state-space model of Dreamer: a deterministic memory and a stochastic state of categoricals.

Shapes: N rows, T frames, h width of the memory (deter), S groups of K classes, A action width, E token width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.wm.distributed import drawn
from stable_worldmodel.wm.dreamer.config import DreamerConfig
from stable_worldmodel.wm.dreamer.networks import BlockLinear, RMSNorm, dense, head


class State(NamedTuple):
    """deter (..., h), stoch (..., S * K) one-hot in each group, and its log-probabilities logits (..., S, K)."""

    deter: torch.Tensor
    stoch: torch.Tensor
    logits: torch.Tensor

    @property
    def latent(self) -> torch.Tensor:
        """What the heads read, (..., h + S * K)."""
        return torch.cat([self.deter, self.stoch], dim=-1)


class BlockGRU(nn.Module):
    """A gated recurrent unit over G independent blocks of the memory; every block sees the same inputs.

    r = sigmoid(reset), c = tanh(r * candidate), u = sigmoid(update - 1), h = u * c + (1 - u) * h
    """

    def __init__(self, deter: int, in_width: int, blocks: int):
        super().__init__()
        self.blocks = blocks
        self.hidden = BlockLinear(deter + blocks * in_width, deter, blocks)
        self.norm = RMSNorm(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def forward(self, deter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map memory (N, h) and inputs (N, in_width) to the next memory (N, h)."""
        blocks = deter.unflatten(-1, (self.blocks, -1))  # (N, G, h / G)
        shared = x[..., None, :].expand(*x.shape[:-1], self.blocks, -1)  # (N, G, in_width)
        hidden = self.hidden(torch.cat([blocks, shared], dim=-1).flatten(-2))  # (N, h)
        gates = self.gates(F.silu(self.norm(hidden))).unflatten(-1, (self.blocks, 3, -1))  # (N, G, 3, h / G)
        reset, candidate, update = gates.unbind(-2)  # each (N, G, h / G)
        update = torch.sigmoid(update - 1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return (update * candidate + (1 - update) * blocks).flatten(-2)  # (N, h)


class RSSM(nn.Module):
    """Memory, prior and posterior."""

    def __init__(self, config: DreamerConfig, token_width: int) -> None:
        super().__init__()
        self.config = c = config
        stoch = c.groups * c.classes
        self.from_deter, self.from_stoch, self.from_action = (
            dense(width, c.hidden) for width in (c.deter, stoch, c.action_dim)
        )
        self.core = BlockGRU(c.deter, 3 * c.hidden, c.blocks)
        self.prior_head = head(c.deter, c.hidden, 2, stoch)
        self.posterior_head = head(c.deter + token_width, c.hidden, 1, stoch)

    def initial(self, rows: int, like: torch.Tensor) -> State:
        """The state before an episode, all zeros."""
        c = self.config
        return State(
            like.new_zeros(rows, c.deter),
            like.new_zeros(rows, c.groups * c.classes),
            like.new_zeros(rows, c.groups, c.classes),
        )

    def advance(self, state: State, action: torch.Tensor) -> torch.Tensor:
        """The memory (N, h) after an action (N, A); actions beyond 1 are scaled back to it."""
        action = action.to(state.deter.dtype)
        action = action / action.detach().abs().clamp(min=1)
        x = torch.cat(
            [self.from_deter(state.deter), self.from_stoch(state.stoch), self.from_action(action)], dim=-1
        )  # (N, 3 * hidden)
        return self.core(state.deter, x)

    def prior(self, deter: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (..., S, K) of the state given the memory (..., h)."""
        return self._mixed(self.prior_head(deter))

    def posterior(self, deter: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (..., S, K) of the state given the memory (..., h) and the frame (..., E)."""
        return self._mixed(self.posterior_head(torch.cat([deter, tokens.to(deter.dtype)], dim=-1)))

    def observe(
        self,
        tokens: torch.Tensor,
        previous: torch.Tensor,
        first: torch.Tensor,
        generator: torch.Generator | None = None,
        sample: bool = True,
    ) -> State:
        """States (B, T, ...) of tokens (B, T, E), each after the action `previous` (B, T, A) that led to it.

        `first` (B, T), bool, marks frames that begin an episode: what came before is forgotten. The most likely state
        is taken instead of a sample if not `sample`.
        """
        previous = previous.to(self.core.gates.weight)
        state = self.initial(len(tokens), previous)
        states = []
        for t in range(tokens.shape[1]):
            keep = (~first[:, t]).to(previous)[:, None]  # (B, 1)
            state = State(state.deter * keep, state.stoch * keep, state.logits)
            deter = self.advance(state, previous[:, t] * keep)  # (B, h)
            state = self.state(deter, self.posterior(deter, tokens[:, t]), generator, sample)
            states.append(state)
        return State(*(torch.stack(parts, dim=1) for parts in zip(*states, strict=True)))

    def imagine(
        self, state: State, action: torch.Tensor, generator: torch.Generator | None = None, sample: bool = True
    ) -> State:
        """The state after an action (N, A), drawn from the prior."""
        deter = self.advance(state, action)  # (N, h)
        return self.state(deter, self.prior(deter), generator, sample)

    def state(
        self, deter: torch.Tensor, logits: torch.Tensor, generator: torch.Generator | None, sample: bool = True
    ) -> State:
        """The state of a memory (..., h) whose categoricals have log-probabilities (..., S, K), drawn or most likely.

        Memory and draw are in the precision of the networks, the log-probabilities in float32.
        """
        stoch = self.draw(logits.float(), generator, sample)  # (..., S * K)
        weight = self.core.gates.weight
        return State(deter.to(weight.dtype), stoch.to(weight.dtype), logits.float())

    def draw(self, logits: torch.Tensor, generator: torch.Generator | None, sample: bool = True) -> torch.Tensor:
        """One-hot states (..., S * K), with the gradient of the probabilities."""
        scores = logits
        if sample:
            uniform = drawn(torch.rand, logits.shape, generator, device=logits.device)
            scores = logits - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))  # the Gumbel trick
        one_hot = F.one_hot(scores.argmax(dim=-1), logits.shape[-1]).to(logits)  # (..., S, K)
        p = logits.exp()
        return (one_hot + p - p.detach()).flatten(-2)

    def _mixed(self, raw: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (..., S, K) with a share of a uniform distribution, float32."""
        p = raw.float().unflatten(-1, (self.config.groups, self.config.classes)).softmax(dim=-1)
        return ((1 - self.config.unimix) * p + self.config.unimix / self.config.classes).log()
