"""stable_worldmodel: collect, train, plan and evaluate world models. `import stable_worldmodel as swm`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module. Nothing heavy is imported until a name is used.
_LAZY = {
    "World": "stable_worldmodel.world",
    "PlanConfig": "stable_worldmodel.policy",
    "load_dataset": "stable_worldmodel.data",
    "pretraining": "stable_worldmodel.utils",
}
_SUBMODULES = {
    "buffer",
    "cli",
    "data",
    "envs",
    "errors",
    "lerobot",
    "planning",
    "policy",
    "pool",
    "protocols",
    "quickstart",
    "report",
    "solver",
    "spaces",
    "train",
    "utils",
    "wm",
    "world",
    "wrappers",
}
__all__ = ["__version__", *sorted(_LAZY)]

if TYPE_CHECKING:
    from stable_worldmodel.data import load_dataset as load_dataset
    from stable_worldmodel.policy import PlanConfig as PlanConfig
    from stable_worldmodel.utils import pretraining as pretraining
    from stable_worldmodel.world import World as World


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"stable_worldmodel.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})
