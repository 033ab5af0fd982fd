"""What turns a world model and a goal into a cost, and the planners that minimise it.

The planners live in `stable_worldmodel.solver`; their names here are the same objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.planning.objectives import (
    ActionSmoothness,
    AtMost,
    ControlPenalty,
    GoalMSE,
    PathMSE,
    WeightedSum,
    goal_objective,
)
from stable_worldmodel.protocols import (
    Actionable,
    Constrainable,
    Costable,
    Dynamics,
    Objective,
    Preparable,
    Solver,
    Transformable,
)
from stable_worldmodel.utils.lazy import lazy_exports

_LAZY = {
    "CEMSolver": "stable_worldmodel.solver",
    "CategoricalCEMSolver": "stable_worldmodel.solver",
    "ExpandedInfo": "stable_worldmodel.planning.evaluator",
    "GradientSolver": "stable_worldmodel.solver",
    "ICEMSolver": "stable_worldmodel.solver",
    "LagrangianSolver": "stable_worldmodel.solver",
    "MPPISolver": "stable_worldmodel.solver",
    "NevergradSolver": "stable_worldmodel.solver",
    "PGDSolver": "stable_worldmodel.solver",
    "PredictiveSamplingSolver": "stable_worldmodel.solver",
    "RandomSolver": "stable_worldmodel.solver",
    "ShootingCostEvaluator": "stable_worldmodel.planning.evaluator",
    "default_goal_encode": "stable_worldmodel.planning.evaluator",
    "flat_goal_encode": "stable_worldmodel.planning.evaluator",
    "split_goal_encode": "stable_worldmodel.planning.evaluator",
}
__all__ = [
    "ActionSmoothness",
    "Actionable",
    "AtMost",
    "CEMSolver",
    "CategoricalCEMSolver",
    "Constrainable",
    "ControlPenalty",
    "Costable",
    "Dynamics",
    "ExpandedInfo",
    "GoalMSE",
    "GradientSolver",
    "ICEMSolver",
    "LagrangianSolver",
    "MPPISolver",
    "NevergradSolver",
    "Objective",
    "PGDSolver",
    "PathMSE",
    "PredictiveSamplingSolver",
    "Preparable",
    "RandomSolver",
    "ShootingCostEvaluator",
    "Solver",
    "Transformable",
    "WeightedSum",
    "default_goal_encode",
    "flat_goal_encode",
    "goal_objective",
    "split_goal_encode",
]

if TYPE_CHECKING:
    from stable_worldmodel.planning.evaluator import ExpandedInfo as ExpandedInfo
    from stable_worldmodel.planning.evaluator import ShootingCostEvaluator as ShootingCostEvaluator
    from stable_worldmodel.planning.evaluator import default_goal_encode as default_goal_encode
    from stable_worldmodel.planning.evaluator import flat_goal_encode as flat_goal_encode
    from stable_worldmodel.planning.evaluator import split_goal_encode as split_goal_encode
    from stable_worldmodel.solver import CategoricalCEMSolver as CategoricalCEMSolver
    from stable_worldmodel.solver import CEMSolver as CEMSolver
    from stable_worldmodel.solver import GradientSolver as GradientSolver
    from stable_worldmodel.solver import ICEMSolver as ICEMSolver
    from stable_worldmodel.solver import LagrangianSolver as LagrangianSolver
    from stable_worldmodel.solver import MPPISolver as MPPISolver
    from stable_worldmodel.solver import NevergradSolver as NevergradSolver
    from stable_worldmodel.solver import PGDSolver as PGDSolver
    from stable_worldmodel.solver import PredictiveSamplingSolver as PredictiveSamplingSolver
    from stable_worldmodel.solver import RandomSolver as RandomSolver

__getattr__ = lazy_exports(__name__, _LAZY)
