"""Earlier module name of categorical CEM."""

from stable_worldmodel.solver.categorical_cem import CategoricalCEMSolver

__all__ = ["CategoricalCEMSolver"]
