"""Earlier module name of the solvers for discrete actions."""

from stable_worldmodel.solver.categorical_cem import CategoricalCEMSolver
from stable_worldmodel.solver.pgd import PGDSolver

__all__ = ["CategoricalCEMSolver", "PGDSolver"]
