"""Sizes of PreJEPA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.training import Reads

# Random features of one wide attention-free layer are nearly the pixels of a patch: enough for simple worlds.
_SMALL = {
    "backbone": "vit",
    "backbone_options": {"patch_size": 8, "width": 48, "depth": 1, "heads": 3, "mlp_width": 96},
    "pretrained": False,
    "image_size": 64,
    "depth": 2,
    "heads": 4,
    "head_dim": 16,
    "mlp_width": 128,
    "dropout": 0.0,
}


@dataclass(frozen=True)
class PreJEPAConfig(PresetConfig):
    """A PreJEPA. The defaults are DINO-WM (arXiv 2411.04983) at 224 pixels; preset `original` has its 196."""

    model_type: ClassVar[str] = "prejepa"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "original": {"image_size": 196},
        "small": _SMALL,
        "debug": {
            **_SMALL,
            "image_size": 32,
            "backbone_options": {"patch_size": 16, "width": 16, "depth": 1, "heads": 2, "mlp_width": 32},
        },
    }

    action_dim: int = 10  # A: flattened env actions of one macro step
    inputs: dict[str, int] = field(default_factory=dict)  # further columns and their widths, e.g. {"proprio": 4}
    backbone: str = "dinov2_small"  # see wm.backbones
    backbone_options: dict[str, Any] = field(default_factory=dict)  # of a backbone without pretrained weights
    backbone_revision: str | None = None  # of its weights on the hub
    pretrained: bool = True
    image_size: int = 224  # of the backbone; other images are resized
    embed_dim: int = 10  # width of the action's and of every input's part of a token
    window: int = 3  # most frames the predictor looks back on
    depth: int = 6
    heads: int = 16
    head_dim: int = 64
    mlp_width: int = 2048
    dropout: float = 0.1
    decoder_weight: float = 0.0  # of an image decoder trained beside the model; 0: there is none
    decoder_width: int = 384
    rollout_rows: int = 512  # candidates rolled out at a time, a bound on memory

    def __post_init__(self) -> None:
        self._at_least_one("action_dim", "embed_dim", "window", "depth", "heads", "rollout_rows", "decoder_width")

    def reads(self) -> Reads:
        return Reads(("pixels", *self.inputs, "action"))
