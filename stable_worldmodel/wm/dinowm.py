"""DINO-WM under its early name and interface: PreJEPA put together from ready parts, with the cost built in."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.prejepa import CausalPredictor, Embedder, PreJEPA, PreJEPAConfig, create_backbone
from stable_worldmodel.wm.tensors import entry

__all__ = ["DINOWM", "CausalPredictor", "Embedder", "create_backbone"]


class DINOWM(PreJEPA):
    """PreJEPA of given parts, for one proprioceptive column `proprio` or none.

    Args:
        encoder: a `wm.backbones.Backbone`.
        predictor: a `CausalPredictor` over tokens of the features, the proprioception and the action.
        action_encoder, proprio_encoder: an `Embedder` each; `proprio_encoder` may be None.
        decoder: features (N, P, F) to images, or None.
        history_size: frames the predictor looks back on.
        num_pred: frames predicted at once; only 1.
    """

    def __init__(
        self,
        encoder: Any,
        predictor: CausalPredictor,
        action_encoder: Embedder,
        proprio_encoder: Embedder | None,
        decoder: nn.Module | None = None,
        history_size: int = 3,
        num_pred: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        if num_pred != 1:
            raise ContractError(f"num_pred={num_pred}: expected 1")
        nn.Module.__init__(self)
        inputs = {} if proprio_encoder is None else {"proprio": proprio_encoder.linear.in_features}
        self.config = PreJEPAConfig(
            action_dim=action_encoder.linear.in_features,
            inputs=inputs,
            embed_dim=action_encoder.emb_dim,
            window=history_size,
            image_size=encoder.image_size,
            decoder_weight=0.0 if decoder is None else 1.0,
        )
        self.backbone = encoder
        self.predictor = predictor
        encoders = {"proprio": proprio_encoder, "action": action_encoder}
        self.extra_encoders = nn.ModuleDict(
            {name: encoder for name, encoder in encoders.items() if encoder is not None}
        )
        self.decoder = decoder  # type: ignore[assignment]
        self.reference_prefixes = ()
        self.to(device)

    def encode(
        self,
        info: Info,
        pixels_key: str = "pixels",
        target: str = "embed",
        proprio_key: str | None = None,
        action_key: str | None = None,
    ) -> Info:
        """As `PreJEPA.encode`, of the columns named; the tokens are also stored under `target`."""
        columns = {"pixels": pixels_key, "proprio": proprio_key or "proprio", "action": action_key or "action"}
        chosen = {name: info[key] for name, key in columns.items() if key in info}
        encoded = super().encode(chosen)
        added = {name: value for name, value in encoded.items() if name not in chosen}
        return {**info, **added, target: encoded["emb"]}

    def decode(self, info: Info) -> Info:  # type: ignore[override]
        """Return info with images `decoded_pixels` (..., 3, h, w) of `predicted_pixels_emb`, else of `pixels_emb`."""
        if self.decoder is None:
            raise ContractError("this model has no decoder")
        key = "predicted_pixels_emb" if "predicted_pixels_emb" in info else "pixels_emb"
        if key not in info:
            raise MissingKeyError(f"no 'predicted_pixels_emb' and no 'pixels_emb' among {sorted(info)}; encode first")
        features = info[key]  # (..., P, F)
        return {**info, "decoded_pixels": self.decoder(features.flatten(0, -3)).unflatten(0, features.shape[:-2])}

    def split_embedding(self, embedding: torch.Tensor, action_dim: int, proprio_dim: int) -> tuple[torch.Tensor, ...]:
        """Features (..., F), proprioception (..., proprio_dim) and action (..., action_dim) of tokens (..., W)."""
        features = embedding.shape[-1] - action_dim - proprio_dim
        return embedding.split([features, proprio_dim, action_dim], dim=-1)

    def replace_action_in_embedding(self, embedding: torch.Tensor, act: torch.Tensor) -> torch.Tensor:
        """A copy of tokens (N, T, P, W) whose action part is that of the blocks act (N, T, A)."""
        act_emb = self.embed_actions(act)  # (N, T, E)
        kept = embedding[..., : -act_emb.shape[-1]]
        return torch.cat([kept, self._tiled(act_emb, embedding).to(embedding.dtype)], dim=-1)

    def rollout(self, info: Info, action_sequence: torch.Tensor, *, last_only: bool = False) -> Info:
        """As `PreJEPA.rollout`; the tokens are also stored as `predicted_embedding`."""
        rolled_out = super().rollout(info, action_sequence, last_only=last_only)
        return {**rolled_out, "predicted_embedding": rolled_out["predicted_emb"]}

    def prepare(self, info: Info) -> Info:
        """What `cost` needs of an info: the observation encoded, and the goal as `pixels_goal_emb`, `proprio_goal_emb`.

        The goal is `goal` (n, T, 3, h, w) and, for models that observe it, `goal_proprio` (n, T, d).
        """
        names = {"pixels": "goal", **{name: f"goal_{name}" for name in self.config.inputs}}
        goal = PreJEPA.encode(self, {name: entry(info, key)[:, -1:] for name, key in names.items()})
        context = {"emb": self._context(info), **{f"{name}_goal_emb": goal[f"{name}_emb"] for name in names}}
        return context | ({"action_history": info["action_history"]} if "action_history" in info else {})

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Mean squared distance (n, S) of the last predicted frame from the goal: features plus proprioception."""
        predicted = self.rollout(context, candidates, last_only=True)
        errors = []
        for name in ("pixels", *self.config.inputs):
            end = predicted[f"predicted_{name}_emb"][:, :, -1].float()  # (n, S, ...)
            error = (end - context[f"{name}_goal_emb"][:, -1, None].float()).square()
            errors.append(error.flatten(2).mean(dim=2))  # (n, S)
        return torch.stack(errors).sum(dim=0)

    def get_cost(self, info_dict: Info, action_candidates: torch.Tensor) -> torch.Tensor:
        """`cost` (n, S) of candidates (n, S, H, A) for observation and goal in the info."""
        return self.cost(self.prepare(info_dict), action_candidates)
