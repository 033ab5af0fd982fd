"""Metrics of a run on disk. Every logger gets the same rows: a step and named numbers.

metrics.jsonl   one object per row: {"step": 20, "train/loss": 0.8, ...}
metrics.csv     one line per number: step,name,value
events.out.*    TensorBoard scalars
wandb/          of Weights & Biases, which gets the rows; offline unless told otherwise
                trackio keeps its rows in a database of its own, on this machine
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stable_worldmodel.errors import ContractError, require

Row = dict[str, float]


class Logger(Protocol):
    """Takes the rows of a run one by one. It is made with the run's folder and the rows of the part already done."""

    def log(self, row: Row) -> None: ...

    def close(self) -> None: ...


class JsonlLogger:
    """Appends one JSON object per row."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        self._file = (folder / "metrics.jsonl").open("w", buffering=1)
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self._file.close()


class CsvLogger:
    """Appends one line per number, so that rows may hold different names."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        self._file = (folder / "metrics.csv").open("w", buffering=1)
        self._file.write("step,name,value\n")
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        lines = [f"{row['step']},{name},{value!r}\n" for name, value in row.items() if name != "step"]
        self._file.write("".join(lines))

    def close(self) -> None:
        self._file.close()


class TensorBoardLogger:
    """Scalars for TensorBoard. A resumed run adds a file that hides what an interrupted one logged beyond its state."""

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        require("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=int(rows[-1]["step"]) + 1 if rows else None)

    def log(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        self._writer.close()


PROJECT = "stable-worldmodel"  # where the environment does not name another one


class WandbLogger:
    """Rows for Weights & Biases. A resumed run goes on under the same id.

    The run is offline unless WANDB_API_KEY or WANDB_MODE=online says otherwise; `wandb sync` uploads it later.
    """

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        wandb: Any = require("wandb", "loggers")
        mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=run_id(folder),
            resume="allow",
            mode=mode,
            settings=wandb.Settings(silent=True),
            dir=str(folder),
            config=_config(folder),
        )

    def log(self, row: Row) -> None:
        self._run.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


class TrackioLogger:
    """Rows for trackio, which keeps them on this machine (`trackio show`).

    It takes a row of the same step twice. A resumed run is therefore deleted there and logged again from its rows,
    which forgets those beyond its state, as with the other loggers; their clock times are those of the resumption.
    """

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        trackio: Any = require("trackio", "loggers")
        project, name = os.environ.get("TRACKIO_PROJECT", PROJECT), f"{folder.name}-{run_id(folder)}"
        for run in _trackio_runs(trackio, project):
            if run.name == name:
                run.delete()
        self._run = trackio.init(project=project, name=name, config=_config(folder))
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        self._run.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


def _trackio_runs(trackio: Any, project: str) -> list[Any]:
    try:
        return [*trackio.Api().runs(project)]
    except ValueError:  # no such project yet
        return []


def run_id(folder: Path) -> str:
    """The same for all parts of a run that is continued: a hash of its folder."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]


def _config(folder: Path) -> dict[str, Any]:
    """What the run says about itself in `run.json`."""
    path = folder / "run.json"
    run = json.loads(path.read_text()) if path.is_file() else {}
    return {name: run[name] for name in ("model", "config", "dataset", "versions", "git_revision") if name in run}


LOGGERS: dict[str, Any] = {
    "jsonl": JsonlLogger,
    "csv": CsvLogger,
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "trackio": TrackioLogger,
}


class RunLog:
    """The history of a run, kept and passed on to the named loggers. `rows` are those of the part already done."""

    def __init__(self, names: tuple[str, ...], folder: Path, rows: list[Row]) -> None:
        unknown = set(names) - LOGGERS.keys()
        if unknown:
            raise ContractError(f"unknown loggers {sorted(unknown)}: expected some of {sorted(LOGGERS)}")
        self.rows = list(rows)
        self._loggers: list[Logger] = [LOGGERS[name](folder, self.rows) for name in names]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row."""
        row: Row = {"step": step, **values}
        self.rows.append(row)
        for logger in self._loggers:
            logger.log(row)

    def close(self) -> None:
        for logger in self._loggers:
            logger.close()
