"""`swm/AcrobotDMControl-v0`: a two-link pendulum driven at its elbow."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.mujoco.factors import Factor


class AcrobotDMControlWrapper(DMControlWrapper):
    """Acrobot: swing the tip up to the target."""

    domain = "acrobot"
    tasks = {"swingup_sparse": Task("swingup_sparse"), "swingup": Task("swingup")}  # noqa: RUF012
    default_task = "swingup_sparse"

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.density("upper_arm"),
            common.density("lower_arm"),
            common.locked("upper_arm", "shoulder"),
            *common.target("site", "target"),
        )
