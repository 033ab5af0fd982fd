"""The whole loop through the real command line, and what a user can do wrong with it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stable_worldmodel.errors import ContractError
from stable_worldmodel.quickstart import QuickstartConfig, command_arguments, held_out_pairs, pick_videos, run
from stable_worldmodel.world import Results


def swm(*arguments, **kwargs):
    command = [sys.executable, "-m", "stable_worldmodel.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


@pytest.mark.slow
def test_the_tiny_quickstart_beats_chance_with_intervals_apart(tmp_path):
    out = tmp_path / "run"
    done = swm("quickstart", "--preset", "tiny", "--out", out, "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert Path(printed["report"]) == out / "report.html"

    results = json.loads((out / "results.json").read_text())
    planner, random = results["success"]["planner"], results["success"]["random"]
    assert planner["total"] == random["total"] >= 100
    assert planner["low"] > random["high"], f"{planner} against {random}"
    assert random["rate"] <= 35
    assert results["command"].startswith("swm quickstart --preset tiny")
    assert {"config", "timings", "versions", "git_revision", "command", "history"} <= results.keys()

    pairs = {name: evaluation["protocol"] for name, evaluation in results["evaluations"].items()}
    assert pairs["planner"]["start_steps"] == pairs["random"]["start_steps"]
    assert pairs["planner"]["episodes_idx"] == pairs["random"]["episodes_idx"]
    split = json.loads((out / "model" / "run.json").read_text())["split"]
    assert not set(split["train"]) & set(pairs["planner"]["episodes_idx"])

    page = (out / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == results["config"]["videos"]
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:)?//""", page), "the page loads something"

    # The same command goes on where it stopped: nothing is collected or trained again.
    again = swm("quickstart", "--preset", "tiny", "--out", out, "--json", timeout=900)
    assert again.returncode == 0, again.stderr
    repeated = json.loads((out / "results.json").read_text())
    assert repeated["success"] == results["success"]
    assert repeated["timings"]["train"] < 0.2 * results["timings"]["train"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--preset", "huge"), 2, "huge"),
        (("--episodes", "0"), 2, "episodes"),
        (("--epochs", "-1"), 2, "epochs"),
        (("--seed", "-1"), 2, "seed"),
        (("--device", "abacus"), 1, "abacus"),
    ],
)
def test_wrong_options_end_with_one_clear_message(tmp_path, arguments, status, message):
    done = swm("quickstart", "--out", tmp_path / "run", *arguments, timeout=60)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "dataset.h5").exists()


def test_an_unwritable_folder_fails_at_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = swm("quickstart", "--out", tmp_path / "file" / "run", timeout=60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr.replace("\n", "")


def test_unknown_presets_and_impossible_goals_are_refused(tmp_path):
    with pytest.raises(ContractError, match="tiny"):
        QuickstartConfig.preset("huge", out=tmp_path)
    with pytest.raises(ContractError, match="goal_offset"):
        QuickstartConfig.preset("tiny", out=tmp_path, goal_offset=100)
    with pytest.raises(ContractError, match="pairs"):
        QuickstartConfig.preset("tiny", out=tmp_path, pairs=0)


def test_pairs_use_every_held_out_episode_before_any_twice(tmp_path):
    config = QuickstartConfig.preset("tiny", out=tmp_path, pairs=7, goal_offset=5)
    lengths = np.array([30, 5, 6, 30, 30, 30])
    episodes, starts = held_out_pairs(config, lengths, np.array([1, 2, 3, 4]))
    assert set(episodes) == {2, 3, 4}
    assert set(episodes[:3]) == set(episodes[3:6]) == {2, 3, 4}
    assert all(start + 5 <= lengths[episode] - 1 for episode, start in zip(episodes, starts, strict=True))
    with pytest.raises(ContractError, match="none of the 1 held-out"):
        held_out_pairs(config, lengths, np.array([1]))


def test_the_recorded_command_repeats_the_configuration(tmp_path):
    config = QuickstartConfig.preset("tiny", out=tmp_path, seed=3, episodes=77)
    assert command_arguments(config) == ["--preset", "tiny", "--out", str(tmp_path), "--seed", "3", "--episodes", "77"]


def test_the_report_shows_failures_too(tmp_path):
    config = QuickstartConfig.preset("tiny", out=tmp_path, videos=4)
    successes = np.array([True] * 10 + [False] * 3)
    values = {"episode_successes": successes, "episode_lengths": np.arange(13), "episode_count": 13}
    assert [video.success for video in pick_videos(config, Results(values, {}))] == [True, True, False, False]
    values["episode_successes"] = np.ones(13, bool)
    assert [video.success for video in pick_videos(config, Results(values, {}))] == [True] * 4


def test_a_dataset_without_usable_pairs_fails_before_training(tmp_path):
    config = QuickstartConfig.preset("tiny", out=tmp_path, episodes=4, goal_offset=99)
    with pytest.raises(ContractError, match="held-out episodes is longer"):
        run(config)
    assert not (tmp_path / "model").exists()
