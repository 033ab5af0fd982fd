"""The planners under their newest module name; they live in `stable_worldmodel.solver`."""

from __future__ import annotations

import stable_worldmodel.solver as _solver
from stable_worldmodel.solver import __all__ as __all__


def __getattr__(name: str) -> object:
    return getattr(_solver, name)
