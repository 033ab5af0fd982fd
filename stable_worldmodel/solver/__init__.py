"""Planners: one file each, no environment knowledge. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stable_worldmodel.solver.solver import Costable, Preparable, Solver

_LAZY = {"CEMSolver": "cem"}
__all__ = ["CEMSolver", "Costable", "Preparable", "Solver"]

if TYPE_CHECKING:
    from stable_worldmodel.solver.cem import CEMSolver as CEMSolver


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
