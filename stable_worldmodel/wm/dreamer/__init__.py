"""Dreamer (V3), a recurrent world model whose policy is learned in imagination."""

from stable_worldmodel.wm.dreamer.behaviour import lambda_returns
from stable_worldmodel.wm.dreamer.config import DreamerConfig
from stable_worldmodel.wm.dreamer.model import Dreamer
from stable_worldmodel.wm.dreamer.rssm import RSSM, BlockGRU, State

__all__ = ["RSSM", "BlockGRU", "Dreamer", "DreamerConfig", "State", "lambda_returns"]
