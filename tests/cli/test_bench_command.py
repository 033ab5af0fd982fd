"""`swm bench` through the real application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app


def swm(*arguments: object):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def measured(*arguments: object) -> dict:
    done = swm(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def check_spread(found: dict, name: str) -> None:
    assert 0 < found[f"{name}_lowest"] <= found[name] <= found[f"{name}_highest"]
    assert found["cores"] >= 1


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rooms") / "rooms.h5"
    command = ["collect", "TwoRoom-v1", "--policy", "expert", "--episodes", "6", "--out", str(path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    return path


def test_steps_of_an_environment_are_counted() -> None:
    found = measured("rollout", "TwoRoom-v1", "--num-envs", 2, "--max-steps", 5, "--image-size", 16, "--seconds", 0.3)
    check_spread(found, "steps_per_second")
    assert found["steps"] >= 3 * 2 * 5  # rounds of an episode per env, at least
    assert (found["env"], found["num_envs"]) == ("swm/TwoRoom-v1", 2)


def test_windows_of_a_dataset_are_counted(rooms: Path) -> None:
    found = measured("loading", rooms, "--num-steps", 2, "--frameskip", 1, "--seconds", 0.3, "--columns", "action")
    check_spread(found, "windows_per_second")
    assert found["windows"] > 0


@pytest.mark.slow
def test_decisions_with_a_checkpoint_are_timed(rooms: Path, tmp_path: Path) -> None:
    words = ["train", "lewm", f"data={rooms}", "preset=debug", "max_steps=1", f"out={tmp_path}"]
    assert CliRunner().invoke(app, words).exit_code == 0
    solver = ["--solver", "num_samples=8", "--solver", "topk=2", "--solver", "n_steps=2"]
    found = measured("planning", tmp_path, *solver, "--decisions", 3)
    check_spread(found, "ms_per_decision")
    assert (found["num_samples"], found["decisions"]) == (8, 3)


def test_decisions_in_the_playground_are_timed() -> None:
    words = ["--solver", "num_samples=8", "--solver", "topk=2", "--solver", "n_steps=2", "--plan", "horizon=3"]
    found = measured("planning", *words, "--num-envs", 2, "--decisions", 25)  # more than an episode has
    check_spread(found, "ms_per_decision")
    assert (found["horizon"], found["n_steps"], found["decisions"]) == (3, 2, 25)
    assert "ms per decision" in swm("planning", *words, "--decisions", 1).stdout


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["rollout", "TwoRoom-v7"], 1, "TwoRoom-v1"),
        (["rollout", "TwoRoom-v1", "num_envs=3"], 1, "no argument of an environment"),
        (["rollout", "TwoRoom-v1", "--seconds", "0"], 2, "--seconds"),
        (["loading", "nowhere"], 1, "was not found"),
        (["planning", "nowhere"], 1, "no checkpoint"),
        (["planning", "--solver", "type=magic"], 1, "expected one of cem"),
        (["planning", "--plan", "horizon=0"], 1, "horizon"),
        (["planning", "--plan", "speed=3"], 1, "speed"),
    ],
)
def test_wrong_input_is_one_paragraph(words: list[str], status: int, message: str) -> None:
    done = swm(*words)
    assert done.exit_code == status, done.output
    assert message in done.stderr
