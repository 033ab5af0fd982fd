"""Planners: one file each, no environment knowledge. Importing this package does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.solver.solver import Costable, Preparable, Solver
from stable_worldmodel.utils.lazy import lazy_exports

_LAZY = {"CEMSolver": "stable_worldmodel.solver.cem"}
__all__ = ["CEMSolver", "Costable", "Preparable", "Solver"]

if TYPE_CHECKING:
    from stable_worldmodel.solver.cem import CEMSolver as CEMSolver

__getattr__ = lazy_exports(__name__, _LAZY)
