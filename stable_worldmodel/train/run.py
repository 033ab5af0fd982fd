"""A training run from a dataset's name to its checkpoint, with progress."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stable_worldmodel.data import load_dataset
from stable_worldmodel.train.loop import TrainResult, train
from stable_worldmodel.utils.progress import Progress, ProgressTask, SilentProgress, TerminalProgress

if TYPE_CHECKING:
    from stable_worldmodel.train.compose import Run


def execute(run: Run, *, progress: bool = True) -> TrainResult:
    """Train, or go on with a run that was interrupted. A bar is shown on stderr if that is a terminal."""
    config = run.config
    dataset = load_dataset(run.data, num_steps=config.num_steps, frameskip=config.frameskip)
    if not (progress and sys.stderr.isatty()):
        return train(config, dataset, run.out, StepProgress(SilentProgress()))
    with TerminalProgress() as shown:
        return train(config, dataset, run.out, StepProgress(shown))


def summary(run: Run, result: TrainResult) -> dict[str, Any]:
    """What became of a run, as JSON values."""
    last = result.history[-1]
    numbers = {name: value for name, value in last.items() if name.startswith(("train/loss", "val/loss"))}
    return {"run": str(run.out), "checkpoint": str(result.checkpoint), "steps": int(last["step"]), **numbers}


class StepProgress:
    """Shows the steps of a training run: time left, samples per second, share of waiting for data, and the loss."""

    READINGS = {  # noqa: RUF012
        "samples_per_s": "samples/s",
        "data_wait": "data wait",
        "train/loss": "loss",
        "val/loss": "val loss",
    }

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: ProgressTask | None = None

    def on_step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        if self._task is None:
            self._task = self._progress.task("train", total, done=step - 1)
        readings = {shown: metrics[name] for name, shown in self.READINGS.items() if name in metrics}
        self._task.advance(1, **readings)  # type: ignore[arg-type]  # readings never shadow `steps`
