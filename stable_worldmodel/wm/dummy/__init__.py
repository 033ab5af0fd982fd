"""The smallest world model there is: a floor for others, and a model for tests of everything around one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.tensors import (
    Batch,
    Metrics,
    action_blocks,
    check_images,
    entry,
    first_sample,
    normalise_images,
    repeat,
)

__all__ = ["DummyConfig", "DummyWorldModel", "build_dummy"]


@dataclass(frozen=True)
class DummyConfig(PresetConfig):
    """Sizes of the dummy model."""

    model_type: ClassVar[str] = "dummy"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"image_size": 224},
        "small": {},
        "debug": {"image_size": 32},
    }

    action_dim: int = 10  # A
    image_size: int = 64
    latent_dim: int = 10

    def __post_init__(self) -> None:
        self._at_least_one("action_dim", "image_size", "latent_dim")


class DummyWorldModel(nn.Module):
    """Two linear layers: a random projection of the image, which stays as it is, and the next projection from it.

    Args:
        image_shape: (3, size, size) or (size, size).
        action_dim: flattened size A of one action block.
        latent_dim: width D of the projection.
    """

    def __init__(self, image_shape: Sequence[int], action_dim: int, latent_dim: int = 10) -> None:
        super().__init__()
        size = image_shape[-1]
        if tuple(image_shape) not in ((3, size, size), (size, size)):
            raise ContractError(f"image_shape={tuple(image_shape)}: expected (3, size, size) or (size, size)")
        self.config = DummyConfig(action_dim, size, latent_dim)
        self.encoder = nn.Linear(3 * size * size, latent_dim).requires_grad_(False)
        self.predictor = nn.Linear(latent_dim + action_dim, latent_dim)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Metrics]:
        """Mean squared error of next latents for clips `pixels` (B, T, 3, h, w) and `action` (B, T, A)."""
        z = self.encode(entry(batch, "pixels"))  # (B, T, D)
        loss = (self.predict(z[:, :-1], entry(batch, "action")[:, :-1]) - z[:, 1:]).float().square().mean()
        return loss, {"loss": loss.detach()}

    def encode(self, obs: Any) -> Any:
        """Latents (n, T, D) of images (n, T, 3, h, w); of an info, the info with them as `emb`."""
        if isinstance(obs, Mapping):
            return {**obs, "emb": self.encode(entry(obs, "pixels"))}
        check_images(obs, self.config.image_size)
        images = normalise_images(obs, self._zero, self._zero + 1)  # (n, T, 3, h, w)
        return self.encoder(images.flatten(2))  # (n, T, D)

    def predict(self, obs: torch.Tensor, actions: torch.Tensor, timestep: int | None = None) -> torch.Tensor:
        """Next latents (..., D) of latents obs (..., D) and actions (..., A); the same at every `timestep`."""
        actions = action_blocks(actions, self.config.action_dim, self._zero)
        return self.predictor(torch.cat([obs, actions], dim=-1))

    def rollout(self, info: Info, candidates: torch.Tensor) -> Info:
        """Return info with `predicted_emb` (n, S, L + H, D) for candidates (n, S, H, A)."""
        emb = first_sample(info["emb"], 3) if "emb" in info else self.encode(first_sample(entry(info, "pixels"), 5))
        n, samples = candidates.shape[:2]
        latents = [*repeat(emb, samples).unbind(1)]  # each (n * S, D)
        for action in candidates.flatten(0, 1).unbind(1):
            latents.append(self.predict(latents[-1], action))
        return {**info, "emb": emb, "predicted_emb": torch.stack(latents, dim=1).unflatten(0, (n, samples))}

    def prepare(self, info: Info) -> Info:
        """What `cost` needs of an info: its `pixels` and `goal` encoded, `emb` (n, L, D) and `goal_emb` (n, T, D)."""
        goal = self.encode(first_sample(entry(info, "goal"), 5))
        return {"emb": self.encode(first_sample(entry(info, "pixels"), 5)), "goal_emb": goal}

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        """Mean squared distance (n, S) of the last latent of candidates (n, S, H, A) from that of the goal."""
        end = self.rollout(context, candidates)["predicted_emb"][:, :, -1]  # (n, S, D)
        return (end - context["goal_emb"][:, -1:]).float().square().mean(dim=-1)

    def get_cost(self, info_dict: Info, action_candidates: torch.Tensor) -> torch.Tensor:
        """`cost` (n, S) of candidates (n, S, H, A) for the images `pixels` and `goal` (n, T, 3, h, w)."""
        return self.cost(self.prepare(info_dict), action_candidates)

    @property
    def _zero(self) -> torch.Tensor:
        return self.predictor.bias.new_zeros(())


def build_dummy(config: DummyConfig) -> DummyWorldModel:
    """The dummy model of a config."""
    return DummyWorldModel((3, config.image_size, config.image_size), config.action_dim, config.latent_dim)
