"""Policies: what a pool of envs does next. Torch is imported only when WorldModelPolicy is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stable_worldmodel.policy.base import BasePolicy, Policy
from stable_worldmodel.policy.config import ACTION_HISTORY_KEY, PlanConfig
from stable_worldmodel.policy.expert import ExpertPolicy
from stable_worldmodel.policy.random import RandomPolicy
from stable_worldmodel.protocols import Transformable

_LAZY = {"WorldModelPolicy": "world_model"}
__all__ = [
    "ACTION_HISTORY_KEY",
    "BasePolicy",
    "ExpertPolicy",
    "PlanConfig",
    "Policy",
    "RandomPolicy",
    "Transformable",
    "WorldModelPolicy",
]

if TYPE_CHECKING:
    from stable_worldmodel.policy.world_model import WorldModelPolicy as WorldModelPolicy


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
