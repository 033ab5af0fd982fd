"""The online loop: play, store, learn, and play better.

Episodes are recorded into `replay.h5`, where none is lost, and learned from in a replay buffer. After every round the
state is saved: a run that was interrupted repeats the round it was in, and ends as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from stable_worldmodel.data import ReplayBuffer, get_scaler, load_dataset
from stable_worldmodel.data.normalization import Scaler
from stable_worldmodel.errors import ContractError
from stable_worldmodel.online.config import OnlineConfig
from stable_worldmodel.policy.actor import ActorPolicy
from stable_worldmodel.train.clips import Batch
from stable_worldmodel.train.learner import Learner
from stable_worldmodel.train.logging import Row, RunLog
from stable_worldmodel.train.meter import Meter
from stable_worldmodel.train.protocol import EvalProtocol
from stable_worldmodel.train.state import RunState, has_state, load_state, save_state
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.interrupts import InterruptGuard
from stable_worldmodel.utils.progress import Progress, open_progress
from stable_worldmodel.utils.provenance import provenance
from stable_worldmodel.wm.checkpoint import save_pretrained
from stable_worldmodel.wm.registry import build_model
from stable_worldmodel.world import World

REPLAY, RUN_FILE = "replay.h5", "run.json"
EVAL_SEED = 2**20  # episodes of evaluations are none of those learned from


@dataclass(frozen=True)
class OnlineResult:
    """A finished run."""

    checkpoint: Path
    history: list[Row]  # one row per round
    replay: Path  # dataset of all episodes played


def train_online(config: OnlineConfig, out_dir: str | Path, progress: bool | Progress = False) -> OnlineResult:
    """Train the model of `config` on episodes it plays, and save it in `out_dir/checkpoint`.

    `out_dir` also gets `run.json`, the logs, and `replay.h5`, the dataset of all episodes. The same call continues an
    interrupted run; on a CPU, losses and episodes are those of an uninterrupted one.

    Raises ContractError if env and model do not fit, or `out_dir` holds another run.
    """
    out_dir = Path(out_dir)
    accelerator = Accelerator(mixed_precision="no", cpu=config.train.device == "cpu")
    with torch.random.fork_rng(), open_progress(progress) as display, _open_world(config) as world:
        run = _claim(out_dir, config)
        scalers = {"action": _action_scaler(world.single_action_space)}
        torch.manual_seed(config.train.seed)
        model = build_model(_fitted_model(config, world))
        learner = Learner(config.train, model, math.ceil(config.env_steps * config.updates_per_step), accelerator)
        done = load_state(out_dir, model, learner.optimizer, learner.average)
        with closing(RunLog(config.train.loggers, out_dir, done.history)) as log, InterruptGuard() as guard:
            rounds = Rounds(config, learner, world, out_dir, scalers, log, done.step)
            rounds.run(display, guard)
        extra: dict[str, Any] = {"run": run}
        if learner.average is not None:
            extra["averaged"] = {"decay": learner.average.decay, "steps": rounds.updates}
        protocol = _protocol(config).to_dict()
        with learner.averaged():
            checkpoint = save_pretrained(model, out_dir / "checkpoint", scalers=scalers, protocol=protocol, extra=extra)
        return OnlineResult(checkpoint, log.rows, out_dir / REPLAY)


class Rounds:
    """A run between two rounds."""

    def __init__(
        self,
        config: OnlineConfig,
        learner: Learner,
        world: World,
        out_dir: Path,
        scalers: Mapping[str, Scaler],
        log: RunLog,
        updates: int,
    ) -> None:
        self.config, self.learner, self.world, self.log = config, learner, world, log
        self.out_dir, self.replay, self.scalers = out_dir, out_dir / REPLAY, scalers
        self.updates = updates
        self.episodes = int(log.rows[-1]["episodes"]) if log.rows else 0
        self.env_steps = int(log.rows[-1]["env_steps"]) if log.rows else 0
        self.columns = (*config.columns, "action", "reward", "terminated")
        self.buffer = ReplayBuffer(
            config.buffer_steps, config.train.num_steps, key_filter=self.columns, seed=config.train.seed
        )
        if self.episodes:
            self._store(0, self.episodes)

    @property
    def number(self) -> int:
        """Of the round that comes next, from 0."""
        return 0 if not self.episodes else len(self.log.rows)

    def run(self, display: Progress, guard: InterruptGuard) -> None:
        """Take the rounds that are left."""
        task = display.task("online", self.config.env_steps, min(self.env_steps, self.config.env_steps))
        while self.env_steps < self.config.env_steps:
            brought, returned = self._play()
            row = {**self._learn(brought, guard), "return": returned}
            self.env_steps += brought
            row |= {"episodes": self.episodes, "env_steps": self.env_steps}
            if len(self.log.rows) % self.config.eval_every == 0 or self.env_steps >= self.config.env_steps:
                row["eval/return"] = self._evaluate()
            self.log.log(self.updates, row)
            state = RunState(self.updates, self.log.rows)
            save_state(self.out_dir, self.learner.model, self.learner.optimizer, state, self.learner.average)
            readings = {name: row[name] for name in ("return", "train/loss") if name in row}
            task.advance(brought, **readings)  # type: ignore[arg-type]  # readings never shadow `steps`

    def _play(self) -> tuple[int, float]:
        """Record the episodes of a round; returns their env steps and mean return."""
        first = self.episodes
        self.episodes = first + (self.config.episodes_per_round if first else self.config.seed_episodes)
        self.world.set_policy(self._actor(explore=True))
        # "resume" keeps what an interrupted round had recorded already.
        self.world.collect(self.replay, self.episodes, self.config.train.seed, mode="resume", progress=False)
        rewards, steps = self._store(first, self.episodes)
        return steps, rewards / (self.episodes - first)

    def _store(self, first: int, stop: int) -> tuple[float, int]:
        """Put recorded episodes [first, stop) into the buffer; returns the sum of their rewards and their env steps."""
        dataset = load_dataset(self.replay)
        names = [name for name in self.columns if name in dataset.column_names]
        rewards, steps = 0.0, 0
        for episode in range(first, stop):
            rows = int(dataset.lengths[episode])
            values = dataset.read_rows(episode, 0, rows, names)
            self.buffer.write_episode(values)
            rewards += float(np.nansum(values["reward"]))
            steps += rows - 1
        return rewards, steps

    def _learn(self, brought: int, guard: InterruptGuard) -> Row:
        """Take the optimiser steps that the new env steps allow; returns the means of their metrics."""
        meter, learner = Meter(self.learner.mean), self.learner
        total = round((self.env_steps + brought) * self.config.updates_per_step)
        for batch in self._batches(self.updates, total):
            self.updates += 1
            meter.add(self.updates, learner.step(self.updates, batch), self.config.train.batch_size)
            guard.check()
        return {**meter.flush(), "learning_rate": learner.learning_rate(max(1, self.updates))}

    def _batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Windows for the updates (start, stop]: images (B, T, C, H, W) uint8, the rest float32, actions scaled."""
        size = self.config.train.batch_size
        for step in range(start, stop):
            batch = {name: torch.from_numpy(values) for name, values in self.buffer.sample(size, step=step).items()}
            for name, values in batch.items():
                if values.ndim == 5:
                    batch[name] = values.movedim(-1, 2).contiguous()
                elif values.dtype != torch.bool:
                    batch[name] = values.float()
            batch["action"] = self.scalers["action"].transform(batch["action"]).float()
            yield batch

    def _evaluate(self) -> float:
        """Mean return of the most likely actions, those of the averaged weights where there are any."""
        with _open_world(self.config) as world, self.learner.averaged():
            world.set_policy(self._actor(explore=False))
            results = world.evaluate(self.config.eval_episodes, seed=EVAL_SEED)
        return float(results["episode_returns"].mean())

    def _actor(self, explore: bool) -> ActorPolicy:
        return ActorPolicy(
            self.learner.model,
            self.config.columns,
            self.scalers,
            history=self.config.history,
            explore=explore,
            random_below=self.config.train.seed + self.config.seed_episodes,
            seed=self.config.train.seed,
        )


