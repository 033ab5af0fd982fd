"""What turns a world model and a goal into a cost, and the planners that minimise it.

The planners live in `stable_worldmodel.solver`; their names here are the same objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.planning.objectives import ControlPenalty, GoalMSE, WeightedSum
from stable_worldmodel.protocols import Actionable, Constrainable, Costable, Dynamics, Objective, Solver, Transformable
from stable_worldmodel.utils.lazy import lazy_exports

_LAZY = {
    "CEMSolver": "stable_worldmodel.solver",
    "ShootingCostEvaluator": "stable_worldmodel.planning.evaluator",
    "default_goal_encode": "stable_worldmodel.planning.evaluator",
    "flat_goal_encode": "stable_worldmodel.planning.evaluator",
}
__all__ = [
    "Actionable",
    "CEMSolver",
    "Constrainable",
    "ControlPenalty",
    "Costable",
    "Dynamics",
    "GoalMSE",
    "Objective",
    "ShootingCostEvaluator",
    "Solver",
    "Transformable",
    "WeightedSum",
    "default_goal_encode",
    "flat_goal_encode",
]

if TYPE_CHECKING:
    from stable_worldmodel.planning.evaluator import ShootingCostEvaluator as ShootingCostEvaluator
    from stable_worldmodel.planning.evaluator import default_goal_encode as default_goal_encode
    from stable_worldmodel.planning.evaluator import flat_goal_encode as flat_goal_encode
    from stable_worldmodel.solver import CEMSolver as CEMSolver

__getattr__ = lazy_exports(__name__, _LAZY)
