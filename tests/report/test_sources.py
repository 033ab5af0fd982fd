"""Reports read from what real runs leave on disk."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import stable_worldmodel as swm
from stable_worldmodel.cli import app
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.report import evaluation_of, read_report, render_report
from stable_worldmodel.world import Results


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a dataset, two evaluations, the videos of one of them, and rows of a training run."""
    folder = tmp_path / "walks"
    with swm.World("toy/Walk-v0", num_envs=2, image_shape=(16, 16), verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(folder / "dataset.h5", 3, seed=0, progress=False)
        world.evaluate(6, seed=0, video=folder / "videos" / "first").save(folder / "first.json")
        world.set_policy(RandomPolicy(seed=1))
        world.evaluate(6, seed=0).save(folder / "second.json")
    rows = [{"step": step, "train/loss": 1 / step} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"st')
    described = {"config": {"seed": 5, "epochs": 2}, "dataset": {"episodes": 3, "rows": 30}}
    (folder / "run.json").write_text(json.dumps(described))
    return folder


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_run_is_read_with_all_its_parts(run: Path) -> None:
    report = read_report([run])
    assert report.title == "walks"
    assert [c.policy for c in report.comparisons] == ["first", "second"]
    first, second = report.evaluations
    assert len(first.videos) == len(first.successes) == 6
    assert second.videos == []
    assert "first minus second" in report.contrasts[0]
    assert [row["step"] for row in report.history] == [1, 2, 3]
    assert report.dataset is not None
    assert (report.dataset.episodes, report.dataset.format, report.dataset.env) == (3, "hdf5", "toy/Walk-v0")
    assert report.dataset.policy == "RandomPolicy"
    assert ("action", "float32 1") in list(report.dataset.columns)
    assert report.seeds == {"training of walks": 5, "episodes of first": 0, "episodes of second": 0}
    assert report.config["run"]["epochs"] == 2
    assert report.versions["numpy"] == np.__version__


def test_several_files_are_compared(run: Path) -> None:
    report = read_report([run / "second.json", run / "first.json"])
    assert report.title == "second and first"
    assert "second minus first" in report.contrasts[0]


def test_equal_names_are_told_apart_by_their_runs(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("first.json", "metrics.jsonl"):
        (other / name).write_text((run / name).read_text())
    report = read_report([run, other])
    assert [c.policy for c in report.comparisons] == ["walks first", "second", "other first"]
    assert {key for row in report.history for key in row} == {"step", "walks train/loss", "other train/loss"}


def test_files_of_swm_eval_are_shown_by_their_subject(run: Path) -> None:
    results = Results.load(run / "first.json")
    results.protocol["evaluation"] = {"subject": "runs/lewm"}
    (run / "first.json").unlink()
    results.save(run / "lewm-0123abcd.json")
    assert [c.policy for c in read_report([run]).comparisons] == ["runs/lewm", "second"]
    results.save(run / "lewm-89efabcd.json")  # the subject does not tell these two apart
    assert [c.policy for c in read_report([run]).comparisons] == ["lewm-0123abcd", "lewm-89efabcd", "second"]


def test_what_cannot_be_paired_is_said_and_not_hidden(run: Path) -> None:
    with swm.World("toy/Walk-v0", num_envs=2, image_shape=(16, 16), verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.evaluate(6, seed=99).save(run / "third.json")
    contrasts = read_report([run / "first.json", run / "third.json"]).contrasts
    assert "not compared in pairs" in contrasts[0]
    assert "seed" in contrasts[0]


def test_planner_times_and_costs_are_drawn(run: Path) -> None:
    results = Results.load(run / "first.json")
    results["plan_seconds"], results["plan_costs"] = np.array([0.1, 0.2]), np.array([[3.0, 1.0], [2.0, 1.0]])
    results.save(run / "first.json")
    assert "0.15 s in the median" in render_report(read_report([run]))
    results["plan_costs"] = np.array([1.0])
    with pytest.raises(ContractError, match="plan_costs"):
        evaluation_of("first", results)


def test_a_run_without_its_data_still_knows_the_size(run: Path) -> None:
    (run / "dataset.h5").unlink()
    card = read_report([run]).dataset
    assert card is not None
    assert (card.episodes, card.steps, card.size) == (3, 27, None)


def test_the_command_writes_one_file_into_the_run(run: Path) -> None:
    done = invoke(run, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert printed["report"] == str(run / "report.html")
    assert printed["success"].keys() == {"first", "second"}
    assert page.count("data:video/mp4;base64,") == 6
    again = invoke(run / "first.json", "--videos", 0, "-o", run / "few.html", "--title", "Few")
    assert again.exit_code == 0, again.output
    assert "<h1>Few</h1>" in (run / "few.html").read_text()
    assert "data:video" not in (run / "few.html").read_text()


def test_a_run_is_found_by_its_name_in_the_data_folder(run: Path, tmp_path: Path) -> None:
    home = tmp_path / "home" / "checkpoints"
    home.mkdir(parents=True)
    run.rename(home / "walks")
    assert read_report(["walks"]).title == "walks"
    with pytest.raises(NotFoundError):
        read_report(["../walks"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "was not found"),
        ("broken.json", "{", "expected JSON"),
        ("other.json", '{"a": 1}', "expected results of an evaluation"),
        ("old.json", '{"evaluations": {"x": {"success_rate": 1}}}', "cannot be read as results"),
        ("empty", "folder", "holds nothing to report"),
        ("bad.jsonl", "x\n", "bad.jsonl:1"),
    ],
)
def test_wrong_places_are_one_paragraph(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_text(content)
    done = invoke(tmp_path / name)
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_rows_of_a_run_are_named(run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1}\n[]\n')
    with pytest.raises(ContractError, match=r"metrics\.jsonl:2"):
        read_report([run])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places_of(document: Any, path: tuple = ()) -> list[tuple]:
    """Every place of a JSON document, as the keys that lead there."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in items for place in places_of(value, (*path, key)))]


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_end_in_a_traceback(evaluated: Path, data: st.DataObject) -> None:
    """One value anywhere in any file of a run is replaced: the report is written, or the fault is a ContractError."""
    name = data.draw(st.sampled_from(["first.json", "results.json", "run.json", "metrics.jsonl", "grid.jsonl"]))
    path = evaluated / name
    before = path.read_text()
    document = json.loads(before)
    place = data.draw(st.sampled_from(places_of(document)))
    value = data.draw(JSON)
    if place:
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
    else:
        document = value
    path.write_text(json.dumps(document) + "\n")
    try:
        with contextlib.suppress(ContractError):
            render_report(read_report([evaluated], video_limit=0))
    finally:
        path.write_text(before)


@pytest.fixture
def evaluated(run: Path) -> Path:
    """A small run with every kind of file, each of them one JSON document."""
    (run / "second.json").unlink()
    (run / "dataset.h5").unlink()
    results = Results.load(run / "first.json")
    quickstart = {"evaluations": {"planner": results.to_json()}, "history": [{"step": 1, "train/loss": 2.0}]}
    about = {"timings": {"train": 2.0}, "command": "swm quickstart", "config": {"seed": 3}, "versions": {"python": "3"}}
    (run / "results.json").write_text(json.dumps({**quickstart, **about}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "train/loss": 2.0}) + "\n")
    cell = {"checkpoint": "a", "env": "b", "factor": "all", "seed": 0, "successes": 1, "episodes": 2}
    (run / "grid.jsonl").write_text(json.dumps(cell) + "\n")
    return run
