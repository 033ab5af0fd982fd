"""Evaluations and grids over executors give what they give in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import job_functions as jobs
import numpy as np
import pytest
import toy_envs
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.cluster.evaluate import split_evenly
from stable_worldmodel.cluster.executors import open_executor
from stable_worldmodel.errors import ContractError
from stable_worldmodel.evaluation import Evaluation, Grid
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import Results, World

ENV = "swm/TwoRoom-v1"
TIMES = {"seconds", "created", "command", "time", "date"}
EPISODIC = Evaluation.of("random", env=ENV, episodes=7, seed=5, num_envs=3, variation=("agent.color",))
RECORDED = Evaluation.of("random", env=ENV, recorder="expert", episodes=7, goal_offset=5, eval_budget=5, num_envs=2)


def assert_same(one: Results, other: Results) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], err_msg=key)
    assert one.protocol == other.protocol


@given(count=st.integers(0, 500), parts=st.integers(1, 70))
def test_parts_cover_all_items_evenly(count: int, parts: int) -> None:
    ranges = split_evenly(count, parts)
    assert [number for part in ranges for number in part] == list(range(count))
    sizes = [len(part) for part in ranges]
    assert len(ranges) == min(count, parts)
    assert not sizes or max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shards", [1, 3, 7, 20])
@pytest.mark.parametrize("evaluation", [EPISODIC, RECORDED], ids=["episodic", "recorded"])
def test_any_number_of_shards_scores_the_same(evaluation: Evaluation, shards: int, tmp_path: Path) -> None:
    here = open_executor("local", workers=0)
    assert_same(evaluation.run(tmp_path, cluster=here, shards=shards), evaluation.run(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "ray", "slurm"])
def test_every_cluster_scores_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"local": "numpy", "ray": "ray", "slurm": "submitit"}[name])
    options = {"cluster": "local", "folder": tmp_path / "logs"} if name == "slurm" else {}
    for evaluation in (EPISODIC, replace(RECORDED, subject="replay")):
        spread = evaluation.run(tmp_path, cluster=name, shards=3, cluster_options={"workers": 2, **options})
        assert_same(spread, evaluation.run(tmp_path))


def test_videos_of_all_parts_have_the_numbers_of_the_items(tmp_path: Path) -> None:
    pytest.importorskip("av")
    here = open_executor("local", workers=0)
    replace(EPISODIC, num_envs=2).run(video=tmp_path, cluster=here, shards=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"episode_{i}.mp4" for i in range(7)]


def test_options_without_a_cluster_are_refused() -> None:
    with pytest.raises(ContractError, match="name one with cluster"):
        EPISODIC.run(shards=3)
    with pytest.raises(ContractError, match="open already"):
        EPISODIC.run(cluster=open_executor("local"), cluster_options={"workers": 2})
    with pytest.raises(ContractError, match="shards=-1"):
        EPISODIC.run(cluster="local", shards=-1)


@pytest.fixture
def walk() -> Iterator[World]:
    toy_envs.register()
    with World("toy/Walk-v0", 3, (8, 8), verbose=0) as world:
        world.set_policy(RandomPolicy(seed=1))
        yield world


@pytest.mark.parametrize(("workers", "shards"), [(0, 1), (0, 4), (2, 3)])
def test_world_evaluates_the_same_in_shards(walk: World, workers: int, shards: int) -> None:
    given = {"episodes": 8, "seed": 11, "eval_keys": ["state", "label"]}
    whole = walk.evaluate(**given)
    spread = walk.evaluate(**given, cluster=open_executor("local", workers=workers), shards=shards)
    assert_same(spread, whole)
    assert spread["state"].dtype == whole["state"].dtype


def test_options_per_episode_go_to_their_episodes(walk: World) -> None:
    given = {"episodes": 7, "seed": 3, "options": [{"number": k} for k in range(7)]}
    here = open_executor("local", workers=0)
    assert_same(walk.evaluate(**given, cluster=here, shards=3), walk.evaluate(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cluster": "local"}, "seed=None"),
        ({"shards": 2, "seed": 0}, "name one with cluster"),
        ({"cluster": "local", "seed": 0, "dump_every": 3}, "dump_every and video cannot"),
        ({"cluster": "moon", "seed": 0}, "expected one of local, ray, slurm"),
        ({"cluster": "local", "seed": 0, "options": [{}] * 5}, "options has 5 items"),
        ({"cluster": "local", "dataset": "x.h5"}, "cluster.*cannot be given"),
    ],
)
def test_what_a_world_cannot_spread_is_refused(walk: World, given: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        walk.evaluate(**given)


def grid(**changes) -> Grid:
    values = {"env": ENV, "recorder": "expert", "episodes": 3, "goal_offset": 5, "eval_budget": 5}
    evaluations = tuple(Evaluation.of(subject, **values) for subject in ("random", "noop"))
    return Grid(evaluations, **{"factors": ("default", "agent.color"), "seeds": (1, 2), **changes})


def die_once(function, folder: Path):
    """`function` whose worker is killed the first time a job with the number 3 runs."""

    def run(job):
        jobs.die({"folder": str(folder), "number": job["number"], "deaths": int(job["number"] == 3)})
        return function(job["job"])

    return run


@pytest.mark.slow
def test_a_lost_cell_goes_again_and_rows_are_those_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()

    def two_workers(function, items, tick=None) -> Iterator:
        numbered = [{"number": number, "job": item} for number, item in enumerate(items)]
        return open_executor("local", workers=2)(die_once(function, tmp_path / "runs"), numbered, tick)

    spread = grid().run(tmp_path / "spread", two_workers)
    assert len(list((tmp_path / "runs").glob("run-3-*"))) > 1
    alone = grid().run(tmp_path / "alone")
    assert len(spread) == len(alone) == 8
    for mine, theirs in zip(spread, alone, strict=True):
        assert {key for key in mine if mine[key] != theirs[key]} <= TIMES
    lines = (tmp_path / "spread" / "grid.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["digest"] for line in lines) == sorted(row["digest"] for row in alone)


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path) -> None:
    words = f"eval random noop --env {ENV} --record expert --goal-offset 5 --budget 5 --episodes 5 --json".split()

    def rows(*more: str) -> list:
        found = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), *more])
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    assert rows("--cluster", "local", "--workers", "2", "--shards", "3") == rows()
    spread = rows("--grid", "--factors", "default,agent.color", "--cluster", "local", "--workers", "2")
    (tmp_path / "out" / "grid.jsonl").unlink()
    assert rows("--grid", "--factors", "default,agent.color") == spread


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "2"], "--workers: only with --cluster"),
        (["--shards", "2"], "--shards: only with --cluster"),
        (["--cluster", "moon"], "expected one of local, ray, slurm"),
        (["--cluster", "local", "--cluster-option", "partition=gpu"], "no options partition"),
        (["--grid", "--cluster", "local", "--shards", "2"], "--shards: not with --grid"),
    ],
)
def test_wrong_words_are_named(more: list[str], message: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["eval", "random", "--env", ENV, "--out", str(tmp_path), *more])
    assert found.exit_code == 1
    assert message in found.output
    assert not any(tmp_path.iterdir())
