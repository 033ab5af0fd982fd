"""`swm/HopperDMControl-v0`: a planar one-legged hopper."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.dmcontrol.rewards import HOPPER, spin
from stable_worldmodel.envs.mujoco.factors import Factor


class HopperDMControlWrapper(DMControlWrapper):
    """Hopper. Info, in addition: `speed`, `height`, `angmomentum`."""

    domain = "hopper"
    tasks = {  # noqa: RUF012
        "stand": Task("stand"),
        "hop": Task("hop"),
        **{name: Task("hop", reward) for name, reward in HOPPER.items()},
    }
    default_task = "hop"
    extras = {  # noqa: RUF012
        "speed": lambda physics: physics.speed(),
        "height": lambda physics: physics.height(),
        "angmomentum": spin,
    }

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.friction("floor"),
            common.density("torso"),
            common.density("foot"),
            common.locked("foot", "ankle"),
        )
