"""Robustness grids: subjects x factors of variation x seeds, one line of a JSONL file per cell.

A cell is finished once its line is on disk; the same grid, started again, goes on with the cells that are missing.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.cluster.executors.local import LocalExecutor
from stable_worldmodel.errors import ContractError
from stable_worldmodel.evaluation import subjects
from stable_worldmodel.evaluation.evaluation import Evaluation, from_dict
from stable_worldmodel.protocols import Executor
from stable_worldmodel.utils.progress import Progress, open_progress
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.utils.statistics import wilson_interval

FILE = "grid.jsonl"
DEFAULT, ALL = "default", "all"  # cells in which no factor, and in which every factor is varied

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One evaluation of a grid, and where it stands there."""

    factor: str
    evaluation: Evaluation

    @property
    def place(self) -> dict[str, Any]:
        """Subject, env, factor and seed: the keys of tables and heat maps."""
        protocol = self.evaluation.protocol
        env, seed = protocol.env["id"], protocol.seed
        return {"checkpoint": self.evaluation.subject, "env": env, "factor": self.factor, "seed": seed}


@dataclass(frozen=True)
class Grid:
    """Every subject under every factor and seed.

    Args:
        evaluations: one per subject; its own variation and seed are replaced.
        factors: names of factors, `default` for none and `all` for all; None is default, each factor alone, all.
        seeds: of episodes and planners.
    """

    evaluations: tuple[Evaluation, ...]
    factors: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (42,)

    def cells(self) -> list[Cell]:
        """All cells, subject by subject. ContractError for a factor that an env does not have."""
        return [
            Cell(factor, _varied(evaluation, factor, seed))
            for evaluation in self.evaluations
            for factor in self._factors_of(evaluation)
            for seed in self.seeds
        ]

    def run(self, folder: str | Path, execute: Executor | None = None, progress: bool | Progress = False) -> list[Row]:
        """Evaluate the cells that `folder/grid.jsonl` lacks, and return the rows of all of them in the grid's order.

        Args:
            folder: must mean the same for all workers of the executor.
            execute: where cells are evaluated, see `cluster.open_executor`; None: in this process, one after the other.
        """
        execute = execute or LocalExecutor(workers=0)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        cells = self.cells()
        done = {(row["digest"], row["weights"]): row for row in read_rows(folder / FILE)}
        weights = {cell.evaluation.subject: subjects.content_of(cell.evaluation.subject) for cell in cells}
        keys = [(cell.evaluation.digest, weights[cell.evaluation.subject]) for cell in cells]
        waiting = [cell for cell, key in zip(cells, keys, strict=True) if key not in done]
        jobs = [{"cell": _packed(cell), "folder": str(folder)} for cell in waiting]
        shared = _shared_recordings(waiting, jobs)
        for _ in execute(record_for_cell, shared) if shared else ():
            pass
        with open_progress(progress) as display:
            task = display.task("grid", len(cells), len(cells) - len(waiting))
            for row in execute(run_cell, jobs):
                append_row(folder / FILE, row)
                done[row["digest"], row["weights"]] = row
                task.advance(1, success=row["success_rate"])
        return [done[key] for key in keys]

    def _factors_of(self, evaluation: Evaluation) -> tuple[str, ...]:
        known = factor_names(evaluation)
        chosen = self.factors if self.factors is not None else (DEFAULT, *known, ALL)
        groups = {name.partition(".")[0] for name in known}
        unknown = [name for name in chosen if name not in {DEFAULT, ALL, *known, *groups}]
        if unknown:
            raise ContractError(
                f"{evaluation.protocol.env['id']} has no factors {', '.join(unknown)}: expected {', '.join(known)}"
            )
        return chosen


def run_cell(job: Mapping[str, Any]) -> Row:
    """Evaluate one cell, given as plain data so that it can be sent to another process; returns its row."""
    cell = Cell(job["cell"]["factor"], from_dict(job["cell"]["evaluation"]))
    begun = time.perf_counter()
    results = cell.evaluation.run(job["folder"])
    flags = np.asarray(results["episode_successes"])
    low, high = wilson_interval(int(flags.sum()), len(flags))
    return {
        **cell.place,
        "successes": int(flags.sum()),
        "episodes": len(flags),
        "success_rate": 100 * float(flags.mean()),
        "low": 100 * low,
        "high": 100 * high,
        "mean_return": float(np.mean(results["episode_returns"])),
        "seconds": round(time.perf_counter() - begun, 2),
        "digest": cell.evaluation.digest,
        "weights": subjects.content_of(cell.evaluation.subject),
        "evaluation": cell.evaluation.to_dict(),
        **provenance(),
    }


def record_for_cell(job: Mapping[str, Any]) -> None:
    """Record the episodes that a cell starts from; what is there already stays."""
    from_dict(job["cell"]["evaluation"]).open_dataset(job["folder"])


def _shared_recordings(cells: Sequence[Cell], jobs: Sequence[Any]) -> list[Any]:
    """One job per recording that several cells need, which would else make it at the same time."""
    digests = [cell.evaluation.recording_digest if cell.evaluation.recorder else None for cell in cells]
    times = Counter(digest for digest in digests if digest is not None)
    firsts = dict(zip(reversed(digests), reversed(jobs), strict=True))
    return [firsts[digest] for digest, count in times.items() if count > 1]


def factor_names(evaluation: Evaluation) -> tuple[str, ...]:
    """Dotted names of the factors of an evaluation's env."""
    arguments = dict(evaluation.protocol.env.get("arguments") or {})
    arguments.pop("max_episode_steps", None)
    arguments["render_mode"] = None
    env = gym.make(evaluation.protocol.env["id"], disable_env_checker=True, **arguments)
    try:
        space = getattr(env.unwrapped, "variation_space", None)
        return () if space is None else tuple(space.names())
    finally:
        env.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a grid file; none if it is missing. A last line that was cut short is left out.

    ContractError names any other line that is not JSON.
    """
    if not path.is_file():
        return []
    rows, lines = [], path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ContractError(f"{path}, line {number} is no row of a grid: {error}") from error
    return rows


def append_row(path: Path, row: Row) -> None:
    """Add a line, durable when this returns; what an interrupted run left of one is removed first."""
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _varied(evaluation: Evaluation, factor: str, seed: int) -> Evaluation:
    variation = () if factor == DEFAULT else (factor,)
    protocol = replace(evaluation.protocol, seed=seed)
    return replace(evaluation, protocol=protocol, variation=variation)


def _packed(cell: Cell) -> dict[str, Any]:
    return {"factor": cell.factor, "evaluation": cell.evaluation.to_dict()}
