"""Sizes of LeWM: the published model, and two small ones for laptops and CI."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from stable_worldmodel.errors import ContractError


@dataclass(frozen=True)
class LeWMConfig:
    """Sizes and loss weights of a LeWM. The defaults are the published model (arXiv 2603.19312)."""

    model_type: ClassVar[str] = "lewm"  # name in wm.registry.MODELS

    action_dim: int = 10  # A: flattened env actions of one macro step
    image_size: int = 224  # pixels, square
    patch_size: int = 14
    latent_dim: int = 192  # D
    encoder_width: int = 192
    encoder_depth: int = 12
    encoder_heads: int = 3
    encoder_mlp: int = 768
    projector_hidden: int = 2048
    window: int = 3  # most frames the predictor looks back on
    predictor_width: int = 192
    predictor_depth: int = 6
    predictor_heads: int = 16
    predictor_head_dim: int = 64
    predictor_mlp: int = 2048
    dropout: float = 0.1
    branch_norm: bool = True  # affine LayerNorm behind each modulation, as published
    sigreg_weight: float = 0.09
    sigreg_directions: int = 1024
    alignment_weight: float = 0.0  # of the squared step between consecutive latents; the published loss has none

    def __post_init__(self) -> None:
        for name in ("action_dim", "latent_dim", "encoder_depth", "window", "sigreg_directions"):
            if getattr(self, name) < 1:
                raise ContractError(f"{name}={getattr(self, name)}: expected an integer >= 1")
        if self.image_size % self.patch_size:
            raise ContractError(f"image_size={self.image_size}: expected a multiple of patch_size={self.patch_size}")
        if self.encoder_width % self.encoder_heads:
            raise ContractError(
                f"encoder_width={self.encoder_width}: expected a multiple of encoder_heads={self.encoder_heads}"
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> LeWMConfig:
        """The preset `paper`, `small` or `tiny`, with single values replaced. ContractError for another name."""
        if name not in PRESETS:
            raise ContractError(f"preset {name!r}: expected one of {sorted(PRESETS)}")
        return replace(PRESETS[name], **overrides)


# 64 x 64 images; trained on a two-core CPU in minutes. A narrow latent and the alignment term keep distances in latent
# space close to distances in the world, see docs/models/lewm.md.
_SMALL = LeWMConfig(
    image_size=64,
    patch_size=16,
    latent_dim=16,
    encoder_width=64,
    encoder_depth=2,
    encoder_heads=2,
    encoder_mlp=256,
    projector_hidden=256,
    predictor_width=64,
    predictor_depth=2,
    predictor_heads=4,
    predictor_head_dim=16,
    predictor_mlp=256,
    dropout=0.0,
    branch_norm=False,
    sigreg_directions=64,
    alignment_weight=1.0,
)
PRESETS = {"paper": LeWMConfig(), "small": _SMALL, "tiny": _SMALL}
