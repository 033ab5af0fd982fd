from __future__ import annotations

import json
from pathlib import Path

import pytest

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.report import read_grid


def row(factor: str = "default", checkpoint: str = "small", seed: int = 0, successes: int = 5, **changes) -> dict:
    cell = {"checkpoint": checkpoint, "env": "toy/Walk-v0", "factor": factor, "seed": seed}
    return {**cell, "successes": successes, "episodes": 10, **changes}


def write(path: Path, rows: list[dict], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(cell) + "\n" for cell in rows) + tail)
    return path


def test_seeds_of_a_cell_are_added_up(tmp_path: Path) -> None:
    rows = [row(seed=0, successes=3), row(seed=1, successes=4), row("agent.color", seed=0, successes=1)]
    (heat_map,) = read_grid(write(tmp_path / "grid.jsonl", rows))
    cell = heat_map.cells["default", "small"]
    assert (cell.comparison.successes, cell.comparison.total, cell.seeds) == (7, 20, 2)
    assert heat_map.cells["agent.color", "small"].comparison.rate == 10.0


def test_default_comes_first_and_all_last(tmp_path: Path) -> None:
    rows = [row(factor) for factor in ("all", "b", "a", "default")]
    (heat_map,) = read_grid(write(tmp_path / "grid.jsonl", rows))
    assert heat_map.factors == ["default", "b", "a", "all"]


def test_every_env_has_a_map_and_missing_cells_are_absent(tmp_path: Path) -> None:
    rows = [row(), row("all", "large"), row(env="toy/Coin-v0")]
    walk, coin = read_grid(write(tmp_path / "grid.jsonl", rows))
    assert (walk.env, coin.env) == ("toy/Walk-v0", "toy/Coin-v0")
    assert ("all", "small") not in walk.cells
    assert walk.checkpoints == ["small", "large"]


def test_a_cell_that_was_run_again_counts_once(tmp_path: Path) -> None:
    (heat_map,) = read_grid(write(tmp_path / "grid.jsonl", [row(successes=1), row(successes=9)]))
    assert heat_map.cells["default", "small"].comparison.successes == 9


def test_the_torn_last_line_of_an_interrupted_run_is_ignored(tmp_path: Path) -> None:
    (heat_map,) = read_grid(write(tmp_path / "grid.jsonl", [row()], tail='{"checkpoint": "sm'))
    assert len(heat_map.cells) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no complete cell"),
        ("{}\n", r"grid\.jsonl:1: checkpoint, env, factor, seed, successes, episodes missing"),
        (json.dumps(row()) + "\nnonsense\n", r"grid\.jsonl:2: expected a JSON object"),
        ("[1]\n", "expected a JSON object"),
        (json.dumps(row(successes=11)) + "\n", "11 successes of 10 episodes"),
        (json.dumps(row(episodes=0, successes=0)) + "\n", "0 successes of 0 episodes"),
        (json.dumps(row(seed=True)) + "\n", "seed missing or of another type"),
    ],
)
def test_what_is_no_grid_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.jsonl"
    path.write_text(text)
    with pytest.raises(ContractError, match=message):
        read_grid(path)


def test_bytes_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError, match="expected lines of JSON"):
        read_grid(tmp_path / "grid.jsonl")
    with pytest.raises(NotFoundError, match="no grid file"):
        read_grid(tmp_path / "absent.jsonl")
