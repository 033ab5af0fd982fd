"""Policies: what a pool of envs does next. Torch is imported only when one that runs a model is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.policy.base import BasePolicy, Policy
from stable_worldmodel.policy.config import ACTION_HISTORY_KEY, PlanConfig
from stable_worldmodel.policy.expert import ExpertPolicy
from stable_worldmodel.policy.random import RandomPolicy
from stable_worldmodel.protocols import Transformable
from stable_worldmodel.utils.lazy import lazy_exports

_LAZY = {
    "AutoCostModel": "stable_worldmodel.policy.auto",
    "FeedForwardPolicy": "stable_worldmodel.policy.feed_forward",
    "LeRobotPolicy": "stable_worldmodel.lerobot.policy",
    "WorldModelPolicy": "stable_worldmodel.policy.world_model",
}
__all__ = [
    "ACTION_HISTORY_KEY",
    "AutoCostModel",
    "BasePolicy",
    "ExpertPolicy",
    "FeedForwardPolicy",
    "LeRobotPolicy",
    "PlanConfig",
    "Policy",
    "RandomPolicy",
    "Transformable",
    "WorldModelPolicy",
]

if TYPE_CHECKING:
    from stable_worldmodel.policy.auto import AutoCostModel as AutoCostModel
    from stable_worldmodel.policy.feed_forward import FeedForwardPolicy as FeedForwardPolicy
    from stable_worldmodel.policy.world_model import WorldModelPolicy as WorldModelPolicy

__getattr__ = lazy_exports(__name__, _LAZY)
