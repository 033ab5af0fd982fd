"""`swm lerobot export-env`, and what is built from the files it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot import (
    HubEnvConfig,
    SuiteEnvConfig,
    close_envs,
    env_to_policy_features,
    export_env,
    make_env,
    make_env_config,
)

SMALL = {"observation_height": 24, "observation_width": 32}
FILES = ["README.md", "env.py", "requirements.txt"]


def swm(*arguments: str | Path):
    return CliRunner().invoke(app, ["lerobot", "export-env", *map(str, arguments)])


def published(hub: FakeHub, folder: Path) -> str:
    hub.add("us/exported", {path.name: path.read_text() for path in folder.iterdir()})
    return "us/exported"


def test_command_writes_a_repository_that_builds_the_env(hub: FakeHub, tmp_path) -> None:
    folder = tmp_path / "rooms"
    arguments = ["two_room", "observation_height=24", "observation_width=32", "fps=5", "--out", str(folder)]
    command = [sys.executable, "-m", "stable_worldmodel.cli", "lerobot", "export-env", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:3] == [str(folder / name) for name in ("env.py", "requirements.txt", "README.md")]
    assert f"hf upload OWNER/REPO {folder}" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert "stable-worldmodel[env]" in (folder / "requirements.txt").read_text()

    config = make_env_config("two_room", fps=5, **SMALL)
    built = make_env(published(hub, folder), 2, hub_cache_dir=tmp_path / "cache", trust_remote_code=True)
    expected = make_env(config, 2)
    (theirs,), (ours,) = built["two_room"].values(), expected["two_room"].values()
    assert theirs.metadata["render_fps"] == 5
    for seed in (0, 1):
        found, wanted = theirs.reset(seed=seed)[0], ours.reset(seed=seed)[0]
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_array_equal(found[key], value)
    close_envs([built, expected])


@pytest.mark.parametrize("env", ["pusht", "cube", "swm/SimpleNavigation-v0", "CartPole-v1"])
def test_card_tells_what_a_policy_gets(env: str, tmp_path) -> None:
    values = {"obs_type": "pixels", **SMALL} if env == "CartPole-v1" else SMALL
    done = swm(env, *(f"{key}={value}" for key, value in values.items()), "--out", tmp_path / "e", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    features = env_to_policy_features(make_env_config(env, **values))
    assert told["features"] == {name: feature.to_dict() for name, feature in features.items()}
    assert sorted(told["files"]) == FILES
    card = (tmp_path / "e" / "README.md").read_text()
    for name, feature in features.items():
        assert f"| `{name}` | {feature.type.value} | {feature.shape} |" in card


def test_suite_keeps_its_tasks(hub: FakeHub, tmp_path) -> None:
    tasks = [make_env_config("two_room", task_description=f'Say "{i}"\n{{now}}.', **SMALL) for i in range(3)]
    folder = export_env(SuiteEnvConfig(name="rooms", tasks=tasks), tmp_path / "suite")
    built = make_env(published(hub, folder), 1, hub_cache_dir=tmp_path / "cache", trust_remote_code=True)
    assert list(built["rooms"]) == [0, 1, 2]
    assert built["rooms"][2].call("task_description")[0] == tasks[2].task_description
    close_envs(built)


def test_files_that_are_there_stay_unless_told_otherwise(tmp_path) -> None:
    (tmp_path / "env.py").write_text("mine")
    done = swm("two_room", "--out", tmp_path)
    assert (done.exit_code, done.stderr) == (
        1,
        f"error: {tmp_path} has ['env.py'] already: choose another folder, or overwrite them\n",
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["env.py"]
    assert swm("two_room", "--out", tmp_path, "--overwrite").exit_code == 0
    assert "make_env" in (tmp_path / "env.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Nowhere-v3"], "Nowhere"),
        (["two_room", "speed=3"], "speed"),
        (["two_room", "obs_type=video"], "obs_type='video'"),
        (["two_room", "quick"], "expected KEY=VALUE"),
        (["hub", "hub_path=a/b"], "on the hub already"),
    ],
)
def test_bad_input_is_one_message_and_no_file(tmp_path, arguments: list[str], message: str) -> None:
    done = swm(*arguments, "--out", tmp_path / "e")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not (tmp_path / "e").exists()


def test_values_that_are_no_literals_are_refused(tmp_path) -> None:
    for kwargs in ({"place": np.zeros(2)}, {"make": print}, {"limit": float("inf")}):
        with pytest.raises(ContractError, match="Python literals"):
            export_env(make_env_config("two_room", kwargs=kwargs, **SMALL), tmp_path / "e")
    with pytest.raises(ContractError, match="on the hub already"):
        export_env(HubEnvConfig(hub_path="a/b"), tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_help_has_examples() -> None:
    for arguments in (["lerobot", "--help"], ["lerobot", "export-env", "--help"]):
        text = CliRunner().invoke(app, arguments).output
        assert "export-env" in text
    assert "swm lerobot export-env two_room --out two-room" in text
