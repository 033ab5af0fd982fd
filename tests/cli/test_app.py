from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import stable_worldmodel
from stable_worldmodel.cli import app


def swm(*arguments: str | Path):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    from stable_worldmodel.data import open_writer

    path = tmp_path / "home" / "walks.h5"
    path.parent.mkdir(exist_ok=True)
    with open_writer(path) as writer:
        for rows in (3, 5):
            episode = {
                "pixels": np.zeros((rows, 8, 8, 3), np.uint8),
                "action": np.zeros((rows, 2), np.float32),
                "step_idx": np.arange(rows),
            }
            writer.write_episode(episode)
    return path


def test_no_command_shows_help_with_examples() -> None:
    assert "swm quickstart --preset tiny" in swm().output
    assert swm("--help").exit_code == 0


@pytest.mark.parametrize("option", ["--version", "-v"])
def test_version(option: str) -> None:
    done = swm(option)
    assert (done.exit_code, done.stdout) == (0, f"{stable_worldmodel.__version__}\n")


def test_module_can_be_run() -> None:
    command = [sys.executable, "-m", "stable_worldmodel.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{stable_worldmodel.__version__}\n"


def test_envs_are_grouped_by_action_kind() -> None:
    groups = json.loads(swm("envs", "--json").stdout)
    assert set(groups) == {"continuous", "discrete"}
    assert "swm/TwoRoom-v1" in groups["continuous"]
    assert "swm/TwoRoom-v1" in swm("envs").stdout


def test_fovs_accepts_a_bare_id() -> None:
    factors = {row["factor"]: row for row in json.loads(swm("fovs", "TwoRoom-v1", "--json").stdout)}
    assert factors["agent.color"]["type"] == "RGBBox"
    assert (factors["agent.color"]["low"], factors["agent.color"]["high"]) == (0, 255)
    assert len(factors["agent.color"]["default"]) == 3
    assert "agent.color" in swm("fovs", "swm/TwoRoom-v1").stdout


def test_fovs_of_an_env_without_any_is_a_notice() -> None:
    done = swm("fovs", "CartPole-v1")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "CartPole-v1 has no factors of variation\n"


def test_fovs_of_an_unknown_env_is_one_message() -> None:
    done = swm("fovs", "swm/TwoRum-v1")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "TwoRum" in done.stderr


def test_inspect_shows_size_and_columns(dataset: Path) -> None:
    found = json.loads(swm("inspect", dataset, "--json").stdout)
    assert (found["format"], found["episodes"], found["rows"]) == ("hdf5", 2, 8)
    assert (found["shortest"], found["longest"], found["bytes"]) == (3, 5, dataset.stat().st_size)
    columns = {row["column"]: row for row in found["columns"]}
    assert columns["pixels"] == {"column": "pixels", "shape": [8, 8, 3], "dtype": "uint8"}
    assert columns["action"] == {"column": "action", "shape": [2], "dtype": "float32"}
    assert "pixels" in swm("inspect", "walks").stdout  # by its name in the data folder


def test_inspect_of_an_unknown_dataset_says_where_it_looked(tmp_path: Path) -> None:
    done = swm("inspect", "nowhere")
    assert done.exit_code == 1
    assert str(tmp_path / "home" / "nowhere.h5") in done.stderr


def test_datasets_lists_the_data_folder(dataset: Path) -> None:
    (dataset.parent / "datasets").mkdir()
    (dataset.parent / "datasets" / "more.h5").write_bytes(dataset.read_bytes())
    (dataset.parent / "notes.txt").touch()
    size = dataset.stat().st_size
    assert json.loads(swm("datasets", "--json").stdout) == [
        {"name": "more", "format": "hdf5", "bytes": size},
        {"name": "walks", "format": "hdf5", "bytes": size},
    ]
    assert "walks" in swm("datasets").stdout


def test_empty_data_folder_is_a_notice(tmp_path: Path) -> None:
    done = swm("datasets")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"no datasets in {tmp_path / 'home'}\n"


def test_looking_around_does_not_load_the_training_stack(dataset: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from stable_worldmodel.cli import app;"
        "commands = ['envs'], ['fovs', 'TwoRoom-v1'], ['datasets'], ['inspect', 'walks'];"
        "assert [CliRunner().invoke(app, c).exit_code for c in commands] == [0, 0, 0, 0];"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("wrong", [["--preset", "huge"], ["--episodes", "0"], ["--epochs", "few"], ["--seed", "-1"]])
def test_quickstart_refuses_bad_options(wrong: list[str], tmp_path: Path) -> None:
    done = swm("quickstart", "--out", tmp_path / "out", *wrong)
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_quickstart_refuses_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert swm("quickstart", "--out", tmp_path / "file").exit_code == 2
    done = swm("quickstart", "--out", tmp_path / "file" / "below")
    assert (done.exit_code, done.stderr) == (1, f"error: {tmp_path / 'file' / 'below'}: Not a directory\n")
