"""World models: plain torch modules, one folder each, and their checkpoints.

    model = LeWM(LeWMConfig.preset("small", action_dim=10))
    save_pretrained(model, "runs/lewm/checkpoint", scalers={"action": scaler})
    checkpoint = load_checkpoint("runs/lewm/checkpoint")

torch is imported when one of these names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

# Public name -> module.
_LAZY = {
    "Checkpoint": "stable_worldmodel.wm.checkpoint",
    "LeWM": "stable_worldmodel.wm.lewm",
    "LeWMConfig": "stable_worldmodel.wm.lewm",
    "MODELS": "stable_worldmodel.wm.registry",
    "SIGReg": "stable_worldmodel.wm.loss",
    "build_model": "stable_worldmodel.wm.registry",
    "load_checkpoint": "stable_worldmodel.wm.checkpoint",
    "load_pretrained": "stable_worldmodel.wm.checkpoint",
    "save_pretrained": "stable_worldmodel.wm.checkpoint",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from stable_worldmodel.wm.checkpoint import Checkpoint as Checkpoint
    from stable_worldmodel.wm.checkpoint import load_checkpoint as load_checkpoint
    from stable_worldmodel.wm.checkpoint import load_pretrained as load_pretrained
    from stable_worldmodel.wm.checkpoint import save_pretrained as save_pretrained
    from stable_worldmodel.wm.lewm import LeWM as LeWM
    from stable_worldmodel.wm.lewm import LeWMConfig as LeWMConfig
    from stable_worldmodel.wm.loss import SIGReg as SIGReg
    from stable_worldmodel.wm.registry import MODELS as MODELS
    from stable_worldmodel.wm.registry import build_model as build_model

__getattr__ = lazy_exports(__name__, _LAZY)
