"""Atari games of the Arcade Learning Environment: `swm/ALE-v5`, and the package's own ids `ALE/<Game>-v5`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_worldmodel.errors import require
from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.ale.env import ALEEnv

__all__ = ["ALEEnv", "load"]

__getattr__ = lazy_exports(__name__, {"ALEEnv": f"{__name__}.env"})


def load() -> Any:
    """Import the package `ale_py`, which registers `ALE/<Game>-v5`; MissingDependencyError names the extra."""
    ale_py = require("ale_py", "env")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets whoever makes a game
    return ale_py
