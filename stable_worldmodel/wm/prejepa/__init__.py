"""PreJEPA, known as DINO-WM: a world model over the patch features of a frozen, pretrained backbone."""

from stable_worldmodel.wm.backbones import BACKBONES, create_backbone
from stable_worldmodel.wm.prejepa.config import PreJEPAConfig
from stable_worldmodel.wm.prejepa.model import PreJEPA
from stable_worldmodel.wm.prejepa.networks import CausalPredictor, Embedder, PatchDecoder

__all__ = ["BACKBONES", "CausalPredictor", "Embedder", "PatchDecoder", "PreJEPA", "PreJEPAConfig", "create_backbone"]
