"""Dreamer: mastering diverse domains through world models (arXiv 2301.04104).

A recurrent state-space model learns to decode what it observed and to predict its own next state; reward, critic and
actor are learned on states it imagines.

Shapes: B clips, n envs, S candidates, T frames, L context frames, H planned steps, F latent width (deter and stoch),
D = F the width of `emb` (deter and log-probabilities), A action width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.distributions import TwoHot, categorical_kl
from stable_worldmodel.wm.dreamer.behaviour import Behaviour, lambda_returns
from stable_worldmodel.wm.dreamer.config import DreamerConfig
from stable_worldmodel.wm.dreamer.networks import (
    Decoder,
    Encoder,
    head,
    init_weights,
    observed_images,
    observed_vectors,
    scale_output,
)
from stable_worldmodel.wm.dreamer.rssm import RSSM, State
from stable_worldmodel.wm.loss import Terms, weighted_sum
from stable_worldmodel.wm.mlp import follow
from stable_worldmodel.wm.tensors import Batch, Metrics, action_blocks, action_history, entry, fill_nan, first_sample


class Dreamer(nn.Module):
    """The world model of `config` with its policy. Calling it gives the training loss.

    Actions lie in [-1, 1], or are one-hot. Reward t of a clip was received on arrival at frame t, as datasets store it.
    """

    def __init__(self, config: DreamerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = Encoder(c)
        self.rssm = RSSM(c, self.encoder.width)
        self.decoder = Decoder(c)
        latent = c.deter + c.groups * c.classes
        self.continues = head(latent, c.units, 1, 1)
        self.twohot = TwoHot(c.bins, -20.0, 20.0, squash=False)
        self.reward = head(latent, c.units, 1, c.bins) if c.behaviour else None
        self.behaviour = Behaviour(c, latent) if c.behaviour else None
        self.apply(init_weights)
        if self.reward is not None and self.behaviour is not None:
            scale_output(self.reward, 0.0)
            self.behaviour.finish_init()

    # -- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """Loss, a scalar, and its detached parts for clips of the observed columns (B, T, ...), `action` (B, T, A) and,
        with `behaviour`, `reward` (B, T).

        `terminated` (B, T) and `is_first` (B, T), bool, mark ends and beginnings of episodes; without them a clip is
        part of one episode. The losses of actor and critic do not reach the world model.
        """
        actions = self._actions(entry(batch, "action"))  # (B, T, A)
        first = batch["is_first"].bool() if "is_first" in batch else torch.zeros(actions.shape[:2], dtype=torch.bool)
        first = first.to(actions.device).clone()
        first[:, 0] = True  # nothing is known of what came before
        previous = F.pad(actions[:, :-1], (0, 0, 1, 0))  # (B, T, A)
        states = self.rssm.observe(self.encoder(batch), previous, first, generator)  # (B, T, ...)
        terms, metrics = self._world_losses(batch, states)
        if self.behaviour is not None:
            rewards = _per_frame(entry(batch, "reward"), actions)  # (B, T)
            behaviour, more = self._behaviour_losses(states, rewards, self._continue_target(batch, actions), generator)
            terms |= behaviour
            metrics |= more
        loss, values = weighted_sum(terms)
        return loss, {**values, **{name: value.detach() for name, value in metrics.items()}}

    def after_step(self) -> None:
        """Move the slow critic; to be called after every optimiser step."""
        if self.behaviour is not None:
            follow(self.behaviour.slow_critic, self.behaviour.critic, self.config.slow_critic_rate)

    def _world_losses(self, batch: Batch, states: State) -> tuple[Terms, Metrics]:
        """Reconstruction, reward, continuation, and the two halves of the KL divergence of posterior and prior."""
        c = self.config
        decoded = self.decoder(states.latent.flatten(0, 1))
        prior = self.rssm.prior(states.deter)  # (B, T, S, K)
        dynamics = categorical_kl(states.logits.detach(), prior)  # (B, T)
        representation = categorical_kl(states.logits, prior.detach())  # (B, T)
        terms: Terms = {
            "dynamics": (c.dynamics_weight, dynamics.clamp(min=c.free_nats).mean()),
            "representation": (c.representation_weight, representation.clamp(min=c.free_nats).mean()),
        }
        if c.images:
            error = decoded["images"].float() - observed_images(c, batch).flatten(0, 1)  # (B * T, 3, s, s)
            terms["image"] = (1.0, error.square().flatten(1).sum(dim=1).mean())
        if c.inputs:
            error = decoded["vectors"].float() - observed_vectors(c, batch).flatten(0, 1)  # (B * T, d)
            terms["vector"] = (1.0, error.square().sum(dim=1).mean())
        target = self._continue_target(batch, states.deter)  # (B, T)
        logits = self.continues(states.latent)[..., 0].float()  # (B, T)
        terms["continue"] = (1.0, F.binary_cross_entropy_with_logits(logits, target))
        if self.reward is not None:
            rewards = _per_frame(entry(batch, "reward"), states.deter)
            terms["reward"] = (1.0, self.twohot.loss(self.reward(states.latent), rewards).mean())
        return terms, {"kl": dynamics.mean()}

    def _behaviour_losses(
        self, states: State, rewards: torch.Tensor, continues: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[Terms, Metrics]:
        """Losses of actor and critic on states imagined from every state of the clips (B, T, ...), and of the critic on
        the clips themselves.
        """
        assert self.behaviour is not None
        c = self.config
        with torch.no_grad():
            latents, actions = self._imagine(states, generator)  # (N, 1 + H, F), (N, H, A), N = B * T
            imagined = self._predicted_reward(latents)  # (N, 1 + H)
            going_on = torch.sigmoid(self.continues(latents)[..., 0].float())  # (N, 1 + H)
            going_on[:, 0] = (continues.flatten() > 0).float()
        losses, metrics, returns = self.behaviour(latents, actions, imagined, going_on)
        terms: Terms = {name: (1.0, loss) for name, loss in losses.items()}
        # The value of replayed states, from the rewards that really followed. It shapes the world model, too.
        logits = self.behaviour.critic(states.latent)  # (B, T, K)
        with torch.no_grad():
            values = self.behaviour.twohot.decode(logits)  # (B, T)
            end = returns[:, 0].unflatten(0, values.shape)[:, -1]  # (B,)
            replayed = lambda_returns(rewards, continues, values, c.return_lambda, end)  # (B, T - 1)
        error = self.behaviour.critic_error(states.latent[:, :-1].detach(), logits[:, :-1], replayed)  # (B, T - 1)
        terms["replay_critic"] = (c.replay_value_weight, (error * (continues[:, :-1] > 0)).mean())
        return terms, metrics

    def _imagine(self, state: State, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (N, 1 + H, F) from states (B, T, ...) on, N = B * T, and the actor's actions (N, H, A) there."""
        assert self.behaviour is not None
        latents, actions = [state.latent], []
        for _ in range(self.config.imagined_steps):
            actions.append(self.behaviour.actor.sample(latents[-1], generator))  # (B, T, A)
            state = self.rssm.imagine(state, actions[-1], generator)
            latents.append(state.latent)  # (B, T, F)
        return torch.stack(latents, dim=2).flatten(0, 1), torch.stack(actions, dim=2).flatten(0, 1)

    def _continue_target(self, batch: Batch, like: torch.Tensor) -> torch.Tensor:
        """(1 - terminated) * (1 - 1 / discount_horizon), (B, T)."""
        discount = 1 - 1 / self.config.discount_horizon
        if "terminated" not in batch:
            return torch.full(like.shape[:2], discount, device=like.device)
        return (1 - _per_frame(batch["terminated"], like).clamp(max=1)) * discount

    # -- acting and planning ------------------------------------------------------------------------------------------

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, D): memory and log-probabilities of the states of the observed frames.

        Frames follow each other; `action` (n, T, A) holds what left each of them, without it the actions are 0.
        """
        tokens = self.encoder(info)  # (n, T, E)
        previous = tokens.new_zeros(*tokens.shape[:2], self.config.action_dim)  # (n, T, A)
        if "action" in info:
            previous[:, 1:] = self._actions(info["action"])[:, :-1]
        return {**info, "emb": _embedding(self._filtered(tokens, previous))}

    def decode(self, emb: torch.Tensor) -> torch.Tensor:
        """Images (..., 3, s, s) in [0, 1] of latents (..., D), of the first image column."""
        if not self.config.images:
            raise ContractError("this model observes no images")
        images = self.decoder(self._state(emb.flatten(0, -2)).latent)["images"]
        return images[:, :3].unflatten(0, emb.shape[:-1])

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, D) for candidates (n, S, H, A); the context comes first.

        The L observed frames are filtered through the posterior, with `action_history` (n, L - 1, A) between them; what
        follows is the most likely state of the prior at each step. `last_only` returns the last latent alone.
        """
        emb = self._context(info)  # (n, L, D)
        n, samples = candidates.shape[:2]
        env = torch.arange(n, device=emb.device).repeat_interleave(samples)
        state = self._state(emb[env, -1])
        latents = [] if last_only else [*emb[env].unbind(1)]
        for action in self._actions(candidates).flatten(0, 1).unbind(1):
            state = self.rssm.imagine(state, action, sample=False)
            latents = [_embedding(state)] if last_only else [*latents, _embedding(state)]
        return {**info, "emb": emb, "predicted_emb": torch.stack(latents, dim=1).unflatten(0, (n, samples))}

    def prepare(self, info: Info) -> Info:
        """What `cost` needs of an info: the context `emb` (n, L, D) and, without rewards, the goal `goal_emb`."""
        context = {"emb": self._context(info)}
        if self.behaviour is None:
            goal = {name: entry(info, "goal" if name == "pixels" else f"goal_{name}") for name in self._columns}
            context["goal_emb"] = self.encode({name: value[:, -1:] for name, value in goal.items()})["emb"]
        return context

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Minus the predicted return (n, S) of candidates (n, S, H, A): rewards, and the critic's value at the end.

        Without rewards: the mean squared difference of the last state's probabilities and the goal's. The memory takes
        no part, because that of a single frame knows nothing of it.
        """
        if self.behaviour is None or self.reward is None:
            end = self.rollout(context, candidates, last_only=True)["predicted_emb"][:, :, -1]  # (n, S, D)
            goal = context["goal_emb"][:, -1:]  # (n, 1, D)
            h = self.config.deter
            return (end[..., h:].exp() - goal[..., h:].exp()).square().mean(dim=-1)
        predicted = self.rollout(context, candidates)["predicted_emb"][:, :, context["emb"].shape[1] :]  # (n, S, H, D)
        latents = self._state(predicted).latent  # (n, S, H, F)
        alive = torch.sigmoid(self.continues(latents)[..., 0].float()).cumprod(dim=-1)  # (n, S, H)
        before = F.pad(alive[..., :-1], (1, 0), value=1.0)  # (n, S, H)
        value = self.behaviour.twohot.decode(self.behaviour.critic(latents[:, :, -1]))  # (n, S)
        return -((before * self._predicted_reward(latents)).sum(dim=-1) + alive[..., -1] * value)

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """`cost` (n, S) of candidates (n, S, H, A) after the observations in info."""
        return self.cost(self.prepare(info), candidates)

    @property
    def has_actor(self) -> bool:
        """Whether there is an actor to give actions, or to propose them to a planner."""
        return self.behaviour is not None

    def get_action(self, info: Info, horizon: int = 1, prefix_actions: torch.Tensor | None = None) -> torch.Tensor:
        """The actor's most likely actions: (n, A), for a horizon above 1 (n, horizon, A), imagined one after the other.

        `prefix_actions` (n, t, A) are taken first. One-hot actions are returned as one-hot.
        """
        if self.behaviour is None:
            raise ContractError("this model was built without behaviour: it has no actor; plan with get_cost")
        state = self._state(self._context(info)[:, -1])
        if prefix_actions is not None:
            for action in self._actions(prefix_actions).unbind(1):
                state = self.rssm.imagine(state, action, sample=False)
        actions = []
        for _ in range(horizon):
            actions.append(self.behaviour.actor.mode(state.latent))  # (n, A)
            state = self.rssm.imagine(state, actions[-1], sample=False) if len(actions) < horizon else state
        return actions[0] if horizon == 1 else torch.stack(actions, dim=1)

    def explore(self, info: Info, generator: torch.Generator | None = None) -> torch.Tensor:
        """Actions (n, A) that the actor draws."""
        if self.behaviour is None:
            raise ContractError("this model was built without behaviour: it has no actor; plan with get_cost")
        return self.behaviour.actor.sample(self._state(self._context(info)[:, -1]).latent, generator)

    def _predicted_reward(self, latents: torch.Tensor) -> torch.Tensor:
        assert self.reward is not None
        return self.twohot.decode(self.reward(latents))

    def _context(self, info: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Latents (n, L, D) of the observed frames."""
        if "emb" in info:
            return first_sample(info["emb"], 3)
        axes = {name: 5 if name in self.config.images else 3 for name in self._columns}
        tokens = self.encoder({name: first_sample(entry(info, name), ndim) for name, ndim in axes.items()})  # (n, L, E)
        history = action_history(info, tokens, self.config.action_dim)  # (n, L - 1, A)
        return _embedding(self._filtered(tokens, F.pad(fill_nan(history), (0, 0, 1, 0))))

    def _filtered(self, tokens: torch.Tensor, previous: torch.Tensor) -> State:
        """Most likely states (n, T, ...) of tokens (n, T, E) of one episode, after actions (n, T, A)."""
        first = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        first[:, 0] = True
        return self.rssm.observe(tokens, previous, first, sample=False)

    def _state(self, emb: torch.Tensor) -> State:
        """The most likely state (...) that latents (..., D) describe."""
        deter, flat = emb.split([self.config.deter, emb.shape[-1] - self.config.deter], dim=-1)
        logits = flat.unflatten(-1, (self.config.groups, self.config.classes))
        return self.rssm.state(deter, logits, None, sample=False)

    def _actions(self, actions: torch.Tensor) -> torch.Tensor:
        return action_blocks(actions, self.config.action_dim, self.continues[-1].weight)  # type: ignore[arg-type]

    @property
    def _columns(self) -> list[str]:
        return [*self.config.images, *self.config.inputs]


def _embedding(state: State) -> torch.Tensor:
    """Memory and log-probabilities (..., D) of a state."""
    return torch.cat([state.deter, state.logits.flatten(-2)], dim=-1)


def _per_frame(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One float32 number per frame (B, T); several, those of a macro step's env steps, are added. NaN counts as 0."""
    x = fill_nan(x.to(like.device, torch.float32))
    return x.flatten(2).sum(dim=2) if x.ndim > 2 else x
