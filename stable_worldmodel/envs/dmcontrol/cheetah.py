"""`swm/CheetahDMControl-v0`: a planar cheetah that runs, stands, jumps and flips."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.dmcontrol.rewards import CHEETAH, height_of, spin
from stable_worldmodel.envs.mujoco.factors import Factor


class CheetahDMControlWrapper(DMControlWrapper):
    """Cheetah. Info, in addition: `speed`, `torso_height`, `bfoot_height`, `ffoot_height`, `angmomentum`."""

    domain = "cheetah"
    tasks = {"run": Task("run"), **{name: Task("run", reward) for name, reward in CHEETAH.items()}}  # noqa: RUF012
    default_task = "run"
    extras = {  # noqa: RUF012
        "speed": lambda physics: physics.speed(),
        "torso_height": height_of("torso"),
        "bfoot_height": height_of("bfoot"),
        "ffoot_height": height_of("ffoot"),
        "angmomentum": spin,
    }

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            common.friction("ground"),
            common.density("torso", shared=True),
            common.density("back_foot", "bfoot", shared=True),
            common.locked("back_foot", "bfoot"),
        )
