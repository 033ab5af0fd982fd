"""`swm plan` through the real application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.wm import build_model, preset_config, save_pretrained

pytest.importorskip("matplotlib")

SEARCH = ("--samples", 12, "--iterations", 3, "--elites", 4, "--horizon", 3, "--goal-offset", 10, "--budget", 15)
MEASURES = ["best cost", "mean cost", "elite spread", "deviation"]


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rooms.h5"
    command = ("collect", "TwoRoom-v1", "--policy", "expert", "--episodes", 3, "--max-steps", 30, "--image-size", 32)
    assert swm(*command, "--num-envs", 3, "--out", path).exit_code == 0
    return path


def checkpoint(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = preset_config(kind, "debug", action_dim=10, image_size=32)
    return save_pretrained(build_model(config), folder / kind)


def oracle(rooms: Path, out: Path, *more: object):
    where = ("--env", "TwoRoom-v1", "--dataset", rooms, "--workers", 1, "--out", out)
    return swm("plan", "oracle", *where, *SEARCH, *more)


def test_the_oracle_shows_its_search_and_what_came_of_it(rooms: Path, tmp_path: Path) -> None:
    done = oracle(rooms, tmp_path / "out", "--pairs", 2, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["env"], found["goal_offset"], found["settings"]["solver"]) == ("swm/TwoRoom-v1", 10, "mppi")
    assert len(found["pairs"]) == 2
    for pair in found["pairs"]:
        assert list(pair["search"]) == MEASURES
        assert [len(values) for values in pair["search"].values()] == [3] * 4
        assert pair["search"]["mean cost"][-1] < pair["search"]["mean cost"][0]
        assert pair["plan_costs"][0] <= min(pair["search"]["best cost"]) * (1 + 1e-6)
        assert len(pair["plan_costs"]) == pair["decisions"] == -(-pair["steps"] // 5)
    names = ["search.png", "pair_0_states.png", "pair_1_states.png"]
    assert [Path(file).name for file in found["files"]] == names
    for name in names:
        assert Image.open(tmp_path / "out" / name).size[0] > 300


def test_the_same_command_gives_the_same_plans(rooms: Path, tmp_path: Path) -> None:
    first, second, other = (
        json.loads(oracle(rooms, tmp_path, "--pair", "1:0", "--json", "--seed", seed).stdout)["pairs"][0]
        for seed in (1, 1, 2)
    )
    assert (first["episode"], first["start"]) == (1, 0)
    assert first["search"] == second["search"]
    assert first["search"] != other["search"]


def test_a_table_has_a_row_per_iteration(rooms: Path, tmp_path: Path) -> None:
    done = oracle(rooms, tmp_path, "--pair", "1:0", "--pair", "1:1")
    assert done.exit_code == 0, done.output
    assert "mean over 2 pairs" in done.output
    for text in (*"012", "1:0", "1:1", "search.png", *(word for name in MEASURES for word in name.split())):
        assert text in done.output


def test_a_world_model_that_decodes_gives_a_video_of_what_it_imagines(rooms: Path, tmp_path: Path) -> None:
    model = checkpoint("dreamer", tmp_path)
    where = ("--env", "TwoRoom-v1", "--dataset", rooms, "--out", tmp_path / "out")
    done = swm("plan", model, *where, *SEARCH, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["settings"]["solver"] == "cem"
    assert found["settings"]["action_block"] == 5  # action_dim 10 of an env with two numbers per action
    with Image.open(tmp_path / "out" / "pair_0_imagined.gif") as video:
        assert video.size == (32, 32)
    assert (tmp_path / "out" / "pair_0_states.png").exists()


def test_one_that_does_not_gives_none_and_may_be_planned_with_in_other_ways(rooms: Path, tmp_path: Path) -> None:
    model = checkpoint("lewm", tmp_path)
    where = ("--env", "TwoRoom-v1", "--dataset", rooms, "--out", tmp_path / "out")
    done = swm("plan", model, *where, *SEARCH, "--solver", "icem", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["settings"]["solver"] == "icem"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["pair_0_states.png", "search.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["oracle", "--env", "TwoRoom-v1"], "expected --env and --dataset"),
        (["nowhere", "--env", "TwoRoom-v1"], "nowhere"),
        (["oracle", "--env", "TwoRoom-v1", "--dataset", "ROOMS", "--pair", "first"], "expected EPISODE:ROW"),
        (["oracle", "--env", "TwoRoom-v1", "--dataset", "ROOMS", "--pair", "9:0"], "episode 9"),
        (["oracle", "--env", "TwoRoom-v1", "--dataset", "ROOMS", "--goal-offset", "99"], "goal_offset=99"),
        (["oracle", "--env", "TwoRoom-v1", "--dataset", "ROOMS", "--solver", "adam"], "expected one of cem"),
        (["oracle", "--env", "TwoRoom-v1", "--dataset", "ROOMS", "--solver", "cem", "--elites", "99"], "topk=99"),
    ],
)
def test_wrong_arguments_end_with_one_clear_line(
    rooms: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [str(rooms) if argument == "ROOMS" else argument for argument in arguments]
    done = swm("plan", *given, "--workers", 1, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_help_has_examples() -> None:
    assert "swm plan oracle --env TwoRoom-v1" in swm("plan", "--help").output
