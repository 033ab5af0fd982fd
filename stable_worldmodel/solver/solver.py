"""What a solver is and what it minimises, under its earlier module name; defined in `stable_worldmodel.protocols`."""

from __future__ import annotations

from stable_worldmodel.protocols import Costable, Preparable, Solver

__all__ = ["Costable", "Preparable", "Solver"]
