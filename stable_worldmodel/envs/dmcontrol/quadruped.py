"""`swm/QuadrupedDMControl-v0`: a quadruped that walks and runs."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.mujoco.factors import Factor


class QuadrupedDMControlWrapper(DMControlWrapper):
    """Quadruped. Info, in addition: `torso_velocity` (3,), in its own frame."""

    domain = "quadruped"
    tasks = {"walk": Task("walk"), "run": Task("run")}  # noqa: RUF012
    default_task = "walk"
    camera = "y"  # number 2, from the side
    extras = {"torso_velocity": lambda physics: physics.torso_velocity()}  # noqa: RUF012

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.friction("floor"),
            common.density("torso"),
            common.density("foot_back_left", "ankle_back_left", default=500.0),
            common.locked("knee_back_left"),
        )
