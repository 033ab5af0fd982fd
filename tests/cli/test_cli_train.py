"""`swm train` and `python -m stable_worldmodel.train`, on rooms as `swm collect` records them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.wm import checkpoint_info, load_checkpoint
from stable_worldmodel.wm.registry import MODELS

# How far the named metric falls, of the first row's value, when one small batch is seen again and again.
FALLS = {
    "dreamer": ("image", 0.7),
    "dummy": ("loss", 0.9),
    "frame": ("mse", 0.5),
    "gcbc": ("actor", 0.7),
    "gciql": ("q", 0.9),
    "gcivl": ("value", 0.7),
    "hilp": ("value", 0.7),
    "lewm": ("loss", 0.8),
    "pldm": ("loss", 0.7),
    "prejepa": ("pred", 0.5),
    "tdmpc2": ("loss", 0.9),
}
STEPS = {"dreamer": 60, "frame": 700, "dummy": 150, "gcivl": 150, "hilp": 150}
# A picture in which one dot moves is drawn well without it: what a small batch shows of the dot must count.
WORDS = {"frame": ["batch_size=2", "num_steps=2", "clip_norm=null", "val_fraction=0.95"]}


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rooms") / "rooms.h5"
    done = swm("collect", "TwoRoom-v1", "--policy", "expert", "--episodes", 20, "--out", path)
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_trains_on_recorded_rooms(rooms: Path, tmp_path: Path, model: str) -> None:
    done = swm("train", model, f"data={rooms}", "preset=debug", f"out={tmp_path}", "max_steps=6", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["steps"] == 6
    assert np.isfinite(result["train/loss"])
    loaded = load_checkpoint(result["checkpoint"])
    assert loaded.model.config.model_type == model
    assert {"action"} <= loaded.scalers.keys()
    assert loaded.protocol["env"]["id"] == "swm/TwoRoom-v1"
    assert len(loaded.split["train"]) == 16


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_loss_of_few_clips_falls(rooms: Path, tmp_path: Path, model: str) -> None:
    metric, share = FALLS[model]
    # With most episodes held out, the few clips of the others are seen many times.
    words = ["epochs=9999", f"max_steps={STEPS.get(model, 100)}", "val_fraction=0.9", "val_batches=1", "log_every=1"]
    words += WORDS.get(model, [])
    assert swm("train", model, f"data={rooms}", "preset=debug", f"out={tmp_path}", *words).exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [row[f"train/{metric}"] for row in rows]
    assert np.mean(values[-5:]) < share * np.mean(values[:3]), (values[:3], values[-5:])


def test_the_same_command_goes_on_in_the_folder_of_its_values(rooms: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    command = ["train", "dummy", f"data={rooms}", "preset=debug", "lr=0.01", "--json"]
    first, second = (json.loads(swm(*command).stdout) for _ in range(2))
    assert first == second
    assert first["run"] == str(tmp_path / "checkpoints" / "dummy_debug_rooms_learning_rate=0.01")
    assert checkpoint_info("dummy_debug_rooms_learning_rate=0.01")["type"] == "dummy"


def test_the_config_can_be_seen_before_it_is_trained(rooms: Path, tmp_path: Path) -> None:
    done = swm("train", "pldm", f"data={rooms}", "model.latent_dim=5", f"out={tmp_path / 'run'}", "--cfg")
    assert json.loads(done.stdout)["model"]["latent_dim"] == 5
    assert not (tmp_path / "run").exists()


def test_without_a_terminal_only_the_result_is_printed(rooms: Path, tmp_path: Path) -> None:
    done = swm("train", "dummy", f"data={rooms}", "preset=debug", f"out={tmp_path}")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "run", "checkpoint", "steps", "train/loss", "val/loss",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lemw", "data=a.h5"], "unknown model 'lemw'"),
        (["lewm", "data=nowhere.h5"], "nowhere.h5"),
        (["lewm", "dat=a.h5"], "did you mean 'data'?"),
        (["lewm", "data=a.h5", "model._target_=os.system"], "_target_"),
    ],
)
def test_wrong_words_end_with_one_clear_line(arguments: list[str], message: str) -> None:
    done = swm("train", *arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_help_shows_examples() -> None:
    assert "swm train lewm data=rooms.h5" in swm("train", "--help").output


@pytest.mark.slow
def test_multirun_trains_one_run_after_another(rooms: Path, tmp_path: Path) -> None:
    words = ["model=dummy", f"data={rooms}", "preset=debug", "--multirun", "seed=1,2", "lr=0.01"]
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "stable_worldmodel.train", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=work,
        env={**os.environ, "STABLEWM_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    runs = sorted(folder.name for folder in (home / "checkpoints").glob("dummy*"))
    assert runs == [f"dummy_debug_rooms_learning_rate=0.01_seed={seed}" for seed in (1, 2)]
    assert not [*work.iterdir()]
    again = subprocess.run(
        [sys.executable, "-m", "stable_worldmodel.train", "model=dummy", "dta=x"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=work,
    )
    assert (again.returncode, again.stderr.strip()) == (1, "error: unknown key 'dta'; did you mean 'data'?")
