"""`swm/HumanoidDMControl-v0`: a humanoid that stands, walks and runs."""

from __future__ import annotations

import numpy as np

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.mujoco.factors import Factor


class HumanoidDMControlWrapper(DMControlWrapper):
    """Humanoid. Info, in addition: `speed` (of its centre of mass, horizontal), `torso_upright`, `head_height`."""

    domain = "humanoid"
    tasks = {name: Task(name) for name in ("stand", "walk", "run")}  # noqa: RUF012
    default_task = "walk"
    extras = {  # noqa: RUF012
        "speed": lambda physics: np.linalg.norm(physics.center_of_mass_velocity()[:2]),
        "torso_upright": lambda physics: physics.torso_upright(),
        "head_height": lambda physics: physics.head_height(),
    }

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.friction("floor"),
            common.density("torso"),
            common.density("right_lower_arm"),
            common.locked("left_knee"),
        )
