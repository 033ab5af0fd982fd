"""Speed of the training loop against the bare optimiser step on tensors that are already there, in the same run.

    python benchmarks/training.py [--models lewm pldm tdmpc2] [--formats hdf5 lance] [--threads 1] [--blocks 8]
    python benchmarks/training.py --models prejepa --features float32   # the loop reads features, the bare steps images
    python benchmarks/training.py --preset paper --device auto --side 224 --models lewm   # on a GPU

Records episodes of TwoRoom, then trains each model on each format in a process of its own: `train` with its loader,
scalers, gradient clipping, metrics and log. Every `--steps` steps the loop pauses, and as many bare steps are taken by
a copy of the model: forward, backward, optimiser, on a few batches kept in memory. The first steps of each block are
not counted, so that what was read ahead meanwhile does not help. Prints one JSON object per model and format:

    ratio         bare over loop, time per step: the median over the blocks, with the smallest and largest
    samples_per_s clips per second of the loop
    data_wait     share of the loop's time spent waiting for a batch
    cpu_ratio     the same as `ratio` in processor time of this thread, which other programs change less
    memory_mb     largest resident memory of the process; on a GPU what torch allocated there
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from stable_worldmodel.data import convert, load_dataset
from stable_worldmodel.envs.two_room import ExpertPolicy
from stable_worldmodel.train import TrainConfig, train
from stable_worldmodel.train.clips import Clips
from stable_worldmodel.train.columns import fit_model
from stable_worldmodel.train.config import FEATURES
from stable_worldmodel.train.optim import build_optimizer
from stable_worldmodel.wm.registry import build_model
from stable_worldmodel.wm.training import after_step
from stable_worldmodel.world import World

WARM = 5  # steps of each block that are not counted, more than are read ahead
KEPT = 8  # batches in memory
SUFFIX = {"hdf5": "h5", "lance": "lance"}


@dataclass
class Block:
    """Seconds per counted step of one block, by the clock and of this thread."""

    wall: float
    cpu: float


class Bare:
    """Forward, backward and optimiser step of a fresh copy of the model on batches in memory."""

    def __init__(self, config: TrainConfig, model: Any, batches: list[dict[str, torch.Tensor]], device: Any) -> None:
        self.config, self.model, self.device = config, build_model(model).to(device).train(), device
        self.optimizer = build_optimizer(config, self.model)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-5
        self.batches = itertools.cycle([{n: v.to(device) for n, v in batch.items()} for batch in batches])
        self.generator = torch.Generator(device).manual_seed(0)

    def step(self) -> None:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            loss, _ = self.model(next(self.batches), self.generator)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        after_step(self.model)


@dataclass
class Alternating:
    """A callback of `train` that measures its blocks, and takes a block of bare steps after each."""

    bare: Bare
    steps: int
    loop: list[Block] = field(default_factory=list)
    alone: list[Block] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    begun: tuple[float, float] = (0.0, 0.0)
    paused: float = 0.0  # seconds of the bare block before this one

    def on_step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        place = step % self.steps
        if place == WARM:
            self.begun = self._now()
        if place:
            return
        self.loop.append(self._since(self.begun))
        self.rows.append({**metrics, "paused": self.paused})
        begin = time.perf_counter()
        for number in range(self.steps):
            if number == WARM:
                begun = self._now()
            self.bare.step()
        self.alone.append(self._since(begun))
        self.paused = time.perf_counter() - begin

    def _now(self) -> tuple[float, float]:
        if torch.device(self.bare.device).type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.thread_time()

    def _since(self, begun: tuple[float, float]) -> Block:
        wall, cpu = (now - then for now, then in zip(self._now(), begun, strict=True))
        return Block(wall / (self.steps - WARM), cpu / (self.steps - WARM))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train one model on one dataset and compare."""
    torch.set_num_threads(args.threads)
    (model,) = args.models
    config = TrainConfig.preset(args.preset, model, device=args.device, max_steps=args.steps * args.blocks, epochs=1000)
    config = replace(config, log_every=args.steps, loggers=("jsonl", "csv", "tensorboard"), compile=args.compile)
    if args.batch_size:
        config = replace(config, batch_size=args.batch_size)
    dataset = load_dataset(args.data, num_steps=config.num_steps, frameskip=config.frameskip)
    fitted = fit_model(config, dataset)
    device = Accelerator(mixed_precision="no", cpu=config.device == "cpu").device
    watch = Alternating(Bare(config, fitted, kept_batches(config, dataset, fitted), device), args.steps)
    with tempfile.TemporaryDirectory() as out:
        train(replace(config, features=args.features), dataset, out, watch)
    return {
        "model": model,
        "preset": args.preset,
        "format": args.formats[0],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": args.threads,
        "features": args.features,
        "batch": config.batch_size,
        **compared(watch, config.batch_size),
        "memory_mb": round(memory(device) / 2**20),
        "load": round(os.getloadavg()[0], 1),
    }


