"""An environment as a repository for the Hugging Face hub, which LeRobot and this library build it from."""

from __future__ import annotations

import ast
import pprint
from pathlib import Path

from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot.configs import EnvConfig, HubEnvConfig, SuiteEnvConfig, env_config_from_dict
from stable_worldmodel.lerobot.features import env_to_policy_features
from stable_worldmodel.lerobot.hub import DEFAULT_FILE
from stable_worldmodel.utils.files import write_atomically

REQUIREMENTS_FILE = "requirements.txt"
CARD_FILE = "README.md"
FILES = (DEFAULT_FILE, REQUIREMENTS_FILE, CARD_FILE)


def export_env(config: EnvConfig, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `env.py`, `requirements.txt` and `README.md` into `folder`, and return it.

    `env.py` holds the config and a `make_env(n_envs, use_async_envs, cfg)` that builds its envs. In a model repository
    of the hub it is what `make_env("owner/repo", trust_remote_code=True)` runs, LeRobot's or ours.

    Raises ContractError, with nothing written, for a config that is code on the hub itself, one with values that are no
    Python literals, and if one of the files exists and `overwrite` is not set.
    """
    if isinstance(config, HubEnvConfig):
        raise ContractError(f"{config.hub_path!r} is on the hub already: expected the config of envs built here")
    literal = pprint.pformat(config.to_dict(), width=100, sort_dicts=False)
    try:
        same = env_config_from_dict(ast.literal_eval(literal)) == config
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise ContractError(f"the config does not survive as Python literals, as a file needs them: {literal}")
    folder = Path(folder)
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise ContractError(f"{folder} has {there} already: choose another folder, or overwrite them")
    name = config.gym_id if config.type == "gym" else config.suite
    sentences = [_sentence(task) for task in _tasks(config)]
    source = _SOURCE.format(name=name, config=literal)
    card = _CARD.format(
        name=name,
        tasks="\n".join(f"| {number} | {sentence} |" for number, sentence in enumerate(sentences)),
        features="\n".join(_feature_rows(config)),
    )
    for file, text in zip(FILES, (source, _REQUIREMENTS, card), strict=True):
        write_atomically(folder / file, text.encode())
    return folder


def _tasks(config: EnvConfig) -> list[EnvConfig]:
    return config.tasks if isinstance(config, SuiteEnvConfig) else [config]


def _sentence(task: EnvConfig) -> str:
    """What a policy is told, else the id."""
    return getattr(task, "task_description", "") or task.gym_id


def _feature_rows(config: EnvConfig) -> list[str]:
    features = env_to_policy_features(config)
    return [f"| `{name}` | {feature.type.value} | {feature.shape} |" for name, feature in features.items()]


_SOURCE = '''"""The environment {name!r} for LeRobot and stable-worldmodel."""

from __future__ import annotations

from typing import Any

from stable_worldmodel.lerobot import env_config_from_dict

CONFIG: dict[str, Any] = {config}


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None) -> dict[str, dict[int, Any]]:
    """`{{suite: {{task id: vector env}}}}` with `n_envs` envs per task. What is built is CONFIG; `cfg` is not read."""
    return env_config_from_dict(CONFIG).create_envs(n_envs, use_async_envs)
'''

_REQUIREMENTS = "stable-worldmodel[env]\n"

_CARD = """---
tags:
- LeRobot
- robotics
---

# {name}

An environment of `stable_worldmodel` for LeRobot. `env.py` is Python code that runs with your rights: read it, and pin
the commit you read.

    pip install -r requirements.txt

```python
from lerobot.envs.factory import make_env  # or: from stable_worldmodel.lerobot import make_env

envs = make_env("owner/repo@commit", n_envs=4, trust_remote_code=True)  # {{suite: {{task: vector env}}}}
```

| task | what to do |
|---|---|
{tasks}

| feature of a policy | kind | shape |
|---|---|---|
{features}
"""
