"""`swm train MODEL env=...` through the real application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_plays_learns_and_can_be_evaluated(tmp_path: Path) -> None:
    words = ["tdmpc2", "env=PendulumControl-v1", "preset=debug", "columns=[observation]", f"out={tmp_path}"]
    sizes = {"env_steps": 60, "seed_episodes": 1, "episodes_per_round": 1, "max_episode_steps": 30}
    sizes |= {"updates_per_step": 0.1, "eval_episodes": 1}
    words += [f"online.{name}={value}" for name, value in sizes.items()]
    done = swm("train", *words, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["episodes"], found["env_steps"], found["step"]) == (2, 60, 6)
    scored = swm("eval", tmp_path, "--episodes", 2, "--out", tmp_path / "eval", "--json")
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)[0]["episodes"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lewm", "env=PendulumControl-v1"], "does not act for rewards"),
        (["tdmpc2", "env=PendulumControl-v7"], "PendulumControl-v1"),
        (["tdmpc2", "online.env_steps=3"], "expected env=ENV"),
        (["tdmpc2", "env=PendulumControl-v1", "data=rooms.h5"], "exclude each other"),
        (["tdmpc2", "env=PendulumControl-v1", "online.speed=3"], "no speed in an online run"),
        (["tdmpc2", "env=PendulumControl-v1", "columns=[velocity]"], "does not show ['velocity']"),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str, tmp_path: Path) -> None:
    done = swm("train", *words, f"out={tmp_path}", "preset=debug")
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.output
