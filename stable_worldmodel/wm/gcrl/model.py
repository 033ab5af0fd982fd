"""Goal-conditioned policies from offline data: cloning, and advantage-weighted cloning with three value functions.

A state is a short history of frames, a goal one frame; both are patch features of one backbone. The reward is -1 until
the goal is reached and the episode ends there, so a value is minus a discounted number of steps.

Shapes: B clips, n envs, T frames, P patches, W token width, A action width, C actions of a chunk, E heads.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.backbones import create_backbone
from stable_worldmodel.wm.distributions import gaussian_log_prob
from stable_worldmodel.wm.gcrl.config import GCBCConfig, GCIQLConfig, GCIVLConfig, GCRLConfig, HILPConfig, ValueConfig
from stable_worldmodel.wm.gcrl.networks import MetricValuePredictor, Predictor, QPredictor, TrunkSizes
from stable_worldmodel.wm.gcrl.skills import Skills, random_skills
from stable_worldmodel.wm.loss import Terms, expectile_loss, weighted_sum
from stable_worldmodel.wm.mlp import follow
from stable_worldmodel.wm.prejepa.networks import Embedder
from stable_worldmodel.wm.tensors import Batch, Metrics, action_blocks, entry, fill_nan, windows

LOG_STD_RANGE = (-5.0, 2.0)


class GCRL(nn.Module):
    """Encoder and actor of all methods. Calling one gives its training loss; policies use `get_action`.

    A clip has at most window + 1 frames: `pixels` (B, T, 3, h, w), or `pixels_emb` (B, T, P, F) computed before,
    further inputs (B, T, d) and `action` (B, T, A). Its goal has the same columns as `goal_<column>` (B, 1, ...), and
    others for the actor as `actor_goal_<column>`, if there are any. Values also need `goal_step` (B,), int64: the frame
    of the clip at which the goal lies, counted from 0, beyond the clip for a later one, negative if it lies elsewhere.
    """

    config: Any

    def __init__(self, config: GCRLConfig) -> None:
        super().__init__()
        self.config = c = config
        self.backbone = create_backbone(
            c.backbone,
            image_size=c.image_size,
            pretrained=c.pretrained,
            frozen=c.frozen,
            revision=c.backbone_revision,
            options=c.backbone_options,
        )
        self.extra_encoders = nn.ModuleDict({name: Embedder(d, c.embed_dim) for name, d in c.inputs.items()})
        width = self.backbone.width + c.embed_dim * len(c.inputs)
        self.sizes = TrunkSizes(
            c.window, self.backbone.patches, width, c.depth, c.heads, c.head_dim, c.mlp_width, c.trunk
        )
        self.actor = Predictor(self.sizes, c.chunk * c.action_dim)
        if c.policy == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(c.action_dim))
        # Weights that a checkpoint names instead of holding them.
        self.reference_prefixes = ("backbone.",) if c.pretrained and c.frozen else ()

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """Loss, a scalar, and its detached parts, for clips with goals."""
        frames = self._tokens(batch)  # (B, T, P, W)
        if not 2 <= frames.shape[1] <= self.config.window + 1:
            raise ContractError(
                f"clips of {frames.shape[1]} frames: expected 2 to window + 1 = {self.config.window + 1}"
            )
        actions = self._actions(entry(batch, "action"))[:, :-1]  # (B, T - 1, A)
        terms, metrics = self.losses(batch, frames, actions, generator)
        loss, values = weighted_sum(terms)
        return loss, {**values, **{name: value.detach() for name, value in metrics.items()}}

    def losses(
        self, batch: Batch, frames: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Terms, Metrics]:
        """Loss terms and further metrics, for tokens (B, T, P, W) and the actions (B, T - 1, A) between them."""
        raise NotImplementedError

    def get_action(self, info: Info, horizon: int = 1, prefix_actions: torch.Tensor | None = None) -> torch.Tensor:
        """The mean action (n, A) at the last frame, for a horizon above 1 the first of the chunk, (n, horizon, A).

        The info has frames `pixels` (n, T, 3, h, w), inputs, and the goal as `goal_pixels` or `goal`, with
        `goal_<input>`. A policy without a model of the world cannot look beyond `prefix_actions`: they must be empty.
        """
        if prefix_actions is not None and prefix_actions.shape[1]:
            raise ContractError(f"{type(self).__name__} has no dynamics to advance by prefix_actions")
        if horizon > self.config.chunk:
            raise ContractError(f"horizon={horizon}: expected at most chunk={self.config.chunk}")
        observed = {name: value[:, -self.config.window :] for name, value in info.items() if name in self._columns}
        if "goal_pixels" not in info and "goal_pixels_emb" not in info:
            info = {**info, "goal_pixels": entry(info, "goal")}
        chunk = self._chunk(*self._aims(self._tokens(observed), self._goal(info)))[:, -1]  # (n, C, A)
        return chunk[:, 0] if horizon == 1 else chunk[:, :horizon]

    def _aims(self, frames: torch.Tensor, goal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames (n, T, P, W) and what the actor takes for their goal (n, P, W)."""
        return frames, goal

    # -- parts of the losses ------------------------------------------------------------------------------------------

    def _cloning(self, frames: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Loss (B, T') of the actions (B, T', A) at frames (B, T', P, W); each state predicts a chunk of C actions.

        The last states of a clip are followed by fewer actions; what is missing does not count.
        """
        chunk, steps = self.config.chunk, actions.shape[1]
        predicted = self._chunk(frames, goal).float()  # (B, T', C, A)
        padded = torch.cat([actions, actions.new_zeros(len(actions), chunk - 1, actions.shape[2])], dim=1)
        target = windows(padded, chunk).unflatten(0, (-1, steps)).float()  # (B, T', C, A)
        known = torch.arange(steps, device=actions.device)[:, None] + torch.arange(chunk, device=actions.device) < steps
        if self.config.policy == "gaussian":
            error = -gaussian_log_prob(target, predicted, self._log_std().float())  # (B, T', C)
        else:
            error = (predicted - target).square().mean(dim=-1)  # (B, T', C)
        return (error * known).sum(dim=2) / known.sum(dim=1)

    def _chunk(self, frames: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return self.actor(frames, goal).unflatten(-1, (self.config.chunk, -1))  # (N, T, C, A)

    def _log_std(self) -> torch.Tensor:
        return self.log_std.clamp(*LOG_STD_RANGE)

    # -- encoding -----------------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> tuple[str, ...]:
        return ("pixels", "pixels_emb", *self.extra_encoders)

    def _tokens(self, columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Tokens (B, T, P, W) of frames and inputs."""
        if "pixels_emb" in columns:
            features = columns["pixels_emb"].to(self.actor.out.weight)  # (B, T, P, F)
        else:
            features = self.backbone(entry(columns, "pixels"))  # (B, T, P, F)
        parts = [features]
        for name, encoder in self.extra_encoders.items():
            x = encoder(fill_nan(entry(columns, name).to(features).flatten(2)))  # (B, T, E)
            parts.append(x[:, :, None].expand(-1, -1, features.shape[2], -1).to(features.dtype))
        return torch.cat(parts, dim=-1)

    def _goal(self, batch: Mapping[str, torch.Tensor], prefix: str = "goal_") -> torch.Tensor:
        """Tokens (B, P, W) of the goal."""
        columns = {name: batch[prefix + name][:, -1:] for name in self._columns if prefix + name in batch}
        if not columns.keys() & {"pixels", "pixels_emb"}:
            raise MissingKeyError(f"no '{prefix}pixels' among {sorted(batch)}; read clips with data.GoalDataset")
        return self._tokens(columns)[:, 0]

    def _actor_goal(self, batch: Batch, value_goal: torch.Tensor | None = None) -> torch.Tensor:
        """The goal of the actor's loss: its own, or that of the value's."""
        has_own = any(name.startswith("actor_goal_") for name in batch)
        if has_own:
            return self._goal(batch, "actor_goal_")
        return self._goal(batch) if value_goal is None else value_goal

    def _actions(self, actions: torch.Tensor) -> torch.Tensor:
        return action_blocks(actions, self.config.action_dim, self.actor.out.weight)


class GCBC(GCRL):
    """Goal-conditioned behaviour cloning: the action is what the data's was on the way to the goal."""

    def __init__(self, config: GCBCConfig) -> None:
        super().__init__(config)

    def losses(
        self, batch: Batch, frames: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Terms, Metrics]:
        loss = self._cloning(frames[:, :-1], self._actor_goal(batch), actions)  # (B, T - 1)
        return {"actor": (1.0, loss.mean())}, {}


class ValueGCRL(GCRL):
    """Advantage-weighted cloning: `min(exp(temperature * advantage), max_weight)` times the loss of the action."""

    def __init__(self, config: ValueConfig) -> None:
        super().__init__(config)
        self.value = self._value_network()
        self.target_value = copy.deepcopy(self.value).requires_grad_(False)

    def _value_network(self) -> nn.Module:
        """A map of frames (B, T, P, W) and goal (B, P, W) to values (B, T, E)."""
        return Predictor(self.sizes, self.config.critics, pool="mean")

    def after_step(self) -> None:
        """Move the target network; to be called after every optimiser step."""
        follow(self.target_value, self.value, self.config.target_rate)

    def losses(
        self, batch: Batch, frames: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Terms, Metrics]:
        now, later = frames[:, :-1], frames[:, 1:]  # (B, T - 1, P, W)
        goal = self._goal(batch)  # (B, P, W)
        reached = self._reached(batch, now.shape[1])  # (B, T - 1)
        terms, metrics = self.value_losses(now, later, goal, actions, reached)
        actor_goal = self._actor_goal(batch, goal)
        with torch.no_grad():
            advantage = self.advantage(now, later, actor_goal, actions)  # (B, T - 1)
        # Both shape a trained backbone: a value that is the same everywhere has nothing to teach it, actions do.
        actor, more = self._weighted_cloning(now, actor_goal, actions, advantage)
        return terms | actor, metrics | more

    def _weighted_cloning(
        self,
        frames: torch.Tensor,
        goal: torch.Tensor,
        actions: torch.Tensor,
        advantage: torch.Tensor,
        temperature: float | None = None,
    ) -> tuple[Terms, Metrics]:
        """The actor's loss for an advantage (B, T') of the actions (B, T', A)."""
        scale = self.config.temperature if temperature is None else temperature
        weight = (scale * advantage).exp().clamp(max=self.config.max_weight)
        loss = (weight * self._cloning(frames, goal, actions)).mean()
        return {"actor": (1.0, loss)}, {"advantage": advantage.mean(), "weight": weight.mean()}

    def value_losses(
        self, now: torch.Tensor, later: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor, reached: torch.Tensor
    ) -> tuple[Terms, Metrics]:
        """Expectile regression of V(s, g) on r + discount * V'(s', g), V' the smallest head of the target."""
        with torch.no_grad():
            target = self._target(reached, self.target_value(later, goal).float().amin(dim=-1))  # (B, T - 1)
        values = self.value(now, goal).float()  # (B, T - 1, E)
        loss = expectile_loss(target[..., None], values, self.config.expectile).mean()
        return {"value": (1.0, loss)}, {"v": values.mean()}

    def advantage(
        self, now: torch.Tensor, later: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """V(s', g) - V(s, g), (B, T - 1)."""
        return self.value(later, goal).float().amin(dim=-1) - self.value(now, goal).float().amin(dim=-1)

    def _target(self, reached: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Reward -1 and what follows; 0, and nothing follows, where the goal is reached."""
        return (reached - 1) + self.config.discount * (1 - reached) * value

    def _reached(self, batch: Batch, steps: int) -> torch.Tensor:
        """1 where a frame is the goal, (B, steps)."""
        if "goal_step" not in batch:
            raise MissingKeyError(
                f"no 'goal_step' among {sorted(batch)}: the value function needs to know where in its clip a goal lies"
            )
        frames = torch.arange(steps, device=batch["goal_step"].device)  # (steps,)
        return (batch["goal_step"].reshape(-1, 1) == frames).float()


class GCIVL(ValueGCRL):
    """Implicit V-learning: the expectile over the data's actions is taken over next states."""

    def __init__(self, config: GCIVLConfig) -> None:
        super().__init__(config)


class GCIQL(ValueGCRL):
    """Implicit Q-learning: V is an expectile of Q over the data's actions, Q regresses on what follows."""

    def __init__(self, config: GCIQLConfig) -> None:
        super().__init__(config)
        self.q = QPredictor(self.sizes, config.action_dim, config.critics, config.q_hidden)
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)

    def _value_network(self) -> nn.Module:
        return Predictor(self.sizes, 1, pool="mean", zero=True)

    def after_step(self) -> None:
        super().after_step()
        follow(self.target_q, self.q, self.config.target_rate)

    def value_losses(
        self, now: torch.Tensor, later: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor, reached: torch.Tensor
    ) -> tuple[Terms, Metrics]:
        with torch.no_grad():
            best = self.target_q(now, goal, actions).float().amin(dim=0)  # (B, T - 1)
            target = self._target(reached, self.target_value(later, goal).float()[..., 0])  # (B, T - 1)
        values = self.value(now, goal).float()[..., 0]  # (B, T - 1)
        q = self.q(now, goal, actions).float()  # (E, B, T - 1)
        terms: Terms = {
            "value": (1.0, expectile_loss(best, values, self.config.expectile).mean()),
            "q": (1.0, (q - target).square().mean()),
        }
        return terms, {"v": values.mean()}

    def advantage(
        self, now: torch.Tensor, later: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Q(s, a, g) - V(s, g), (B, T - 1)."""
        return self.target_q(now, goal, actions).float().amin(dim=0) - self.value(now, goal).float()[..., 0]


class HILP(ValueGCRL):
    """GCIVL whose value is minus the distance between embeddings of state and goal.

    With `skills` the policy learns to move the embedding in any direction, and reaches a goal in the direction of its
    embedding.
    """

    def __init__(self, config: HILPConfig) -> None:
        super().__init__(config)
        self.skills: Skills | None = None
        if config.skills:
            self.skills = Skills(
                self.sizes, config.metric_dim, config.action_dim, config.critics, config.skill_expectile
            )

    def _value_network(self) -> nn.Module:
        return MetricValuePredictor(self.sizes, self.config.metric_dim, self.config.critics)

    def losses(
        self, batch: Batch, frames: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[Terms, Metrics]:
        if self.skills is None:
            return super().losses(batch, frames, actions, generator)
        now, later = frames[:, :-1], frames[:, 1:]  # (B, T - 1, P, W)
        reached = self._reached(batch, now.shape[1])  # (B, T - 1)
        terms, metrics = self.value_losses(now, later, self._goal(batch), actions, reached)
        now, later = now.detach(), later.detach()
        with torch.no_grad():
            progress = (self._phi(later) - self._phi(now)).float()  # (B, T - 1, d)
        skill = random_skills(len(frames), self.config.metric_dim, frames, generator)  # (B, d)
        terms |= self.skills.losses(now, later, progress, skill, actions, self.config.discount)
        advantage = self.skills.advantage(now, skill, actions)  # (B, T - 1)
        token = self.skills.token(skill).detach()  # (B, 1, W)
        actor, more = self._weighted_cloning(now, token, actions, advantage, self.config.skill_temperature)
        return terms | actor, metrics | more

    def after_step(self) -> None:
        super().after_step()
        if self.skills is not None:
            self.skills.after_step(self.config.target_rate)

    def embed(self, info: Info) -> Info:
        """Return info with `phi` (n, T, d), in which distances are minus values."""
        return {**info, "phi": self._phi(self._tokens(info))}

    def _phi(self, frames: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, T, d) of tokens (N, T, P, W), of the value's first head."""
        return self.value.phi(frames)[:, :, 0]  # type: ignore[operator]

    def _aims(self, frames: torch.Tensor, goal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.skills is None:
            return frames, goal
        direction = self._phi(goal[:, None])[:, -1] - self._phi(frames)[:, -1]  # (n, d)
        return frames, self.skills.token(nn.functional.normalize(direction, dim=-1))
