"""`swm/PendulumDMControl-v0`: swing a pendulum up with little torque."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.mujoco.effects import Outline
from stable_worldmodel.envs.mujoco.factors import Factor, switch


class PendulumDMControlWrapper(DMControlWrapper):
    """Pendulum. All its mass is in the bob, so both densities scale the same mass."""

    domain = "pendulum"
    tasks = {"swingup": Task("swingup")}  # noqa: RUF012
    default_task = "swingup"

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.density("pole"),
            common.density("mass", "pole"),
            switch("agent.mass_shape", Outline("geom", "mass"), "looks only; 0: box, 1: sphere"),
        )
