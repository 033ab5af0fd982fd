"""Goal-conditioned policies from offline data: GCBC, GCIVL, GCIQL and HILP."""

from stable_worldmodel.wm.gcrl.config import GCBCConfig, GCIQLConfig, GCIVLConfig, GCRLConfig, HILPConfig
from stable_worldmodel.wm.gcrl.model import GCBC, GCIQL, GCIVL, GCRL, HILP
from stable_worldmodel.wm.gcrl.networks import MetricValuePredictor, Predictor, QPredictor
from stable_worldmodel.wm.loss import ExpectileLoss
from stable_worldmodel.wm.prejepa.networks import Embedder

__all__ = [
    "GCBC",
    "GCIQL",
    "GCIVL",
    "GCRL",
    "HILP",
    "Embedder",
    "ExpectileLoss",
    "GCBCConfig",
    "GCIQLConfig",
    "GCIVLConfig",
    "GCRLConfig",
    "HILPConfig",
    "MetricValuePredictor",
    "Predictor",
    "QPredictor",
]
