"""What Tab offers, asked for as bash and zsh do it: through the environment of the real program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from stable_worldmodel.cli import app, completion
from stable_worldmodel.data import open_writer
from stable_worldmodel.evaluation.names import SOLVERS
from stable_worldmodel.wm.registry import MODELS

CODE = "from stable_worldmodel.cli import main; main()"


def swm(arguments: tuple[str, ...] = (), **environment: str) -> list[str]:
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout.split()


def offered(*words: str) -> list[str]:
    """For the last of `words`, in bash."""
    return swm(COMP_WORDS="\n".join(("swm", *words)), COMP_CWORD=str(len(words)), _SWM_COMPLETE="complete_bash")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a dataset and a model, and a dataset in the working directory."""
    here = tmp_path / "here"
    for path in (tmp_path / "home" / "rooms.h5", here / "roots.h5"):
        with open_writer(path) as writer:
            writer.write_episode({"pixels": np.zeros((2, 8, 8, 3), np.uint8), "action": np.zeros((2, 2), np.float32)})
    run = tmp_path / "home" / "checkpoints" / "lewm-rooms"
    run.mkdir(parents=True)
    (run / "weights.safetensors").touch()
    monkeypatch.chdir(here)
    return tmp_path / "home"


def test_commands_and_environments_are_offered(home: Path) -> None:
    assert offered("quick") == ["quickstart"]
    assert offered("fovs", "TwoRoom-v") == ["TwoRoom-v0", "TwoRoom-v1"]
    assert offered("collect", "swm/TwoRoom-v1") == ["swm/TwoRoom-v1"]


def test_values_of_options_are_offered(home: Path) -> None:
    assert offered("plan", "lewm-rooms", "--solver", "i") == ["icem"]
    assert offered("eval", "lewm-rooms", "--solver", "type=mp") == ["type=mppi"]


def test_functions_offer_what_there_is(home: Path) -> None:
    assert completion.datasets("roo") == ["rooms", "roots.h5"]
    assert completion.datasets(f"{home}/r") == [f"{home}/rooms.h5"]
    assert completion.runs("") == ["lewm-rooms"]
    assert completion.subjects("r") == ["random", "replay"]
    assert completion.planners("") == ["lewm-rooms", "oracle"]
    assert completion.solvers("") == sorted(SOLVERS)
    assert completion.models("") == sorted(MODELS)
    assert "lance" in completion.formats("")
    assert completion.training_words("da") == ["data="]
    assert completion.training_words("data=roo") == ["data=rooms", "data=roots.h5"]
    assert completion.training_words("env=TwoRoom-v1") == ["env=TwoRoom-v1"]
    assert completion.training_words("speed=") == []


@pytest.mark.parametrize(
    ("kind", "names"),
    [("dataset", ["rooms"]), ("model", ["lewm-rooms"]), ("world", ["swm/PFRocketLanding-v0"]), ("planet", [])],
)
def test_names_follow_their_kind(home: Path, kind: str, names: list[str]) -> None:
    begun = "swm/PF" if kind == "world" else ""
    with get_command(app).make_context("swm", ["show", kind], resilient_parsing=True) as context:
        context.params["kind"] = kind
        assert completion.names_of_kind(context, begun) == names


def test_a_data_folder_that_cannot_be_read_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "file"))
    assert completion.runs("") == []
    assert offered("inspect", "nowhere/") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(shell: str) -> None:
    assert "_SWM_COMPLETE" in "".join(
        swm(("--show-completion", shell), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    )


def test_it_is_installed_for_the_shell(tmp_path: Path) -> None:
    swm(("--install-completion", "zsh"), HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (tmp_path / ".zfunc" / "_swm").is_file()


def test_help_looks_nothing_up() -> None:
    code = (
        "import sys; from stable_worldmodel.cli import app; app(['--help'], standalone_mode=False);"
        "print(sorted({'numpy', 'gymnasium', 'h5py', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
