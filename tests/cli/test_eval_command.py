"""`swm eval` through the real application."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.world import Results

SHORT = ("--episodes", 4, "--goal-offset", 8, "--budget", 6)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rooms") / "rooms.h5"
    done = swm("collect", "TwoRoom-v1", "--policy", "expert", "--episodes", 16, "--image-size", 32, "--out", path)
    assert done.exit_code == 0, done.output
    return path


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_policies_beside_each_other_and_the_python_that_does_the_same(rooms: Path, tmp_path: Path) -> None:
    done = swm("eval", "random", "--floors", "--dataset", rooms, *SHORT, "--video", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    files = {file.name.rpartition("-")[0]: file for file in tmp_path.glob("*.json")}
    assert sorted(files) == ["noop", "random", "replay"]
    assert len(list(tmp_path.glob("*/env_*.mp4"))) == 12
    script = done.stdout.partition("The same in Python:")[2]
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=120, capture_output=True, text=True
    ).stdout
    assert printed.splitlines()[0] == str(Results.load(files["random"])).splitlines()[0]
    assert printed.count("success") >= 3


def test_json_has_the_intervals(rooms: Path, tmp_path: Path) -> None:
    done = swm("eval", "replay", "--dataset", rooms, *SHORT, "--out", tmp_path, "--json")
    (row,) = json.loads(done.stdout)
    assert row["subject"] == "replay"
    assert row["success_rate"]["low"] <= row["success_rate"]["mean"] <= row["success_rate"]["high"]
    assert Path(row["results"]).is_file()


def test_a_grid_is_resumed(tmp_path: Path) -> None:
    command = ["eval", "noop", "--env", "TwoRoom-v1", "--record", "expert", *SHORT, "--grid"]
    command += ["--factors", "default,agent", "--seeds", "1,2", "--out", tmp_path]
    done = swm(*command, "--json")
    assert done.exit_code == 0, done.output
    assert [(row["factor"], row["seed"]) for row in json.loads(done.stdout)] == [
        ("default", 1),
        ("default", 2),
        ("agent", 1),
        ("agent", 2),
    ]
    written = (tmp_path / "grid.jsonl").read_bytes()
    again = swm(*command)
    assert "agent" in again.stdout
    assert (tmp_path / "grid.jsonl").read_bytes() == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["random"], "name one"),
        (["random", "--env", "TwoRoom-v7"], "TwoRoom-v1"),
        (["./nowhere"], "nowhere"),
        (["replay", "--env", "TwoRoom-v1"], "repeats recorded actions"),
        (["expert", "--env", "VoidRun-v0"], "no policy 'expert'"),
        (["random", "--env", "TwoRoom-v1", "--dataset", "missing.h5"], "missing.h5"),
        (["random", "--env", "TwoRoom-v1", "--seeds", "1"], "only with --grid"),
        (["random", "--env", "TwoRoom-v1", "--grid", "--seeds", "1,b"], "whole numbers"),
        (["random", "--env", "TwoRoom-v1", "--grid", "--factors", "colour"], "agent.color"),
        (["random", "--env", "TwoRoom-v1", "--own-goals", "--record", "expert"], "exclude each other"),
        (["random", "--env", "TwoRoom-v1", "--plan", "horizon"], "KEY=VALUE"),
    ],
)
def test_wrong_input_is_one_paragraph(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = swm("eval", *arguments, "--out", tmp_path)
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.output
