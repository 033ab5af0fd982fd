"""The `gymnasium_robotics` package, made to work with the MuJoCo that is installed."""

from __future__ import annotations

import contextlib
import copy
import io
import types
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.mujoco import gl
from stable_worldmodel.envs.mujoco.meshes import Detail, simplified
from stable_worldmodel.envs.mujoco.renderer import digest_of
from stable_worldmodel.errors import require

# How meshes are drawn unless quality is "full": longest side of a picture up to which -> detail.
DETAILS = {96: Detail(0.1, 0.002), 1 << 30: Detail(0.3, 0.0005)}
_COMPARED = ("mjtJoint", "mjtEq")  # enums that the package compares with entries of arrays


class _Comparable:
    """`mujoco` with some enums as plain numbers."""

    def __init__(self, mujoco: Any):
        self._mujoco = mujoco
        for name in _COMPARED:
            members = getattr(mujoco, name).__members__.items()
            setattr(self, name, types.SimpleNamespace(**{key: int(value) for key, value in members}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mujoco, name)


def load() -> None:
    """Import the package and register its ids.

    In recent versions of MuJoCo `mjtJoint.mjJNT_HINGE == np.int32(3)` is False, so that version 1.4.2 of the package
    knows no joint by its type; its helpers then get numbers in place of the enums.
    """
    require("mujoco", "env")
    with gl.chosen_for_imports(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        robotics = require("gymnasium_robotics", "env")  # prints notes about environments that are not used here
        utils: Any = require("gymnasium_robotics.utils.mujoco_utils", "env")
    if np.int32(3) not in (utils.mujoco.mjtJoint.mjJNT_HINGE,):
        utils.mujoco = _Comparable(utils.mujoco)
    if "FetchReach-v4" not in gym.registry:
        gym.register_envs(robotics)


@dataclass(frozen=True)
class Look:
    """What is drawn of a compiled model: the longest side of a picture -> a model whose meshes have fewer faces."""

    digest: str

    def __call__(self, side: int) -> Any:
        detail = next(detail for most, detail in DETAILS.items() if side <= most)
        return simplified(_compiled[self.digest], self.digest, detail)


def look_of(model: Any) -> Look:
    """The look of a model as it was just compiled; a copy is kept, once per process."""
    digest = digest_of(model)
    if digest not in _compiled:
        _compiled[digest] = copy.copy(model)
    return Look(digest)


_compiled: dict[str, Any] = {}  # digest -> MjModel that nobody writes to
