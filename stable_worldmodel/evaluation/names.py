"""The names of what can be evaluated and planned with, as protocols and command lines write them. Imports no torch."""

from __future__ import annotations

from stable_worldmodel.policy.named import SCRIPTED

FLOORS = ("random", "noop", "replay")
ORACLE = "oracle"  # plans with the env itself: the ceiling
NAMED = (*FLOORS, *SCRIPTED, ORACLE)

# Name in a protocol -> class in `stable_worldmodel.solver`.
SOLVERS = {
    "cem": "CEMSolver",
    "icem": "ICEMSolver",
    "mppi": "MPPISolver",
    "predictive": "PredictiveSamplingSolver",
    "random": "RandomSolver",
    "gradient": "GradientSolver",
    "pgd": "PGDSolver",
    "categorical_cem": "CategoricalCEMSolver",
    "nevergrad": "NevergradSolver",
}
