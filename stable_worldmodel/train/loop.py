"""The training loop: clips in, a checkpoint and a history out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.errors import ContractError
from stable_worldmodel.train.clips import Clips
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.train.learner import Learner
from stable_worldmodel.train.logging import Row, RunLog
from stable_worldmodel.train.meter import Meter
from stable_worldmodel.train.state import RunState, has_state, load_state, save_state
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.mappings import flatten_dict
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.wm.checkpoint import save_pretrained
from stable_worldmodel.wm.registry import build_model

RUN_FILE = "run.json"


class TrainCallback(Protocol):
    """Watches a run."""

    def on_step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """`step` of `total` is done. `metrics` is the newest row of the log, empty before the first one."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    checkpoint: Path  # folder for `wm.load_checkpoint`
    history: list[Row]  # rows of the log: `step` and named numbers
    split: dict[str, np.ndarray]  # episode numbers of `train` and `val`


def train(
    config: TrainConfig, dataset: Dataset, out_dir: str | Path, callback: TrainCallback | None = None
) -> TrainResult:
    """Train the model of `config` on windows of `dataset`, and save it in `out_dir/checkpoint`.

    `out_dir` also gets `run.json` (config, split, versions), the logs, and after every epoch the state from which the
    same call continues an interrupted run. On a CPU the losses equal those of an uninterrupted run.

    Raises MissingKeyError or ContractError if the dataset does not suit the config, and ContractError if `out_dir`
    holds a run of another config or dataset, or if a loss is not finite.
    """
    out_dir = Path(out_dir)
    with closing(Clips(config, dataset)) as clips, torch.random.fork_rng():
        run = _claim(out_dir, config, dataset, clips.split)
        torch.manual_seed(config.seed)
        model = build_model(replace(config.model, action_dim=dataset.get_dim("action") * config.frameskip))
        planned = config.epochs * clips.steps_per_epoch
        learner = Learner(config, model, total=min(planned, config.max_steps or planned))
        done = load_state(out_dir, learner.model, learner.optimizer)
        with closing(RunLog(config.loggers, out_dir, done.history)) as log, InterruptGuard() as guard:
            _run(learner, clips, log, done.step, out_dir, callback, guard)
        checkpoint = save_pretrained(
            learner.model, out_dir / "checkpoint", scalers={"action": clips.scaler}, extra={"run": run}
        )
        return TrainResult(checkpoint, log.rows, clips.split)


def _run(
    learner: Learner,
    clips: Clips,
    log: RunLog,
    done: int,
    out_dir: Path,
    callback: TrainCallback | None,
    guard: InterruptGuard,
) -> None:
    """Take the steps after `done`; log, and at the end of every epoch validate and save the state."""
    total = learner.total
    batches = clips.batches(done, total)
    meter = Meter()
    for step in range(done + 1, total + 1):
        with meter.waiting():
            batch = next(batches)
        meter.add(step, learner.step(step, batch), clips.batch_size)
        end_of_epoch = step % clips.steps_per_epoch == 0 or step == total
        if end_of_epoch or step % learner.config.log_every == 0:
            row = {**meter.flush(), "learning_rate": learner.learning_rate(step)}
            log.log(step, {**row, **learner.validate(clips.val_batches())} if end_of_epoch else row)
        if end_of_epoch:
            save_state(out_dir, learner.model, learner.optimizer, RunState(step, log.rows))
            meter = Meter()
        if callback is not None:
            callback.on_step(step, total, log.rows[-1] if log.rows else {})
        guard.check()


def _claim(out_dir: Path, config: TrainConfig, dataset: Dataset, split: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write what the run is to `out_dir/run.json` and return it; check it instead if there is a state to go on from."""
    identity = {
        "config": asdict(config),
        "dataset": {"episodes": dataset.num_episodes, "rows": int(dataset.lengths.sum())},
        "split": {name: episodes.tolist() for name, episodes in split.items()},
    }
    run = json.loads(json.dumps({**identity, **provenance()}))
    path = out_dir / RUN_FILE
    if not has_state(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        write_json(path, run)
        return run
    begun = json.loads(path.read_text())
    before = flatten_dict({name: begun.get(name) for name in identity})
    now = flatten_dict({name: run[name] for name in identity})
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise ContractError(
            f"{out_dir} holds a run with other values of {', '.join(changed[:5])}; "
            "continue it with the same config and dataset, or train into another folder"
        )
    return begun