def kept_batches(config: TrainConfig, dataset: Any, model: Any) -> list[dict[str, torch.Tensor]]:
    clips = Clips(config, dataset, model)
    batches = [{name: values.clone() for name, values in batch.items()} for batch in clips.batches(0, KEPT)]
    clips.close()
    return batches


def compared(watch: Alternating, batch_size: int) -> dict[str, Any]:
    """Ratios over all blocks but the first, in which everything is new."""
    pairs = [*zip(watch.loop, watch.alone, strict=True)][1:]
    ratios = np.array([alone.wall / loop.wall for loop, alone in pairs])
    step = float(np.median([loop.wall for loop, _ in pairs]))
    return {
        "ratio": round(float(np.median(ratios)), 3),
        "ratios": [round(float(ratios.min()), 3), round(float(ratios.max()), 3)],
        "cpu_ratio": round(float(np.median([alone.cpu / loop.cpu for loop, alone in pairs])), 3),
        "ms_per_step": round(1e3 * step, 2),
        "bare_ms_per_step": round(1e3 * float(np.median([alone.wall for _, alone in pairs])), 2),
        "samples_per_s": round(batch_size / step),
        "data_wait": round(float(np.median([data_wait(row, batch_size * watch.steps) for row in watch.rows[1:]])), 4),
    }


def data_wait(row: Mapping[str, float], samples: int) -> float:
    """Share of the loop's own time in a log row, whose clock also ran during the bare block before it."""
    elapsed = samples / row["samples_per_s"]
    return row["data_wait"] * elapsed / (elapsed - row["paused"])


def memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def record(folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Record episodes of TwoRoom and yield each format with its dataset."""
    first = folder / "rooms.h5"
    with World("swm/TwoRoom-v1", 8, (args.side, args.side), verbose=0) as world:
        world.set_policy(ExpertPolicy(action_noise=2.0))
        world.collect(first, args.episodes, seed=0, progress=False)
    for name in args.formats:
        path = folder / f"rooms.{SUFFIX[name]}"
        if path != first:
            convert(first, path, dest_format=name, progress=False)
        yield name, path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lewm", "pldm", "tdmpc2"])
    parser.add_argument("--formats", nargs="+", default=["hdf5", "lance"], choices=[*SUFFIX])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="cpu", choices=["cpu", "auto"])
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--batch-size", type=int, help="instead of the preset's")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30, help="per block")
    parser.add_argument("--features", default="none", choices=FEATURES)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data:
        print(json.dumps(measure(args)), flush=True)
        return
    options = {n: v for n, v in vars(args).items() if n not in ("models", "formats", "episodes", "data", "compile")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    words += ["--compile"] * args.compile
    with tempfile.TemporaryDirectory() as folder:
        for name, path in record(Path(folder), args):
            for model in args.models:
                chosen = [f"--data={path}", "--models", model, "--formats", name]
                subprocess.run([sys.executable, __file__, *words, *chosen], check=True)


if __name__ == "__main__":
    main()
