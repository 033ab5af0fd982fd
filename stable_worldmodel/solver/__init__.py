"""Planners: one file each, no environment knowledge. Importing this package does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.solver.solver import Costable, Preparable, Solver
from stable_worldmodel.utils.lazy import lazy_exports

_LAZY = {
    "CEMSolver": "stable_worldmodel.solver.cem",
    "CategoricalCEMSolver": "stable_worldmodel.solver.categorical_cem",
    "GDSolver": "stable_worldmodel.solver.gd",
    "GradientSolver": "stable_worldmodel.solver.gradient",
    "ICEMSolver": "stable_worldmodel.solver.icem",
    "LagrangianSolver": "stable_worldmodel.solver.lagrangian",
    "MPPISolver": "stable_worldmodel.solver.mppi",
    "NevergradSolver": "stable_worldmodel.solver.nevergrad",
    "PGDSolver": "stable_worldmodel.solver.pgd",
    "PredictiveSamplingSolver": "stable_worldmodel.solver.predictive",
    "RandomSolver": "stable_worldmodel.solver.random",
}
__all__ = [
    "CEMSolver",
    "CategoricalCEMSolver",
    "Costable",
    "GDSolver",
    "GradientSolver",
    "ICEMSolver",
    "LagrangianSolver",
    "MPPISolver",
    "NevergradSolver",
    "PGDSolver",
    "PredictiveSamplingSolver",
    "Preparable",
    "RandomSolver",
    "Solver",
]

if TYPE_CHECKING:
    from stable_worldmodel.solver.categorical_cem import CategoricalCEMSolver as CategoricalCEMSolver
    from stable_worldmodel.solver.cem import CEMSolver as CEMSolver
    from stable_worldmodel.solver.gd import GDSolver as GDSolver
    from stable_worldmodel.solver.gradient import GradientSolver as GradientSolver
    from stable_worldmodel.solver.icem import ICEMSolver as ICEMSolver
    from stable_worldmodel.solver.lagrangian import LagrangianSolver as LagrangianSolver
    from stable_worldmodel.solver.mppi import MPPISolver as MPPISolver
    from stable_worldmodel.solver.nevergrad import NevergradSolver as NevergradSolver
    from stable_worldmodel.solver.pgd import PGDSolver as PGDSolver
    from stable_worldmodel.solver.predictive import PredictiveSamplingSolver as PredictiveSamplingSolver
    from stable_worldmodel.solver.random import RandomSolver as RandomSolver

__getattr__ = lazy_exports(__name__, _LAZY)
