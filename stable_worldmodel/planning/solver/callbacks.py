"""Newest module name of `stable_worldmodel.solver.callbacks`."""

from stable_worldmodel.solver.callbacks import (
    ActionNormRecorder,
    BestCostRecorder,
    Callback,
    EliteCostRecorder,
    EliteSpreadRecorder,
    GradNormRecorder,
    MeanCostRecorder,
    MeanShiftRecorder,
    VarNormRecorder,
)

__all__ = [
    "ActionNormRecorder",
    "BestCostRecorder",
    "Callback",
    "EliteCostRecorder",
    "EliteSpreadRecorder",
    "GradNormRecorder",
    "MeanCostRecorder",
    "MeanShiftRecorder",
    "VarNormRecorder",
]
