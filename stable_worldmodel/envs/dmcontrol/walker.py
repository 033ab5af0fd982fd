"""`swm/WalkerDMControl-v0`: a planar biped."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.dmcontrol.rewards import WALKER, height_of
from stable_worldmodel.envs.mujoco.effects import Slope
from stable_worldmodel.envs.mujoco.factors import Factor, number

_PARTS = ("left_foot", "right_foot", "left_thigh", "right_thigh")


class WalkerDMControlWrapper(DMControlWrapper):
    """Walker. Info, in addition: `speed`, `torso_height`, `torso_upright`, heights of feet and thighs."""

    domain = "walker"
    tasks = {  # noqa: RUF012
        **{name: Task(name) for name in ("stand", "walk", "run")},
        **{name: Task("walk", reward) for name, reward in WALKER.items()},
    }
    default_task = "walk"
    extras = {  # noqa: RUF012
        "speed": lambda physics: physics.horizontal_velocity(),
        "torso_height": lambda physics: physics.torso_height(),
        "torso_upright": lambda physics: physics.torso_upright(),
        **{f"{part}_height": height_of(part) for part in _PARTS},
    }

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.friction("floor"),
            number("floor.rotation_y", -10, 10, Slope("floor"), "degrees; the floor's normal is (sin, 0, cos)"),
            common.density("torso"),
            common.density("left_foot"),
            common.locked("right_knee"),
        )
