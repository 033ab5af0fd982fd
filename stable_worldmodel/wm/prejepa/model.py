"""PreJEPA: a world model over the patch features of a frozen backbone (DINO-WM, arXiv 2411.04983).

A frame is one token per patch: its frozen features, joined by embeddings of further inputs and of the action that
leaves the frame, which are the same for all patches. A transformer predicts the tokens of the next frame.

Shapes: B clips, n envs, S candidates, N = n * S, T frames, L context frames, H planned steps, P patches, F feature
width, E width of an embedding, W = F + E * (inputs + 1) token width, A flattened size of one action block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.backbones import create_backbone
from stable_worldmodel.wm.loss import weighted_sum
from stable_worldmodel.wm.prejepa.config import PreJEPAConfig
from stable_worldmodel.wm.prejepa.networks import CausalPredictor, Embedder, PatchDecoder
from stable_worldmodel.wm.tensors import (
    Batch,
    Metrics,
    action_blocks,
    action_history,
    entry,
    fill_nan,
    first_sample,
    repeat,
    windows,
)


class PreJEPA(nn.Module):
    """The world model of `config`. Calling it gives the training loss; planners use `encode` and `rollout`.

    Frames are `pixels` (B, T, 3, h, w), or their features `pixels_emb` (B, T, P, F) where they were computed before.
    Further inputs are scaled columns (B, T, d). Actions are scaled; action t of a clip leaves frame t.
    """

    framewise = True  # a frame's tokens depend on no other one: planners may keep them

    def __init__(self, config: PreJEPAConfig) -> None:
        super().__init__()
        self.config = c = config
        self.backbone = create_backbone(
            c.backbone,
            image_size=c.image_size,
            pretrained=c.pretrained,
            revision=c.backbone_revision,
            options=c.backbone_options,
        )
        features = self.backbone.width
        width = features + c.embed_dim * (len(c.inputs) + 1)
        # Of everything but the images. Planners compare goals part by part with models that have such encoders.
        columns = {**c.inputs, "action": c.action_dim}
        self.extra_encoders = nn.ModuleDict({name: Embedder(d, c.embed_dim) for name, d in columns.items()})
        self.predictor = CausalPredictor(
            c.window, self.backbone.patches, width, c.depth, c.heads, c.head_dim, c.mlp_width, c.dropout
        )
        self.decoder = PatchDecoder(features, c.decoder_width, c.image_size) if c.decoder_weight else None
        if self.decoder is not None:
            self.decode = self._decode  # whoever wants images asks for it by its presence
        # Weights that a checkpoint names instead of holding them.
        self.reference_prefixes = ("backbone.",) if c.pretrained else ()

    # -- training -----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """Loss, a scalar, and its detached parts for clips of frames (B, T, ...), `action` (B, T, A) and the inputs.

        loss = mean squared error of the next frame's tokens but for their action part; the targets are detached
        """
        window = self.config.window
        observed = {name: batch[name] for name in self._columns(batch)}
        encoded = self.encode({**observed, "action": entry(batch, "action")})
        emb = encoded["emb"]  # (B, T, P, W)
        if emb.shape[1] <= window:
            raise ContractError(
                f"clips of {emb.shape[1]} frames: expected at least window + 1 = {window + 1}; "
                "load the dataset with a larger num_steps"
            )
        predicted, _ = self.predictor(windows(emb[:, :-1], window))  # (B', window, P, W), B' = B * (T - window)
        observed = emb.shape[-1] - self.config.embed_dim  # the action comes last
        target = windows(emb[:, 1:, :, :observed].detach(), window)  # (B', window, P, W - E)
        error = (predicted[..., :observed].float() - target.float()).square()
        terms = {"pred": (1.0, error.mean())}
        if self.decoder is not None:
            terms["decoder"] = (self.config.decoder_weight, self._decoder_error(batch, encoded["pixels_emb"]))
        loss, metrics = weighted_sum(terms)
        slots = self._slots()
        return loss, {**metrics, **{f"pred_{name}": error[..., slots[name]].detach().mean() for name in slots}}

    def _decoder_error(self, batch: Batch, features: torch.Tensor) -> torch.Tensor:
        """Mean squared error of decoded images in [0, 1]; the features get no gradient."""
        assert self.decoder is not None
        images = entry(batch, "pixels").flatten(0, 1)  # (B * T, 3, h, w)
        size = (self.config.image_size, self.config.image_size)
        images = F.interpolate(images.float(), size, mode="bilinear", antialias=True) / 255
        return (self.decoder(features.detach().flatten(0, 1)).float() - images).square().mean()

    # -- planning -----------------------------------------------------------------------------------------------------

    def encode(self, info: Info) -> Info:
        """Return info with tokens `emb` (n, T, P, W), features `pixels_emb` (n, T, P, F) and `<input>_emb` (n, T, E).

        The action part is that of `action` (n, T, A), or 0 without it.
        """
        features = self._features(info)  # (n, T, P, F)
        encoded = {**info, "pixels_emb": features}
        parts = [features]
        for name, width in self.config.inputs.items():
            x = fill_nan(entry(info, name).to(features).flatten(2))  # (n, T, d)
            if x.shape != (*features.shape[:2], width):
                raise ContractError(
                    f"{name} {tuple(x.shape)}: expected {(*features.shape[:2], width)}, one row for each frame"
                )
            encoded[f"{name}_emb"] = self.extra_encoders[name](x)  # (n, T, E)
            parts.append(self._tiled(encoded[f"{name}_emb"], features))
        if "action" in info:
            encoded["act_emb"] = self.embed_actions(info["action"])  # (n, T, E)
            parts.append(self._tiled(encoded["act_emb"], features))
        else:
            parts.append(features.new_zeros(*features.shape[:3], self.config.embed_dim))
        encoded["emb"] = torch.cat([part.to(features.dtype) for part in parts], dim=-1)  # (n, T, P, W)
        return encoded

    def predict(self, embedding: torch.Tensor) -> torch.Tensor:
        """Tokens of the next frame at every position, (N, T, P, W), for embedding (N, T, P, W) with T <= window."""
        return self.predictor(embedding)[0]

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, P, W) for candidates (n, S, H, A); the context comes first.

        The context is `emb` (n, L, P, W), or else encoded from frames and inputs, the last frame being the present;
        `action_history` (n, L - 1, A) holds the blocks executed between its frames and is needed for L > 1. Each may
        have a sample axis after n, of which the first entry counts. The parts of the tokens are also in
        `predicted_pixels_emb` (n, S, L + H, P, F) and, averaged over patches, `predicted_<input>_emb` (n, S, L + H, E).

        `last_only` returns the last frame alone, time axis 1: all that a goal objective reads.
        """
        n, samples = candidates.shape[:2]
        emb = self._context(info)  # (n, L, P, W)
        history = action_history(info, emb, self.config.action_dim)  # (n, L - 1, A)
        blocks = torch.cat([repeat(history, samples), candidates.flatten(0, 1)], dim=1)  # (N, L - 1 + H, A)
        act_emb = self.embed_actions(blocks).to(emb.dtype)  # (N, L - 1 + H, E)
        length = 1 if last_only else emb.shape[1] + candidates.shape[2]
        out = emb.new_empty(n * samples, length, *emb.shape[2:])  # (N, length, P, W)
        env = torch.arange(n, device=emb.device).repeat_interleave(samples)  # (N,)
        for rows in torch.arange(len(out), device=emb.device).split(self.config.rollout_rows):
            out[rows] = self._imagine(emb[env[rows]], act_emb[rows], last_only)
        predicted = out.unflatten(0, (n, samples))  # (n, S, length, P, W)
        return {**info, "emb": emb, "predicted_emb": predicted, **self._parts(predicted)}

    def embed_actions(self, actions: torch.Tensor) -> torch.Tensor:
        """Embed action blocks (N, T, A) as (N, T, E). NaN, the filler of an episode's last action, counts as 0."""
        actions = action_blocks(actions, self.config.action_dim, next(self.predictor.parameters()))
        return self.extra_encoders["action"](actions)

    def _decode(self, emb: torch.Tensor) -> torch.Tensor:
        """Images (..., 3, size, size) in [0, 1] of tokens (..., P, W)."""
        assert self.decoder is not None
        features = emb[..., : self.backbone.width]
        return self.decoder(features.flatten(0, -3)).unflatten(0, features.shape[:-2])

    def _imagine(self, emb: torch.Tensor, act_emb: torch.Tensor, last_only: bool) -> torch.Tensor:
        """Continue tokens emb (N, L, P, W) to (N, L + H, P, W), or (N, 1, P, W), given act_emb (N, L - 1 + H, E).

        While all frames fit in the window, only the newest is computed and the others' keys and values are kept. Once
        it slides, every frame changes its position and the window is computed again.
        """
        window, length, steps = self.config.window, emb.shape[1], act_emb.shape[1]
        kept = window if last_only else steps + 1  # frames in memory: a ring if only the last one is wanted
        frames = emb.new_empty(len(emb), min(kept, steps + 1), *emb.shape[2:])  # (N, kept, P, W)
        past = None
        for t in range(length):
            frames[:, t % kept] = emb[:, t]
        for stop in range(1, steps + 1):
            frames[:, (stop - 1) % kept, :, -self.config.embed_dim :] = act_emb[:, stop - 1, None]
            if stop < length:
                continue
            start = stop - 1 if past else max(0, stop - window)
            seen = [t % kept for t in range(start, stop)]
            x = frames[:, seen[0] : seen[-1] + 1] if seen[0] <= seen[-1] else frames[:, seen]
            predicted, past = self.predictor(x, past)  # (N, stop - start, P, W)
            frames[:, stop % kept] = predicted[:, -1]
            past = None if stop >= window else past
        return frames[:, steps % kept, None] if last_only else frames

    def _context(self, info: Info) -> torch.Tensor:
        """Tokens (n, L, P, W) of the observed frames; their action part is filled in later."""
        if "emb" in info:
            return first_sample(info["emb"], 4)
        frames = {name: first_sample(info[name], _NDIM.get(name, 3)) for name in self._columns(info)}
        return self.encode(frames)["emb"]

    def _columns(self, info: Mapping[str, torch.Tensor]) -> list[str]:
        """What the model observes."""
        return [*(name for name in _NDIM if name in info), *(name for name in self.config.inputs if name in info)]

    def _features(self, info: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if "pixels_emb" not in info:
            return self.backbone(entry(info, "pixels"))  # (n, T, P, F)
        features = info["pixels_emb"].to(next(self.predictor.parameters()))  # (n, T, P, F)
        if features.shape[2:] != (self.backbone.patches, self.backbone.width):
            raise ContractError(
                f"pixels_emb {tuple(features.shape)}: expected (B, T, {self.backbone.patches}, {self.backbone.width})"
            )
        return features

    def _tiled(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(n, T, E) for all patches: (n, T, P, E)."""
        return x[:, :, None].expand(-1, -1, features.shape[2], -1)

    def _slots(self) -> dict[str, slice]:
        """Where the parts of a token are, but for the action, which is last."""
        features, width = self.backbone.width, self.config.embed_dim
        inputs = {
            name: slice(features + i * width, features + (i + 1) * width) for i, name in enumerate(self.config.inputs)
        }
        return {"pixels": slice(0, features), **inputs}

    def _parts(self, predicted: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each part of predicted tokens (n, S, T, P, W) under its name."""
        slots = self._slots()
        parts = {"predicted_pixels_emb": predicted[..., slots.pop("pixels")]}
        return parts | {f"predicted_{name}_emb": predicted[..., slot].mean(dim=3) for name, slot in slots.items()}


_NDIM = {"pixels_emb": 4, "pixels": 5}  # axes without a sample axis
