"""Earlier module and class name of the gradient solver."""

from __future__ import annotations

from stable_worldmodel.solver.gradient import GradientSolver

GDSolver = GradientSolver
__all__ = ["GDSolver", "GradientSolver"]