def _open_world(config: OnlineConfig) -> World:
    shape = (config.image_size, config.image_size)
    return World(
        config.env,
        config.num_envs,
        shape if config.reads_pixels else None,
        add_pixels=config.reads_pixels,
        goal_conditioned=False,
        max_episode_steps=config.max_episode_steps,
        verbose=0,
        **config.arguments,
    )


def _fitted_model(config: OnlineConfig, world: World) -> Any:
    """The model's config with the columns and widths of the env."""
    world.reset(seed=0)
    missing = [name for name in config.columns if name not in world.infos]
    if missing:
        raise ContractError(f"{config.env} does not show {missing}: expected some of {sorted(world.infos)}")
    shapes = {name: world.infos[name].shape[2:] for name in config.columns}
    images = [name for name, shape in shapes.items() if len(shape) == 3]
    inputs = {name: int(np.prod(shape)) for name, shape in shapes.items() if name not in images}
    action_dim = int(np.prod(world.single_action_space.shape))
    return dataclasses.replace(config.train.model, images=images, inputs=inputs, action_dim=action_dim)


def _action_scaler(space: Any) -> Scaler:
    """The Box of an env to [-1, 1]."""
    low, high = (np.asarray(getattr(space, bound, np.nan), np.float64).reshape(-1) for bound in ("low", "high"))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ContractError(f"{space}: expected a Box with finite bounds")
    return get_scaler("percentile", low=0, high=100, q_low=low, q_high=high)


def _protocol(config: OnlineConfig) -> EvalProtocol:
    """Episodes of the env's own, as in the evaluations of the run."""
    env = {"id": config.env, "arguments": {"max_episode_steps": config.max_episode_steps, **config.arguments}}
    shape = (config.image_size, config.image_size)
    return EvalProtocol(env, shape, episodes=50, seed=EVAL_SEED)


def _claim(out_dir: Path, config: OnlineConfig) -> dict[str, Any]:
    """Write what the run is to `out_dir/run.json` and return it; check it instead if there is a state to go on from."""
    path = out_dir / RUN_FILE
    values = json.loads(json.dumps({"model": config.train.model.model_type, "online": asdict(config)}, default=dict))
    if path.is_file() and (has_state(out_dir) or (out_dir / REPLAY).exists()):
        found = json.loads(path.read_text())
        if found.get("online"):  # what an earlier version did not know of is as it is now
            found["online"]["train"] = {**values["online"]["train"], **found["online"]["train"]}
        changed = [name for name in values if found.get(name) != values[name]]
        if changed:
            raise ContractError(f"{out_dir} holds a run with another config; continue it with the same, or use another")
        return found
    out_dir.mkdir(parents=True, exist_ok=True)
    run = {**values, **provenance()}
    write_json(path, run)
    return run
