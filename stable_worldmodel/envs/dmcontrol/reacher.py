"""`swm/ReacherDMControl-v0`: a planar two-link arm that reaches for a target, or for a configuration."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import Draw, Task
from stable_worldmodel.envs.dmcontrol.goal import ConfigurationGoal
from stable_worldmodel.envs.mujoco.factors import Factor


def _place_target(physics: object, position: object) -> None:
    physics.named.model.geom_pos["target", ["x", "y"]] = position  # type: ignore[attr-defined]


class ReacherDMControlWrapper(ConfigurationGoal):
    """Reacher. Info, in addition: `target_pos` and `finger_pos`, both xy in m."""

    domain = "reacher"
    tasks = {  # noqa: RUF012
        "easy": Task("easy"),
        "hard": Task("hard"),
        "qpos_match": Task("hard", has_goal=True),
    }
    default_task = "hard"
    extras = {"finger_pos": lambda physics: physics.named.data.geom_xpos["finger", ["x", "y"]]}  # noqa: RUF012
    draws = {  # noqa: RUF012
        "target_pos": Draw(lambda physics: physics.named.model.geom_pos["target", ["x", "y"]], _place_target)
    }

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            common.density("arm"),
            common.density("finger"),
            common.locked("finger", "wrist"),
            # The sphere has nothing to do with the goal of qpos_match, so it is not drawn there.
            *common.target("geom", "target", shown=int(task != "qpos_match"), stock=1),
        )
