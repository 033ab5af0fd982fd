"""The training loop: clips in, a checkpoint and a history out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator

from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.errors import ContractError
from stable_worldmodel.train.clips import Clips
from stable_worldmodel.train.columns import fit_model
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.train.features import with_features
from stable_worldmodel.train.learner import Learner
from stable_worldmodel.train.logging import Row, RunLog
from stable_worldmodel.train.meter import Meter
from stable_worldmodel.train.preemption import Preempted, Preemption
from stable_worldmodel.train.protocol import EvalProtocol, published_protocol
from stable_worldmodel.train.state import RunState, has_state, load_state, save_state
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.mappings import flatten_dict
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.wm.checkpoint import save_pretrained
from stable_worldmodel.wm.registry import build_model

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
# Values of a config that change nothing about the result, and may differ when a run is continued.
_FREE = ("loggers", "save_every", "device")
# Values that configs did not always have, and what they were then.
_NEWER = {"to_end": False, "features": "none"}


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
    config: TrainConfig,
    dataset: Dataset,
    out_dir: str | Path,
    callback: TrainCallback | None = None,
    *,
    protocol: EvalProtocol | None = None,
) -> TrainResult:
    """Train the model of `config` on windows of `dataset`, and save it in `out_dir/checkpoint`.

    `out_dir` also gets `run.json` (config, split, versions), the logs, and after every epoch (and every
    `config.save_every` steps) the state from which the same call continues an interrupted run. On a CPU the losses
    equal those of an uninterrupted run.

    SIGTERM and SIGUSR1 end the run after the next row of the log: it saves its state, and the process exits with
    `preemption.EXIT_STATUS`, unless the caller handles SystemExit.

    Under `accelerate launch` every process calls this with equal arguments and computes its part of every batch. The
    first one logs, saves, and calls `callback`.

    Args:
        protocol: how the model is to be evaluated, which its checkpoint says; default: the published protocol.

    Raises MissingKeyError or ContractError if the dataset does not suit the config, and ContractError if `out_dir`
    holds a run of another config or dataset, or if a loss is not finite.
    """
    out_dir = Path(out_dir)
    # Precision is not left to accelerate, whose process-wide state would fix it for every later run.
    accelerator = Accelerator(mixed_precision="no", cpu=config.device == "cpu")
    with closing(_open_clips(config, dataset, accelerator)) as clips, torch.random.fork_rng():
        run = _claim(out_dir, config, dataset, clips.split, accelerator)
        torch.manual_seed(config.seed)
        model = build_model(fit_model(config, dataset))
        planned = config.epochs * clips.steps_per_epoch
        learner = Learner(config, model, min(planned, config.max_steps or planned), accelerator)
        done = load_state(out_dir, model, learner.optimizer, learner.average)
        names = config.loggers if accelerator.is_main_process else ()
        with (
            closing(RunLog(names, out_dir, done.history)) as log,
            InterruptGuard() as guard,
            Preemption() as preemption,
        ):
            _run(learner, clips, log, done.step, out_dir, callback, guard, preemption)
        if accelerator.is_main_process:
            chosen = protocol or published_protocol(config, dataset, plans=hasattr(model, "rollout"))
            _save_checkpoint(learner, out_dir / "checkpoint", clips, chosen, run)
        accelerator.wait_for_everyone()
        return TrainResult(out_dir / "checkpoint", log.rows, clips.split)


def _open_clips(config: TrainConfig, dataset: Dataset, accelerator: Accelerator) -> Clips:
    device = None if accelerator.device.type == "cpu" else accelerator.device
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if config.features != "none":
        dataset = with_features(config, dataset, accelerator)
    return Clips(config, dataset, fit_model(config, dataset), rank=rank, world_size=world_size, device=device)


def _run(
    learner: Learner,
    clips: Clips,
    log: RunLog,
    done: int,
    out_dir: Path,
    callback: TrainCallback | None,
    guard: InterruptGuard,
    preemption: Preemption,
) -> None:
    """Take the steps after `done`; log, validate at the end of every epoch, and save the state there and in between."""
    config, total, main = learner.config, learner.total, learner.accelerator.is_main_process
    batches = clips.batches(done, total)
    meter = Meter(learner.mean)
    saved = done
    for step in range(done + 1, total + 1):
        with meter.waiting():
            batch = next(batches)
        meter.add(step, learner.step(step, batch), clips.batch_size)
        end_of_epoch = step % clips.steps_per_epoch == 0 or step == total
        logged = end_of_epoch or step % config.log_every == 0
        if logged:
            row = {**meter.flush(), "learning_rate": learner.learning_rate(step)}
            log.log(step, {**row, **learner.validate(clips.val_batches())} if end_of_epoch else row)
        stop = logged and learner.any(preemption.signal is not None)
        # Only after a row is nothing left in the meter that a continued run would miss.
        if stop or end_of_epoch or (logged and config.save_every and step - saved >= config.save_every):
            if main:
                save_state(out_dir, learner.model, learner.optimizer, RunState(step, log.rows), learner.average)
            saved = step
            meter = Meter(learner.mean)
        if main and callback is not None:
            callback.on_step(step, total, log.rows[-1] if log.rows else {})
        guard.check()
        if stop and step < total:
            learner.accelerator.wait_for_everyone()  # the first one saves
            if main:
                told = preemption.signal or "told"
                logger.warning("%s: stopped after step %d of %d; the same command goes on", told, step, total)
            raise Preempted


def _save_checkpoint(
    learner: Learner, folder: Path, clips: Clips, protocol: EvalProtocol, run: Mapping[str, Any]
) -> None:
    """Save the model, with the average of its weights if there is one."""
    extra: dict[str, Any] = {"run": run}
    if learner.average is not None:
        extra["averaged"] = {"decay": learner.average.decay, "steps": learner.total}
    with learner.averaged():
        save_pretrained(
            learner.model,
            folder,
            scalers=clips.scalers,
            split={part: episodes.tolist() for part, episodes in clips.split.items()},
            protocol=protocol.to_dict(),
            extra=extra,
        )


def _claim(
    out_dir: Path,
    config: TrainConfig,
    dataset: Dataset,
    split: Mapping[str, np.ndarray],
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Write what the run is to `out_dir/run.json` and return it; check it instead if there is a state to go on from."""
    identity = {
        "model": config.model.model_type,
        "config": {**asdict(config), "scalers": dict(config.scalers)},
        "dataset": {"episodes": dataset.num_episodes, "rows": int(dataset.lengths.sum())},
        "split": {name: episodes.tolist() for name, episodes in split.items()},
    }
    run = json.loads(json.dumps({**identity, **provenance()}))
    path = out_dir / RUN_FILE
    begun = has_state(out_dir)
    accelerator.wait_for_everyone()  # all have looked before one begins
    if not begun:
        if accelerator.is_main_process:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_json(path, run)
        return run
    if not path.is_file():
        raise ContractError(f"{out_dir}: the state of a run without {RUN_FILE}, which says of which; use another one")
    found = json.loads(path.read_text())
    before = _comparable({name: found.get(name) for name in identity})
    now = _comparable({name: run[name] for name in identity})
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise ContractError(
            f"{out_dir} holds a run with other values of {', '.join(changed[:5])}; "
            "continue it with the same config and dataset, or train into another folder"
        )
    return found


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    # What a run of an earlier version did not know of is as it was then.
    known = {f"config.{name}": value for name, value in _NEWER.items()}
    flat = {**known, **flatten_dict(dict(identity))}
    return {name: value for name, value in flat.items() if name.removeprefix("config.") not in _FREE}
