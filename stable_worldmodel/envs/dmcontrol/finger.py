"""`swm/FingerDMControl-v0`: a finger that spins or turns a body on a hinge."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Draw, Task
from stable_worldmodel.envs.mujoco.effects import Paint, Put
from stable_worldmodel.envs.mujoco.factors import Factor, color, number


def _place_target(physics: object, position: object) -> None:
    hinge = physics.named.data.xanchor["hinge", ["x", "z"]]  # type: ignore[attr-defined]
    physics.named.model.site_pos["target", ["x", "z"]] = hinge + position  # type: ignore[attr-defined]


class FingerDMControlWrapper(DMControlWrapper):
    """Finger. Info, in addition: `hinge_velocity`, `target_position` and `tip_position`, both xz from the hinge."""

    domain = "finger"
    tasks = {name: Task(name) for name in ("spin", "turn_easy", "turn_hard")}  # noqa: RUF012
    default_task = "turn_hard"
    extras = {  # noqa: RUF012
        "hinge_velocity": lambda physics: physics.hinge_velocity(),
        "tip_position": lambda physics: physics.tip_position(),
    }
    draws = {"target_position": Draw(lambda physics: physics.target_position(), _place_target)}  # noqa: RUF012

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            common.density("proximal"),
            common.density("fingertip", "distal"),
            color("spinner.color", Paint("geom", ("cap1", "cap2")), "of the body on the hinge"),
            common.density("", "spinner", group="spinner"),
            number("spinner.friction", 0, 1, Put("dof_frictionloss", "hinge"), "dry friction of the hinge, N m"),
            *common.target("site", "target", shown=int(task != "spin")),
        )
