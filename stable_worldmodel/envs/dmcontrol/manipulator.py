"""`swm/ManipulatorDMControl-v0`: a planar arm that brings a ball to a target."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Draw, Task
from stable_worldmodel.envs.mujoco.factors import Factor


def _place_target(physics: object, pose: object) -> None:
    model = physics.named.model  # type: ignore[attr-defined]
    model.body_pos["target_ball", ["x", "z"]] = pose[:2]  # type: ignore[index]
    model.body_quat["target_ball", ["qw", "qy"]] = pose[2:]  # type: ignore[index]


class ManipulatorDMControlWrapper(DMControlWrapper):
    """Manipulator, fully observable. Info, in addition: `target_pose` (4,), x, z and the quaternion's w, y."""

    domain = "manipulator"
    tasks = {"bring_ball": Task("bring_ball")}  # noqa: RUF012
    default_task = "bring_ball"
    draws = {"target_pose": Draw(lambda physics: physics.body_2d_pose("target_ball"), _place_target)}  # noqa: RUF012

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            common.density("upper_arm", default=500.0),
            common.density("hand", default=500.0),
            *common.target("geom", "target_ball"),
        )
