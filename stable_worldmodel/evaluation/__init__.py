"""Whole evaluations as values: who acts, where from, what counts; alone, beside floors, or as a grid over factors.

evaluation = Evaluation.of("runs/lewm", episodes=200)
print(evaluation.run())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

# Public name -> module.
_LAZY = {
    "Evaluation": "stable_worldmodel.evaluation.evaluation",
    "Grid": "stable_worldmodel.evaluation.grid",
    "NoopPolicy": "stable_worldmodel.evaluation.floors",
    "ReplayPolicy": "stable_worldmodel.evaluation.floors",
    "sample_pairs": "stable_worldmodel.evaluation.pairs",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from stable_worldmodel.evaluation.evaluation import Evaluation as Evaluation
    from stable_worldmodel.evaluation.floors import NoopPolicy as NoopPolicy
    from stable_worldmodel.evaluation.floors import ReplayPolicy as ReplayPolicy
    from stable_worldmodel.evaluation.grid import Grid as Grid
    from stable_worldmodel.evaluation.pairs import sample_pairs as sample_pairs

__getattr__ = lazy_exports(__name__, _LAZY)
