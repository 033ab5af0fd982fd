"""Grids: cells, resuming, executors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stable_worldmodel.errors import ContractError
from stable_worldmodel.evaluation import Evaluation, Grid
from stable_worldmodel.evaluation.evaluation import from_dict
from stable_worldmodel.evaluation.grid import FILE, factor_names, read_rows, run_cell

ENV = "swm/TwoRoom-v1"


def grid(subjects=("random",), **changes) -> Grid:
    values = {"env": ENV, "recorder": "expert", "episodes": 3, "goal_offset": 5, "eval_budget": 5}
    evaluations = tuple(Evaluation.of(subject, **values) for subject in subjects)
    return Grid(evaluations, **{"factors": ("default", "agent.color"), "seeds": (1, 2), **changes})


def counting(calls: list) -> object:
    def execute(function, items) -> Iterator[dict]:
        for item in items:
            calls.append(item)
            yield function(item)

    return execute


def test_cells_are_subjects_by_factors_by_seeds() -> None:
    cells = grid(("random", "noop")).cells()
    assert len(cells) == 8
    assert len({cell.evaluation.digest for cell in cells}) == 8
    assert cells[2].place == {"checkpoint": "random", "env": ENV, "factor": "agent.color", "seed": 1}
    everything = grid(factors=None, seeds=(0,)).cells()
    names = factor_names(everything[0].evaluation)
    assert [cell.factor for cell in everything] == ["default", *names, "all"]
    assert "agent.color" in names


def test_an_interrupted_grid_goes_on_where_it_was(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def one_then_stop(function, items) -> Iterator[dict]:
        yield function(items[0])
        raise Stop

    with pytest.raises(Stop):
        grid().run(tmp_path, one_then_stop)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"checkpoint": "random", "fac')  # a line that was cut short
    calls: list = []
    rows = grid().run(tmp_path, counting(calls))
    assert len(calls) == 3
    assert [row["seed"] for row in rows] == [1, 2, 1, 2]
    assert read_rows(tmp_path / FILE) == rows
    assert grid().run(tmp_path, counting(calls)) == rows
    assert len(calls) == 3


def test_the_order_in_which_cells_end_does_not_matter(tmp_path: Path) -> None:
    def backwards(function, items) -> Iterator[dict]:
        return map(function, reversed([json.loads(json.dumps(item)) for item in items]))

    one, other = grid().run(tmp_path / "one"), grid().run(tmp_path / "other", backwards)
    for mine, theirs in zip(one, other, strict=True):
        differing = {key for key in mine if mine[key] != theirs[key]}
        assert differing <= {"seconds", "created", "command", "time", "date"}, differing


def test_a_retrained_checkpoint_is_evaluated_again(checkpoint: Path, rooms: Path, tmp_path: Path) -> None:
    import shutil

    from stable_worldmodel.wm import load_checkpoint, save_pretrained

    copy = tmp_path / "model"
    shutil.copytree(checkpoint, copy)
    evaluation = Evaluation.of(copy, recorder="expert", episodes=2, goal_offset=5, eval_budget=4)
    calls: list = []
    run = lambda: Grid((evaluation,), ("default",)).run(tmp_path / "grid", counting(calls))  # noqa: E731
    run()
    run()
    assert len(calls) == 1
    loaded = load_checkpoint(copy)
    next(loaded.model.parameters()).data.add_(0.1)
    save_pretrained(loaded.model, copy, scalers=loaded.scalers, protocol=loaded.protocol)
    run()
    assert len(calls) == 2


def test_wrong_factors_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"agent\.colour.*expected.*agent\.color"):
        grid(factors=("agent.colour",)).cells()
    (tmp_path / FILE).write_text("{}\nnot json\n{}\n")
    with pytest.raises(ContractError, match="line 2"):
        read_rows(tmp_path / FILE)


def test_a_cell_can_be_sent_as_json(tmp_path: Path) -> None:
    cell = grid().cells()[2]
    job = {"cell": {"factor": cell.factor, "evaluation": cell.evaluation.to_dict()}, "folder": str(tmp_path)}
    sent = json.loads(json.dumps(job))
    assert from_dict(sent["cell"]["evaluation"]) == cell.evaluation
    row = run_cell(sent)
    assert {name: row[name] for name in cell.place} == cell.place
    assert (row["digest"], row["episodes"]) == (cell.evaluation.digest, 3)
