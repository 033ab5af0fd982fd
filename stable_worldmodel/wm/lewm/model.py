"""LeWM: a joint-embedding world model learned end to end from pixels (arXiv 2603.19312).

An encoder maps a frame to one latent, a causal predictor maps latents and actions to the next latents. Both learn from
the error of the prediction alone; SIGReg holds the latents to a standard normal and so keeps them from collapsing.

Shapes: B clips, n envs, S candidates, N = n * S, T frames, L context frames, H planned steps, D latent width,
W predictor width, A flattened size of one action block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.blocks import ActionEmbedder, ConditionalPredictor, Projector, VisionTransformer
from stable_worldmodel.wm.lewm.config import LeWMConfig
from stable_worldmodel.wm.loss import SIGReg

# Mean and standard deviation of ImageNet, per RGB channel of images in [0, 1].
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class LeWM(nn.Module):
    """The world model of `config`. Calling it gives the training loss; planners use `encode` and `rollout`.

    Images are (..., 3, size, size), uint8 or already normalised floats. Actions are scaled; action t of a clip leaves
    frame t.
    """

    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(self, config: LeWMConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = VisionTransformer(
            c.image_size, c.patch_size, c.encoder_width, c.encoder_depth, c.encoder_heads, c.encoder_mlp
        )
        self.projector = Projector(c.encoder_width, c.projector_hidden, c.latent_dim)
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
        )
        self.pred_projector = Projector(c.predictor_width, c.projector_hidden, c.latent_dim)
        self.sigreg = SIGReg(directions=c.sigreg_directions)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)

    # -- training -----------------------------------------------------------------------------------------------------

    def forward(
        self, batch: Mapping[str, torch.Tensor], generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss, a scalar, and its detached parts for clips `pixels` (B, T, 3, h, w) and `action` (B, T, A).

        Every frame is encoded once; the T - window windows of a clip share the latents. `generator` draws SIGReg's
        directions.
        """
        c = self.config
        pixels, actions = _entry(batch, "pixels"), _entry(batch, "action")
        if pixels.shape[1] <= c.window:
            raise ContractError(
                f"clips of {pixels.shape[1]} frames: expected at least window + 1 = {c.window + 1}; "
                "load the dataset with a larger num_steps"
            )
        z = self._encode_frames(pixels)  # (B, T, D)
        act_emb = self.embed_actions(actions)  # (B, T, W)
        inputs = _windows(z[:, :-1], c.window)  # (B', window, D), B' = B * (T - window)
        targets = _windows(z[:, 1:], c.window)  # (B', window, D)
        predicted = self.predict(inputs, _windows(act_emb[:, :-1], c.window))  # (B', window, D)
        # Losses are float32 whatever the precision of the network.
        terms = {
            "pred": (1.0, (predicted.float() - targets.float()).square().mean()),
            "sigreg": (c.sigreg_weight, self.sigreg(z.transpose(0, 1), generator)),
            "align": (c.alignment_weight, (z[:, 1:] - z[:, :-1]).float().square().mean()),
        }
        loss = sum(weight * term for weight, term in terms.values() if weight)
        return loss, {"loss": loss.detach(), **{name: term.detach() for name, (_, term) in terms.items()}}

    # -- planning -----------------------------------------------------------------------------------------------------

    def encode(self, info: Info) -> Info:
        """Return info with `emb` (n, T, D) of `pixels` (n, T, 3, h, w), and `act_emb` (n, T, W) if it has `action`."""
        encoded = {**info, "emb": self._encode_frames(_entry(info, "pixels"))}
        if "action" in info:
            encoded["act_emb"] = self.embed_actions(info["action"])
        return encoded

    def predict(self, emb: torch.Tensor, act_emb: torch.Tensor) -> torch.Tensor:
        """Next latent of every position, (N, T, D), for emb (N, T, D) and act_emb (N, T, W) with T <= window."""
        if emb.shape[1] > self.config.window:
            raise ContractError(f"{emb.shape[1]} frames: the predictor sees at most window={self.config.window}")
        x, _ = self.predictor(self.lift(emb), self.predictor.modulations(act_emb))  # (N, T, W)
        return self.pred_projector(x)  # (N, T, D)

    def rollout(self, info: Info, candidates: torch.Tensor) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, D) for candidates (n, S, H, A); the context comes first.

        The context is `emb` (n, L, D), or else the encoded `pixels` (n, L, 3, h, w), the last frame being the present;
        `action_history` (n, L - 1, A) holds the blocks executed between its frames and is needed for L > 1. Each may
        have a sample axis after n, of which the first entry counts. Context is encoded once, not per candidate.
        """
        n, samples = candidates.shape[:2]
        emb = self._context(info)  # (n, L, D)
        history = self._history(info, emb)  # (n, L - 1, A)
        blocks = torch.cat([_repeat(history, samples), candidates.flatten(0, 1)], dim=1)  # (N, L - 1 + H, A)
        latents = self._imagine(_repeat(emb, samples), self.embed_actions(blocks))  # (N, L + H, D)
        return {**info, "emb": emb, "predicted_emb": latents.unflatten(0, (n, samples))}

    def embed_actions(self, actions: torch.Tensor) -> torch.Tensor:
        """Embed action blocks (N, T, A) as (N, T, W). NaN, the filler of an episode's last action, counts as 0."""
        if actions.shape[-1] != self.config.action_dim:
            raise ContractError(
                f"actions of width {actions.shape[-1]}: expected action_dim={self.config.action_dim}, the env's "
                "flattened action size times frameskip (action_block)"
            )
        actions = actions.to(self.image_mean)
        return self.action_embedder(actions.masked_fill(actions.isnan(), 0.0))

    def _imagine(self, emb: torch.Tensor, act_emb: torch.Tensor) -> torch.Tensor:
        """Continue latents emb (N, L, D) to (N, L + H, D), given act_emb (N, L - 1 + H, W).

        While all frames fit in the window, only the newest is computed and the others' keys and values are kept. Once
        it slides, every frame changes its position and the window is computed again.
        """
        window = self.config.window
        modulations = self.predictor.modulations(act_emb)  # (N, L - 1 + H, depth, 6, W)
        latents = [*emb.unbind(1)]  # each (N, D)
        past = None
        for stop in range(len(latents), act_emb.shape[1] + 1):
            start = stop - 1 if past else max(0, stop - window)
            x = self.lift(torch.stack(latents[start:stop], dim=1))  # (N, stop - start, W)
            x, past = self.predictor(x, modulations[:, start:stop], past)  # (N, stop - start, W)
            latents.append(self.pred_projector(x[:, -1:])[:, 0])  # (N, D)
            if stop >= window:
                past = None
        return torch.stack(latents, dim=1)  # (N, L + H, D)

    def _context(self, info: Info) -> torch.Tensor:
        """Latents (n, L, D) of the observed frames."""
        if "emb" in info:
            return _first_sample(info["emb"], 3)
        return self._encode_frames(_first_sample(_entry(info, "pixels"), 5))

    def _history(self, info: Info, emb: torch.Tensor) -> torch.Tensor:
        """Executed blocks (n, L - 1, A) between the frames of emb (n, L, D)."""
        n, length = emb.shape[:2]
        history = info.get("action_history")
        if history is None:
            history = emb.new_empty(n, 0, self.config.action_dim)
        history = _first_sample(history, 3).to(emb)
        if history.shape[1] != length - 1:
            raise ContractError(
                f"action_history has {history.shape[1]} blocks for {length} context frames: expected {length - 1}, "
                "one between each two frames"
            )
        return history

    def _encode_frames(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents (B, T, D) of images (B, T, 3, h, w)."""
        size = self.config.image_size
        if pixels.ndim != 5 or pixels.shape[2:] != (3, size, size):
            raise ContractError(
                f"pixels {tuple(pixels.shape)}: expected (B, T, 3, {size}, {size}), channels first; "
                f"render at image_shape=({size}, {size}) or train with another image_size"
            )
        frames = pixels.flatten(0, 1)  # (B * T, 3, h, w)
        if frames.dtype == torch.uint8:
            frames = (frames.to(self.image_mean) / 255 - self.image_mean) / self.image_std
        else:
            frames = frames.to(self.image_mean)
        return self.projector(self.encoder(frames).unflatten(0, pixels.shape[:2]))  # (B, T, D)


def _windows(x: torch.Tensor, size: int) -> torch.Tensor:
    """All runs of `size` steps of x (B, T, D), clip by clip: (B * (T - size + 1), size, D)."""
    return x.unfold(1, size, 1).movedim(-1, 2).flatten(0, 1)


def _repeat(x: torch.Tensor, samples: int) -> torch.Tensor:
    """(n, T, D) to (n * samples, T, D), env by env."""
    return x[:, None].expand(-1, samples, -1, -1).flatten(0, 1)


def _first_sample(x: torch.Tensor, ndim: int) -> torch.Tensor:
    """Drop the sample axis of x, if it has one more axis than `ndim`."""
    return x[:, 0] if x.ndim == ndim + 1 else x


def _entry(mapping: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    if key not in mapping:
        raise MissingKeyError(f"no {key!r} among {sorted(mapping)}")
    return mapping[key]
