"""`swm collect` through the real application."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.cli.rollouts import parse_options
from stable_worldmodel.data import load_dataset

SMALL = ("--num-envs", 2, "--image-size", 32, "--max-steps", 6)


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_records_continues_and_shows_the_python_that_does_the_same(tmp_path: Path) -> None:
    command = ["collect", "TwoRoom-v1", "--policy", "expert", "-p", "action_noise=0.5", *SMALL]
    command += ["--variation", "agent.color", "--seed", 7]
    assert swm(*command, "--out", tmp_path / "a.h5", "--episodes", 2).exit_code == 0
    done = swm(*command, "--out", tmp_path / "a.h5", "--episodes", 4)
    assert done.exit_code == 0, done.output
    recorded = load_dataset(tmp_path / "a.h5")
    assert recorded.num_episodes == 4
    assert "variation.agent.color" in recorded.column_names
    script = done.output.partition("The same in Python:")[2].replace("a.h5", "b.h5")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True)
    for mine, theirs in zip(recorded.iter_episodes(), load_dataset(tmp_path / "b.h5").iter_episodes(), strict=True):
        for name, values in mine.items():
            np.testing.assert_array_equal(theirs[name], values, err_msg=name)


def test_the_format_follows_suffix_or_option(tmp_path: Path) -> None:
    done = swm("collect", "TwoRoom-v1", *SMALL, "-o", tmp_path / "frames", "--format", "folder", "--json")
    assert json.loads(done.stdout)["episodes"] == 10
    assert (tmp_path / "frames" / "ep_len.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TwoRoom-v7"], "TwoRoom-v1"),
        (["TwoRoom-v1", "--policy", "champion"], "expected one of random, expert"),
        (["TwoRoom-v1", "--policy", "expert", "-p", "noise=1"], "takes action_noise"),
        (["TwoRoom-v1", "--variation", "agent.colour"], "agent.color"),
        (["TwoRoom-v1", "--mode", "again"], "mode='again'"),
        (["TwoRoom-v1", "bounded"], "expected KEY=VALUE"),
    ],
)
def test_wrong_arguments_end_with_one_clear_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = swm("collect", *arguments, "--out", tmp_path / "x.h5", *SMALL)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_values_are_literals_words_or_text() -> None:
    pairs = ["a=1", "b=0.5", "c=true", "d=None", "e=(1, 2)", "f=red", "g='7'", "h="]
    assert parse_options(pairs) == {
        "a": 1, "b": 0.5, "c": True, "d": None, "e": (1, 2), "f": "red", "g": "7", "h": ""
    }  # fmt: skip
