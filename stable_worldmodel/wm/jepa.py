"""The joint-embedding world model that LeWM and PLDM have in common.

An encoder maps a frame to one latent, a causal predictor maps latents and actions to the next latents. Both learn from
the error of the prediction; what keeps the latents from collapsing is a regulariser, and the only thing in which the
models differ.

Shapes: B clips, n envs, S candidates, N = n * S, T frames, L context frames, H planned steps, D latent width,
W predictor width, A flattened size of one action block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.blocks import NORMS, ActionEmbedder, ConditionalPredictor, Projector, VisionTransformer
from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.loss import Terms, weighted_sum
from stable_worldmodel.wm.tensors import (
    IMAGE_MEAN,
    IMAGE_STD,
    Batch,
    Metrics,
    action_blocks,
    action_history,
    check_images,
    entry,
    first_sample,
    normalise_images,
    repeat,
    windows,
)


@dataclass(frozen=True)
class JEPAConfig(PresetConfig):
    """Sizes of encoder and predictor. The defaults are published LeWM (arXiv 2603.19312), which PLDM shares."""

    action_dim: int = 10  # A: flattened env actions of one macro step
    image_size: int = 224  # pixels, square
    patch_size: int = 14
    latent_dim: int = 192  # D
    encoder_width: int = 192
    encoder_depth: int = 12
    encoder_heads: int = 3
    encoder_mlp: int = 768
    encoder_tokens: int = 1  # class tokens whose outputs make the latent; the published model has one
    projector_hidden: int = 2048
    projector_norm: str = "batch"  # batch, layer
    window: int = 3  # most frames the predictor looks back on
    rotary: bool = False  # relative positions instead of learned ones, see blocks.ConditionalPredictor
    predictor_width: int = 192
    predictor_depth: int = 6
    predictor_heads: int = 16
    predictor_head_dim: int = 64
    predictor_mlp: int = 2048
    dropout: float = 0.1
    branch_norm: bool = True  # affine LayerNorm behind each modulation, as published
    rollout_weight: float = 0.0  # of the error of `rollout_steps` predictions fed back; the published loss has none
    rollout_steps: int = 2

    def __post_init__(self) -> None:
        self._at_least_one(
            "action_dim", "latent_dim", "encoder_depth", "encoder_tokens", "window", "predictor_depth", "rollout_steps"
        )
        self._one_of("projector_norm", NORMS)
        if self.image_size % self.patch_size:
            raise ContractError(f"image_size={self.image_size}: expected a multiple of patch_size={self.patch_size}")
        if self.encoder_width % self.encoder_heads:
            raise ContractError(
                f"encoder_width={self.encoder_width}: expected a multiple of encoder_heads={self.encoder_heads}"
            )


# 64 x 64 images; trained on a two-core CPU in minutes.
SMALL_JEPA = {
    "image_size": 64,
    "patch_size": 16,
    "latent_dim": 16,
    "encoder_width": 64,
    "encoder_depth": 2,
    "encoder_heads": 2,
    "encoder_mlp": 256,
    "projector_hidden": 256,
    "predictor_width": 64,
    "predictor_depth": 2,
    "predictor_heads": 4,
    "predictor_head_dim": 16,
    "predictor_mlp": 256,
    "dropout": 0.0,
    "branch_norm": False,
}
DEBUG_JEPA = {
    **SMALL_JEPA,
    "image_size": 32,
    "encoder_width": 32,
    "encoder_mlp": 64,
    "projector_hidden": 64,
    "predictor_width": 32,
    "predictor_mlp": 64,
}


class JEPA(nn.Module):
    """The world model of `config` without its regulariser. Planners use `encode` and `rollout`.

    Images are (..., 3, size, size), uint8 or already normalised floats. Actions are scaled; action t of a clip leaves
    frame t.
    """

    framewise = True  # a frame's latent depends on no other one: planners may keep it
    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(self, config: JEPAConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = VisionTransformer(
            c.image_size,
            c.patch_size,
            c.encoder_width,
            c.encoder_depth,
            c.encoder_heads,
            c.encoder_mlp,
            c.encoder_tokens,
        )
        encoded = c.encoder_tokens * c.encoder_width
        self.projector = Projector(encoded, c.projector_hidden, c.latent_dim, c.projector_norm)
        self.action_embedder = ActionEmbedder(c.action_dim, c.predictor_width)
        same_width = c.latent_dim == c.predictor_width
        self.lift = nn.Identity() if same_width else nn.Linear(c.latent_dim, c.predictor_width)
        self.predictor = ConditionalPredictor(
            window=c.window,
            width=c.predictor_width,
            depth=c.predictor_depth,
            heads=c.predictor_heads,
            head_dim=c.predictor_head_dim,
            mlp_width=c.predictor_mlp,
            dropout=c.dropout,
            branch_norm=c.branch_norm,
            rotary=c.rotary,
        )
        self.pred_projector = Projector(c.predictor_width, c.projector_hidden, c.latent_dim, c.projector_norm)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)

    # -- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """Loss, a scalar, and its detached parts for clips `pixels` (B, T, 3, h, w) and `action` (B, T, A).

        Every frame is encoded once; all windows of a clip share the latents. `generator` draws what is random in the
        loss.
        """
        pixels, actions = entry(batch, "pixels"), entry(batch, "action")
        self._check_length(pixels.shape[1])
        z = self._encode_frames(pixels)  # (B, T, D)
        act_emb = self.embed_actions(actions)  # (B, T, W)
        # Losses are float32 whatever the precision of the network.
        terms = {
            "pred": (1.0, self._teacher_forced_error(z, act_emb)),
            **self.regularisers(z.float(), actions, generator),
        }
        if self.config.rollout_weight:
            terms["rollout"] = (self.config.rollout_weight, self._rollout_error(z, act_emb, generator))
        return weighted_sum(terms)

    def regularisers(self, z: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None) -> Terms:
        """The (weight, value) of each further term, for latents z (B, T, D) in float32 and actions (B, T, A)."""
        raise NotImplementedError

    def _teacher_forced_error(self, z: torch.Tensor, act_emb: torch.Tensor) -> torch.Tensor:
        """Mean squared error of next latents predicted from true ones; the targets are not detached."""
        inputs, act_emb, targets = z[:, :-1], act_emb[:, :-1], z[:, 1:]  # (B, T - 1, ...)
        if not self.config.rotary:
            # (B', window, ...), B' = B * (T - window)
            inputs, act_emb, targets = (windows(x, self.config.window) for x in (inputs, act_emb, targets))
        return (self.predict(inputs, act_emb).float() - targets.float()).square().mean()

    def _rollout_error(self, z: torch.Tensor, act_emb: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Mean squared error of `rollout_steps` latents, each predicted from those before, after a random context."""
        steps, device = self.config.rollout_steps, None if generator is None else generator.device
        longest = min(self.config.window, z.shape[1] - steps)
        context = int(torch.randint(1, longest + 1, (), generator=generator, device=device))
        stop = context + steps
        predicted = self._imagine(z[:, :context], act_emb[:, : stop - 1])[:, context:]  # (B, steps, D)
        return (predicted.float() - z[:, context:stop].float()).square().mean()

    def _check_length(self, frames: int) -> None:
        c = self.config
        needed = 2 if c.rotary else c.window + 1
        needed = max(needed, c.rollout_steps + 1) if c.rollout_weight else needed
        if frames < needed:
            what = "window + 1" if needed == c.window + 1 else "a context and what is predicted"
            raise ContractError(
                f"clips of {frames} frames: expected at least {what} = {needed}; "
                "load the dataset with a larger num_steps"
            )

    # -- planning -----------------------------------------------------------------------------------------------------

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, D) of `pixels` (n, T, 3, h, w), and `act_emb` (n, T, W) if it has `action`."""
        encoded = {**info, "emb": self._encode_frames(entry(info, "pixels"))}
        if "action" in info:
            encoded["act_emb"] = self.embed_actions(info["action"])
        return encoded

    def predict(self, emb: torch.Tensor, act_emb: torch.Tensor) -> torch.Tensor:
        """Next latent of every position, (N, T, D), for emb (N, T, D) and act_emb (N, T, W).

        T is at most `window`, or anything with rotary positions.
        """
        if emb.shape[1] > self.config.window and not self.config.rotary:
            raise ContractError(f"{emb.shape[1]} frames: the predictor sees at most window={self.config.window}")
        x, _ = self.predictor(self.lift(emb), self.predictor.modulations(act_emb))  # (N, T, W)
        return self.pred_projector(x)  # (N, T, D)

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, D) for candidates (n, S, H, A); the context comes first.

        `last_only` returns the last latent alone, (n, S, 1, D): all that a goal objective reads.

        The context is `emb` (n, L, D), or else the encoded `pixels` (n, L, 3, h, w), the last frame being the present;
        `action_history` (n, L - 1, A) holds the blocks executed between its frames and is needed for L > 1. Each may
        have a sample axis after n, of which the first entry counts. Context is encoded once, not per candidate.
        """
        n, samples = candidates.shape[:2]
        emb = self._context(info)  # (n, L, D)
        history = action_history(info, emb, self.config.action_dim)  # (n, L - 1, A)
        blocks = torch.cat([repeat(history, samples), candidates.flatten(0, 1)], dim=1)  # (N, L - 1 + H, A)
        latents = self._imagine(repeat(emb, samples), self.embed_actions(blocks))  # (N, L + H, D)
        latents = latents[:, -1:] if last_only else latents
        return {**info, "emb": emb, "predicted_emb": latents.unflatten(0, (n, samples))}

    def embed_actions(self, actions: torch.Tensor) -> torch.Tensor:
        """Embed action blocks (N, T, A) as (N, T, W). NaN, the filler of an episode's last action, counts as 0."""
        return self.action_embedder(action_blocks(actions, self.config.action_dim, self.image_mean))

    def _imagine(self, emb: torch.Tensor, act_emb: torch.Tensor) -> torch.Tensor:
        """Continue latents emb (N, L, D) to (N, L + H, D), given act_emb (N, L - 1 + H, W).

        Only the newest frame is computed and the others' keys and values are kept: with rotary positions always, with
        learned ones while all frames fit in the window. Once that slides, every frame changes its position and the
        window is computed again.
        """
        window, rotary = self.config.window, self.config.rotary
        modulations = self.predictor.modulations(act_emb)  # (N, L - 1 + H, depth, 6, W)
        latents = [*emb.unbind(1)]  # each (N, D)
        past = None
        for stop in range(len(latents), act_emb.shape[1] + 1):
            first = 0 if rotary else max(0, stop - window)
            start = stop - 1 if past else first
            x = self.lift(torch.stack(latents[start:stop], dim=1))  # (N, stop - start, W)
            x, past = self.predictor(x, modulations[:, start:stop], past)  # (N, stop - start, W)
            latents.append(self.pred_projector(x[:, -1:])[:, 0])  # (N, D)
            if stop >= window and not rotary:
                past = None
        return torch.stack(latents, dim=1)  # (N, L + H, D)

    def _context(self, info: Info) -> torch.Tensor:
        """Latents (n, L, D) of the observed frames."""
        if "emb" in info:
            return first_sample(info["emb"], 3)
        return self._encode_frames(first_sample(entry(info, "pixels"), 5))

    def _encode_frames(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, D) of images (B, T, 3, h, w)."""
        check_images(pixels, self.config.image_size)
        frames = normalise_images(pixels.flatten(0, 1), self.image_mean, self.image_std)  # (B * T, 3, h, w)
        return self.projector(self.encoder(frames).unflatten(0, pixels.shape[:2]))  # (B, T, D)
