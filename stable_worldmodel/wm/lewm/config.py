"""Sizes of LeWM: the published model, and small ones for laptops and CI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_worldmodel.wm.jepa import DEBUG_JEPA, SMALL_JEPA, JEPAConfig

# A narrow latent and the alignment term keep distances in latent space close to distances in the world, see
# docs/models/lewm.md.
_SMALL: dict[str, Any] = {**SMALL_JEPA, "sigreg_directions": 64, "alignment_weight": 1.0}


@dataclass(frozen=True)
class LeWMConfig(JEPAConfig):
    """Sizes and loss weights of a LeWM. The defaults are the published model (arXiv 2603.19312)."""

    model_type: ClassVar[str] = "lewm"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "small": _SMALL,
        "tiny": _SMALL,
        "debug": {**_SMALL, **DEBUG_JEPA},
    }

    sigreg_weight: float = 0.09
    sigreg_directions: int = 1024
    alignment_weight: float = 0.0  # of the squared step between consecutive latents; the published loss has none

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("sigreg_directions")


PRESETS = {name: LeWMConfig.preset(name) for name in LeWMConfig.presets}
