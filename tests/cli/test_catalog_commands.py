"""`swm list`, `show`, `delete` and `checkpoints` through the real application."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.data import list_datasets, open_writer


def swm(*arguments: object, answer: str | None = None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in ("walks", "runs"):
        with open_writer(home / f"{name}.h5") as writer:
            episode = {"pixels": np.zeros((4, 8, 8, 3), np.uint8), "action": np.zeros((4, 2), np.float32)}
            writer.write_episode({**episode, "variation.agent.color": np.zeros((4, 3), np.uint8)})
    run = home / "checkpoints" / "lewm-tiny"
    run.mkdir(parents=True)
    (run / "weights.safetensors").write_bytes(b"12345")
    return home


def test_names_are_listed_by_kind(home: Path) -> None:
    assert json.loads(swm("list", "dataset", "--json").stdout) == ["runs", "walks"]
    assert json.loads(swm("list", "model", "--json").stdout) == ["lewm-tiny"]
    assert "swm/TwoRoom-v1" in swm("list", "world").output


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    done = swm("list", "dataset")
    assert done.exit_code == 0
    assert "no dataset" in done.output


def test_datasets_and_worlds_are_shown(home: Path) -> None:
    done = swm("show", "dataset", "--all")
    assert done.exit_code == 0, done.output
    assert "walks" in done.output
    assert "agent.color" in done.output
    described = json.loads(swm("show", "world", "TwoRoom-v1", "--json").stdout)
    assert described["swm/TwoRoom-v1"]["action_space"]["shape"] == [2]
    assert "agent.color" in swm("show", "world", "TwoRoom-v1").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "planets"], "expected one of model, dataset, world"),
        (["show", "dataset"], "Give names, or --all"),
        (["show", "dataset", "walks", "swims"], "no dataset swims; there are: runs, walks"),
        (["show", "model", "--all"], "expected one of dataset, world"),
        (["delete", "dataset", "walks", "swims", "--yes"], "no dataset swims"),
        (["delete", "world", "walks"], "expected one of model, dataset"),
        (["checkpoints", "("], "not a regular expression"),
    ],
)
def test_wrong_arguments_end_with_one_clear_line(home: Path, arguments: list[str], message: str) -> None:
    done = swm(*arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert list_datasets() == ["runs", "walks"]


def test_nothing_is_deleted_without_a_yes(home: Path) -> None:
    assert swm("delete", "dataset", "walks", answer="n\n").exit_code == 1
    assert list_datasets() == ["runs", "walks"]
    assert swm("delete", "dataset", "walks", answer="y\n").exit_code == 0
    assert list_datasets() == ["runs"]
    assert swm("delete", "model", "lewm-tiny", "--yes").exit_code == 0
    assert not (home / "checkpoints" / "lewm-tiny").exists()


def test_checkpoints_are_filtered_by_run_or_file(home: Path) -> None:
    assert json.loads(swm("checkpoints", "--json").stdout) == [
        {"run": "lewm-tiny", "file": "weights.safetensors", "bytes": 5}
    ]
    assert json.loads(swm("checkpoints", "^lewm", "--json").stdout)
    assert json.loads(swm("checkpoints", "dreamer", "--json").stdout) == []
