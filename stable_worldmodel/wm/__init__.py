"""World models: plain torch modules, one folder each, and their checkpoints.

    model = build_model(preset_config("lewm", "small", action_dim=10))
    loss, metrics = model(batch)
    save_pretrained(model, "runs/lewm/checkpoint", scalers={"action": scaler})
    checkpoint = load_checkpoint("runs/lewm/checkpoint")

torch is imported when one of these names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

# Public name -> module.
_LAZY = {
    "BACKBONES": "stable_worldmodel.wm.backbones",
    "Checkpoint": "stable_worldmodel.wm.checkpoint",
    "DINOWM": "stable_worldmodel.wm.dinowm",
    "Dreamer": "stable_worldmodel.wm.dreamer",
    "DreamerConfig": "stable_worldmodel.wm.dreamer",
    "DummyConfig": "stable_worldmodel.wm.dummy",
    "DummyWorldModel": "stable_worldmodel.wm.dummy",
    "FrameConfig": "stable_worldmodel.wm.frame",
    "FrameModel": "stable_worldmodel.wm.frame",
    "GCBC": "stable_worldmodel.wm.gcrl",
    "GCBCConfig": "stable_worldmodel.wm.gcrl",
    "GCIQL": "stable_worldmodel.wm.gcrl",
    "GCIQLConfig": "stable_worldmodel.wm.gcrl",
    "GCIVL": "stable_worldmodel.wm.gcrl",
    "GCIVLConfig": "stable_worldmodel.wm.gcrl",
    "HILP": "stable_worldmodel.wm.gcrl",
    "HILPConfig": "stable_worldmodel.wm.gcrl",
    "LeWM": "stable_worldmodel.wm.lewm",
    "LeWMConfig": "stable_worldmodel.wm.lewm",
    "MODELS": "stable_worldmodel.wm.registry",
    "PLDM": "stable_worldmodel.wm.pldm",
    "PLDMConfig": "stable_worldmodel.wm.pldm",
    "PLDMLoss": "stable_worldmodel.wm.loss",
    "PYRO": "stable_worldmodel.wm.pyro",
    "ParameterGroup": "stable_worldmodel.wm.training",
    "PreJEPA": "stable_worldmodel.wm.prejepa",
    "PreJEPAConfig": "stable_worldmodel.wm.prejepa",
    "SIGReg": "stable_worldmodel.wm.loss",
    "TDMPC2": "stable_worldmodel.wm.tdmpc2",
    "TDMPC2Config": "stable_worldmodel.wm.tdmpc2",
    "TemporalStraighteningLoss": "stable_worldmodel.wm.loss",
    "VCReg": "stable_worldmodel.wm.loss",
    "attach_probe": "stable_worldmodel.wm.probes",
    "build_model": "stable_worldmodel.wm.registry",
    "checkpoint_info": "stable_worldmodel.wm.checkpoint",
    "create_backbone": "stable_worldmodel.wm.backbones",
    "evaluate_probe": "stable_worldmodel.wm.probes",
    "fit_probe": "stable_worldmodel.wm.probes",
    "get_probe": "stable_worldmodel.wm.probes",
    "load_checkpoint": "stable_worldmodel.wm.checkpoint",
    "load_pretrained": "stable_worldmodel.wm.checkpoint",
    "load_probe": "stable_worldmodel.wm.probes",
    "open_features": "stable_worldmodel.wm.features",
    "optimizer_groups": "stable_worldmodel.wm.training",
    "preset_config": "stable_worldmodel.wm.registry",
    "push_to_hub": "stable_worldmodel.wm.checkpoint",
    "save_pretrained": "stable_worldmodel.wm.checkpoint",
    "write_features": "stable_worldmodel.wm.features",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from stable_worldmodel.wm.backbones import BACKBONES as BACKBONES
    from stable_worldmodel.wm.backbones import create_backbone as create_backbone
    from stable_worldmodel.wm.checkpoint import Checkpoint as Checkpoint
    from stable_worldmodel.wm.checkpoint import checkpoint_info as checkpoint_info
    from stable_worldmodel.wm.checkpoint import load_checkpoint as load_checkpoint
    from stable_worldmodel.wm.checkpoint import load_pretrained as load_pretrained
    from stable_worldmodel.wm.checkpoint import push_to_hub as push_to_hub
    from stable_worldmodel.wm.checkpoint import save_pretrained as save_pretrained
    from stable_worldmodel.wm.dinowm import DINOWM as DINOWM
    from stable_worldmodel.wm.dreamer import Dreamer as Dreamer
    from stable_worldmodel.wm.dreamer import DreamerConfig as DreamerConfig
    from stable_worldmodel.wm.dummy import DummyConfig as DummyConfig
    from stable_worldmodel.wm.dummy import DummyWorldModel as DummyWorldModel
    from stable_worldmodel.wm.features import open_features as open_features
    from stable_worldmodel.wm.features import write_features as write_features
    from stable_worldmodel.wm.frame import FrameConfig as FrameConfig
    from stable_worldmodel.wm.frame import FrameModel as FrameModel
    from stable_worldmodel.wm.gcrl import GCBC as GCBC
    from stable_worldmodel.wm.gcrl import GCIQL as GCIQL
    from stable_worldmodel.wm.gcrl import GCIVL as GCIVL
    from stable_worldmodel.wm.gcrl import HILP as HILP
    from stable_worldmodel.wm.gcrl import GCBCConfig as GCBCConfig
    from stable_worldmodel.wm.gcrl import GCIQLConfig as GCIQLConfig
    from stable_worldmodel.wm.gcrl import GCIVLConfig as GCIVLConfig
    from stable_worldmodel.wm.gcrl import HILPConfig as HILPConfig
    from stable_worldmodel.wm.lewm import LeWM as LeWM
    from stable_worldmodel.wm.lewm import LeWMConfig as LeWMConfig
    from stable_worldmodel.wm.loss import PLDMLoss as PLDMLoss
    from stable_worldmodel.wm.loss import SIGReg as SIGReg
    from stable_worldmodel.wm.loss import TemporalStraighteningLoss as TemporalStraighteningLoss
    from stable_worldmodel.wm.loss import VCReg as VCReg
    from stable_worldmodel.wm.pldm import PLDM as PLDM
    from stable_worldmodel.wm.pldm import PLDMConfig as PLDMConfig
    from stable_worldmodel.wm.prejepa import PreJEPA as PreJEPA
    from stable_worldmodel.wm.prejepa import PreJEPAConfig as PreJEPAConfig
    from stable_worldmodel.wm.probes import attach_probe as attach_probe
    from stable_worldmodel.wm.probes import evaluate_probe as evaluate_probe
    from stable_worldmodel.wm.probes import fit_probe as fit_probe
    from stable_worldmodel.wm.probes import get_probe as get_probe
    from stable_worldmodel.wm.probes import load_probe as load_probe
    from stable_worldmodel.wm.pyro import PYRO as PYRO
    from stable_worldmodel.wm.registry import MODELS as MODELS
    from stable_worldmodel.wm.registry import build_model as build_model
    from stable_worldmodel.wm.registry import preset_config as preset_config
    from stable_worldmodel.wm.tdmpc2 import TDMPC2 as TDMPC2
    from stable_worldmodel.wm.tdmpc2 import TDMPC2Config as TDMPC2Config
    from stable_worldmodel.wm.training import ParameterGroup as ParameterGroup
    from stable_worldmodel.wm.training import optimizer_groups as optimizer_groups

__getattr__ = lazy_exports(__name__, _LAZY)
