"""`env.py` of an environment on the Hugging Face hub that LeRobot and this library can both build.

Put this file into a model repository as `env.py`, with a `requirements.txt` that says `stable-worldmodel[env]`. Its two
tasks, TwoRoom with one door and with three, are then built by

    envs = lerobot.envs.factory.make_env("you/two-room@<commit>", n_envs=4, trust_remote_code=True)

    envs = stable_worldmodel.lerobot.make_env("you/two-room@<commit>", n_envs=4, trust_remote_code=True)
    world = stable_worldmodel.World("hub:you/two-room@<commit>#1", num_envs=4, trust_remote_code=True)
"""

from __future__ import annotations

from typing import Any

from stable_worldmodel.lerobot import SuiteEnvConfig, TwoRoomEnvConfig

TASKS = {
    "Go through the door to the target.": 1,
    "Go through the nearest of the three doors to the target.": 3,
}


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None) -> dict[str, dict[int, Any]]:
    """`{"two_room": {task id: vector env}}`; of one task if a config names it: its `task` is the task id."""
    configs = [
        TwoRoomEnvConfig(
            task_description=sentence,
            kwargs={"init_value": {"door.number": doors}},
            observation_height=96,
            observation_width=96,
        )
        for sentence, doors in TASKS.items()
    ]
    chosen = getattr(cfg, "task", None)
    if chosen is not None:
        configs = [configs[int(chosen)]]
    return SuiteEnvConfig(name="two_room", tasks=configs).create_envs(n_envs, use_async_envs)
