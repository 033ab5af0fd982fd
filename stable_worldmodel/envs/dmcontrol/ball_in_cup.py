"""`swm/BallInCupDMControl-v0`: swing a ball on a string into a cup."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.mujoco.effects import RGB, BallRadius, Put
from stable_worldmodel.envs.mujoco.factors import Factor, color, number


class BallInCupDMControlWrapper(DMControlWrapper):
    """Ball in cup. The target is the region in the cup where a ball counts as caught."""

    domain = "ball_in_cup"
    tasks = {"catch": Task("catch")}  # noqa: RUF012
    default_task = "catch"

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.density("", "cup"),
            color("ball.color", Put("mat_rgba", "effector", RGB), "of the ball"),
            common.density("", "ball", group="ball"),
            number("ball.size", 0.01, 0.05, BallRadius("ball", "ball"), "radius, m; the ball's mass follows"),
            *common.target("site", "target"),
        )
