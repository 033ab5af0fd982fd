"""TD-MPC2: scalable, robust world models for continuous control (arXiv 2310.16828).

An encoder maps observations to a latent of simplices; dynamics, reward and an ensemble of Q heads are unrolled from the
first frame of a clip, and learn to predict later latents, rewards and values. Nothing is decoded. An actor proposes
actions for targets, for the end of a plan, and for acting without planning.

Shapes: B clips, n envs, S candidates, T frames, H = T - 1 steps, D latent width, E Q heads, A action width, K bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.blocks import keep_scale
from stable_worldmodel.wm.distributions import PercentileScale, TwoHot, squashed_gaussian
from stable_worldmodel.wm.loss import weighted_sum
from stable_worldmodel.wm.mlp import EnsembleLinear, EnsembleMLP, NormedLinear, SimNorm, follow, frozen, target_copy
from stable_worldmodel.wm.tdmpc2.config import TDMPC2Config
from stable_worldmodel.wm.tdmpc2.networks import ColumnsEncoder, init_weights
from stable_worldmodel.wm.tensors import Batch, Metrics, action_blocks, entry, fill_nan, first_sample, repeat
from stable_worldmodel.wm.training import ParameterGroup


class TDMPC2(nn.Module):
    """The world model of `config`. Calling it gives the training loss; planners use `get_cost` and `get_action`,
    policies `get_action` alone.

    Actions lie in [-1, 1]. Reward t of a clip was received on arrival at frame t, as datasets store it.
    """

    def __init__(self, config: TDMPC2Config) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = ColumnsEncoder(c)
        width, joint = self.encoder.width, self.encoder.width + c.action_dim
        self.dynamics = nn.Sequential(
            NormedLinear(joint, c.mlp_width),
            NormedLinear(c.mlp_width, c.mlp_width),
            NormedLinear(c.mlp_width, width, activation=SimNorm(c.simnorm_group)),
        )
        self.reward = _head(joint, c.mlp_width, c.bins)
        self.terminal = _head(width, c.mlp_width, 1) if c.episodic else None
        self.actor = _head(width, c.mlp_width, 2 * c.action_dim)
        self.apply(init_weights)
        keep_scale(self.encoder.image_encoders)
        self.critic, self.target_critic = (self._critic(joint) for _ in range(2))
        nn.init.zeros_(_last(self.reward).weight)
        target_copy(self.target_critic, self.critic)
        self.twohot = TwoHot(c.bins, c.value_min, c.value_max, squash=True)
        self.scale = PercentileScale(c.target_rate)
        self.parameter_groups = (
            ParameterGroup(r"encoder\.", c.encoder_lr_scale),
            ParameterGroup(r"(dynamics|reward|terminal|critic)\."),
            ParameterGroup(r"actor\.", c.actor_lr_scale, (("eps", 1e-5),)),
        )

    def _critic(self, joint: int) -> EnsembleMLP:
        c = self.config
        critic = EnsembleMLP(c.critics, [joint, c.mlp_width, c.mlp_width, c.bins], dropout=c.critic_dropout)
        for layer in critic:
            if isinstance(layer, EnsembleLinear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(_last(critic).weight)
        return critic

    # -- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """Loss, a scalar, and its detached parts for clips of the observed columns (B, T, ...), `action` (B, T, A) and
        `reward` (B, T); with goals, of `goal_<column>` (B, 1, ...) and `goal_step` (B,) in place of `reward`.

        The actor's loss reaches the actor only, and no loss reaches the targets; cloning the data's actions shapes the
        latents, too. `terminated` (B, T), if it is there, ends the values of a clip.
        """
        c = self.config
        actions = self._actions(entry(batch, "action"))[:, :-1]  # (B, H, A)
        _check_actions(actions)
        rewards, over = self._outcomes(batch, actions)  # (B, H), (B, H + 1)
        ended = over[:, 1:]
        with torch.no_grad():
            targets = self.encoder(batch, slice(1, None), generator, self.training)  # (B, H, D)
            returns = self._td_target(targets, rewards, ended, generator)  # (B, H)
        z = self.encoder(batch, slice(0, 1), generator, self.training)[:, 0]  # (B, D)
        zs = self._unroll(z, actions)  # (B, H + 1, D)
        joint = _joined(zs[:, :-1], actions)  # (B, H, D + A)
        q_logits = self.critic(joint.flatten(0, 1)).unflatten(1, joint.shape[:2])  # (E, B, H, K)
        alive = (1 - over[:, :-1]).cumprod(dim=1)  # (B, H): steps after an end are not part of the episode
        rho = alive * c.temporal_weight ** torch.arange(actions.shape[1], device=z.device)  # (B, H)
        error = (zs[:, 1:].float() - targets.float()).square().mean(dim=-1)  # (B, H)
        values = self.twohot.loss(q_logits, returns.expand(c.critics, -1, -1)).mean(dim=0)  # (B, H)
        actor, entropy = self._actor_loss(zs.detach(), generator)
        terms = {
            "consistency": (c.consistency_weight, (rho * error).mean()),
            "reward": (c.reward_weight, (rho * self.twohot.loss(self.reward(joint), rewards)).mean()),
            "value": (c.value_weight, (rho * values).mean()),
            "actor": (1.0, actor),
        }
        if c.bc_weight:
            cloned = self._policy(zs[:, :-1])[0].tanh()  # (B, H, A)
            terms["cloning"] = (c.bc_weight, (rho[..., None] * (cloned - actions).float().square()).mean())
        if self.terminal is not None:
            logits = self.terminal(zs[:, 1:])[..., 0].float()  # (B, H)
            cross_entropy = F.binary_cross_entropy_with_logits(logits, ended.float(), reduction="none")
            terms["terminal"] = (c.terminal_weight, (alive * cross_entropy).mean())
        loss, metrics = weighted_sum(terms)
        return loss, {**metrics, "entropy": entropy, "target": returns.mean(), "scale": self.scale.value.clone()}

    def train(self, mode: bool = True) -> TDMPC2:
        """The targets are never in training mode: they have no dropout."""
        super().train(mode)
        self.target_critic.eval()
        return self

    def after_step(self) -> None:
        """Move the target Q heads; to be called after every optimiser step."""
        follow(self.target_critic, self.critic, self.config.target_rate)

    def _outcomes(self, batch: Batch, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rewards (B, H) on arrival at frames 1 to H, and whether the episode is over at frames 0 to H, (B, H + 1).

        With goals: -1 per step, 0 for the one that arrives at the goal, where the episode ends.
        """
        if self.config.goals:
            frames = torch.arange(actions.shape[1] + 1, device=actions.device)
            over = (entry(batch, "goal_step").to(actions.device)[:, None] == frames).float()
            return over[:, 1:] - 1, over
        rewards = _per_frame(entry(batch, "reward"), actions)
        over = torch.zeros_like(rewards)
        if "terminated" in batch:
            over = _per_frame(batch["terminated"], actions).clamp(max=1)
        return rewards[:, 1:], over

    def _td_target(
        self, z: torch.Tensor, rewards: torch.Tensor, ended: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """r + discount * (1 - ended) * min of two target Q heads at the actor's actions (B, H), for z (B, H, D)."""
        action, _ = self._sampled_action(z, generator)
        values = self._two_values(self.target_critic, z, action, generator).amin(dim=0)  # (B, H)
        return rewards.float() + self.config.discount * (1 - ended.float()) * values

    def _actor_loss(self, z: torch.Tensor, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Minus scaled value and entropy of the actor's actions at z (B, H + 1, D), and the detached mean entropy."""
        c = self.config
        action, log_p = self._sampled_action(z, generator)  # (B, H + 1, A), (B, H + 1)
        values = self._two_values(self.critic, z, action, generator)  # (2, B, H + 1)
        if self.training:
            self.scale.update(values[:, :, 0].mean(dim=0))
        entropy = -log_p
        rho = c.temporal_weight ** torch.arange(z.shape[1], device=z.device)  # (H + 1,)
        objective = values.mean(dim=0) / self.scale() + c.entropy_weight * c.action_dim * entropy  # (B, H + 1)
        return -(rho * objective).mean(), entropy.detach().mean()

    def _two_values(
        self, critic: nn.Module, z: torch.Tensor, action: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Values (2, B, H) of two random heads, as functions of the action; the heads' weights are constants."""
        joint = _joined(z, action)  # (B, H, D + A)
        logits = frozen(critic, joint.flatten(0, 1)).unflatten(1, z.shape[:2])  # (E, B, H, K)
        chosen = torch.randperm(self.config.critics, generator=generator, device=z.device)[:2]
        return self.twohot.decode(logits[chosen])

    def _unroll(self, z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Latents (N, H + 1, D) that begin with z (N, D) and follow actions (N, H, A)."""
        latents = [z]
        for action in actions.unbind(1):
            latents.append(self.dynamics(_joined(latents[-1], action)))  # (N, D)
        return torch.stack(latents, dim=1)

    # -- acting and planning ------------------------------------------------------------------------------------------

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, D) of the observed columns (n, T, ...)."""
        return {**info, "emb": self.encoder(info)}

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        """Return info with `predicted_emb` (n, S, 1 + H, D) for candidates (n, S, H, A). The context is one frame.

        `last_only` returns the last latent alone, (n, S, 1, D).
        """
        z = self._present(info)  # (n, D)
        n, samples = candidates.shape[:2]
        latents = self._unroll(repeat(z, samples), self._actions(candidates).flatten(0, 1))  # (n * S, 1 + H, D)
        latents = latents[:, -1:] if last_only else latents
        return {**info, "emb": z[:, None], "predicted_emb": latents.unflatten(0, (n, samples))}

    def prepare(self, info: Info) -> Info:
        """What `cost` needs of an info: the observation encoded as `emb` (n, 1, D)."""
        return {"emb": self._present(info)[:, None]}

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Minus the predicted return (n, S) of candidates (n, S, H, A): discounted rewards, and the value at the end.

        That value is the mean of the target Q heads at the actor's action, less `uncertainty_weight` * |mean| * std.
        """
        z = self.rollout(context, candidates)["predicted_emb"]  # (n, S, 1 + H, D)
        joint = _joined(z[:, :, :-1], self._actions(candidates))  # (n, S, H, D + A)
        rewards = self.twohot.decode(self.reward(joint))  # (n, S, H)
        discounts = self._discounts(z)  # (n, S, H + 1)
        return -((discounts[..., :-1] * rewards).sum(dim=-1) + discounts[..., -1] * self._end_value(z[:, :, -1]))

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        """`cost` (n, S) of candidates (n, S, H, A) after the observation in info."""
        return self.cost(self.prepare(info), candidates)

    def get_action(self, info: Info, horizon: int = 1, prefix_actions: torch.Tensor | None = None) -> torch.Tensor:
        """The actor's mean actions in [-1, 1]: (n, A), for a horizon above 1 (n, horizon, A), each at the latent that
        the one before leads to. `prefix_actions` (n, t, A) are taken first.
        """
        z = self._present(info)  # (n, D)
        if prefix_actions is not None and prefix_actions.shape[1]:
            z = self._unroll(z, self._actions(prefix_actions))[:, -1]
        actions = []
        for _ in range(horizon):
            actions.append(self._policy(z)[0].tanh())  # (n, A)
            z = self.dynamics(_joined(z, actions[-1])) if len(actions) < horizon else z
        return actions[0] if horizon == 1 else torch.stack(actions, dim=1)

    def explore(self, info: Info, generator: torch.Generator | None = None) -> torch.Tensor:
        """Actions (n, A) in [-1, 1] that the actor draws."""
        return self._sampled_action(self._present(info), generator)[0]

    def propose(self, info: Info, noise: torch.Tensor) -> torch.Tensor:
        """Action sequences (n, P, H, A) that the actor draws with standard normal `noise` of that shape, each action at
        the latent that the ones before lead to.
        """
        n, count = noise.shape[:2]
        z = repeat(self._present(info), count)  # (n * P, D)
        actions = []
        for drawn in noise.flatten(0, 1).unbind(1):
            mean, log_std = self._policy(z)
            actions.append((mean + log_std.exp() * drawn).tanh().to(z))  # (n * P, A)
            z = self.dynamics(_joined(z, actions[-1]))
        return torch.stack(actions, dim=1).unflatten(0, (n, count))

    def _end_value(self, z: torch.Tensor) -> torch.Tensor:
        """Pessimistic value (n, S) of z (n, S, D)."""
        action = self._policy(z)[0].tanh()
        logits = self.target_critic(_joined(z, action).flatten(0, 1))  # (E, n * S, K)
        values = self.twohot.decode(logits).unflatten(1, z.shape[:2])  # (E, n, S)
        mean = values.mean(dim=0)
        return mean - self.config.uncertainty_weight * mean.abs() * values.std(dim=0)

    def _discounts(self, z: torch.Tensor) -> torch.Tensor:
        """Weight (n, S, H + 1) of each reward and of the end value, for latents z (n, S, H + 1, D)."""
        steps = torch.arange(z.shape[2], device=z.device)
        discounts = (self.config.discount**steps).expand(z.shape[:3])
        if self.terminal is None:
            return discounts
        alive = torch.sigmoid(-self.terminal(z[:, :, 1:])[..., 0].float()).cumprod(dim=-1)  # (n, S, H)
        return discounts * F.pad(alive, (1, 0), value=1.0)

    def _present(self, info: Info) -> torch.Tensor:
        """Latent (n, D) of the present observation."""
        if "emb" in info:
            z = first_sample(info["emb"], 3)  # (n, T, D)
        else:
            c = self.config
            axes = {**dict.fromkeys(c.encoded_images, 5), **dict.fromkeys(c.encoded_inputs, 3)}
            named = {"goal_pixels": info["goal"], **info} if "goal" in info else info  # as envs call it
            z = self.encoder({name: first_sample(entry(named, name), ndim) for name, ndim in axes.items()})
        if z.shape[1] != 1:
            raise ContractError(f"{z.shape[1]} context frames: TD-MPC2 sees only the present; plan with history_len=1")
        return z[:, 0]

    def _policy(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log standard deviation (..., A) before squashing."""
        c = self.config
        mean, raw = self.actor(z).float().chunk(2, dim=-1)
        return mean, c.log_std_min + 0.5 * (c.log_std_max - c.log_std_min) * (raw.tanh() + 1)

    def _sampled_action(self, z: torch.Tensor, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        return squashed_gaussian(*self._policy(z), generator)

    def _actions(self, actions: torch.Tensor) -> torch.Tensor:
        return action_blocks(actions, self.config.action_dim, next(self.actor.parameters()))


def _head(in_width: int, width: int, out_width: int) -> nn.Sequential:
    """Two normed layers and a linear one."""
    return nn.Sequential(NormedLinear(in_width, width), NormedLinear(width, width), nn.Linear(width, out_width))


def _last(head: nn.Sequential) -> nn.Linear:
    layer = head[-1]
    assert isinstance(layer, nn.Linear | EnsembleLinear)
    return layer  # type: ignore[return-value]


def _joined(z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Latents (..., D) and actions (..., A) side by side, in the precision of the latents."""
    return torch.cat([z, action.to(z.dtype)], dim=-1)


def _per_frame(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One float32 number per frame (B, T); several, those of a macro step's env steps, are added. NaN counts as 0."""
    x = fill_nan(x.to(like.device, torch.float32))
    return x.flatten(2).sum(dim=2) if x.ndim > 2 else x


def _check_actions(actions: torch.Tensor) -> None:
    """ContractError for actions outside [-1, 1]; on an accelerator the check does not wait for the device."""
    inside = (actions.detach().abs() <= 1 + 1e-4).all()
    message = "actions outside [-1, 1], where TD-MPC2's actor lives; train with a scaler that maps them there"
    if actions.device.type != "cpu":
        torch._assert_async(inside, message)
    elif not inside:
        raise ContractError(message)
