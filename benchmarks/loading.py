"""Speed of writing episodes and of loading random windows, per format, against a naive reader in the same run.

    python benchmarks/loading.py [--task writing windows cache] [--side 64 224] [--frames 2000] [--formats hdf5 ...]
    python benchmarks/loading.py --task opening --side 8 --frames 1000000

Windows of T = 4 observations, K = 5 rows apart, in batches of B = 64 at random, all columns loaded, page cache warm.
The naive reader is what one would write first: a `torch.utils.data.Dataset` that reads the whole span of a window,
decodes it with Pillow (or PyAV) and lets `DataLoader` collate, with two worker processes (Lance: none, since its
threads do not survive a fork). Prints one JSON object per task, image size and format; `ratio` is `Loader` over naive,
the median of three turns, each with workers of its own: what one side reads ahead must not run in the other's turn.

Other programs on the machine change what the clock says, so processor time is printed too: microseconds per window of
loader, naive reader and a bare copy of as many frames, `cpu_ratio`, and for writing `cpu_to_one_commit`. `disk_share`
is the writer's speed over that of writing as many bytes to one file and waiting for the disk, right after it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from naive_readers import NAIVE, PUBLIC_OPTIONS, ROWS, SKIP, STEPS, Naive

import stable_worldmodel.envs  # noqa: F401
from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.registry import FORMATS, Format

BATCH = 64


def make_episodes(count: int, side: int) -> list[dict[str, Any]]:
    """Recordings of TwoRoom with columns like those of PushT."""
    env = gym.make("swm/TwoRoom-v1", render_mode="rgb_array", max_episode_steps=None)
    env.unwrapped.render_shape = (side, side)
    episodes = []
    for k in range(count):
        rng = np.random.default_rng(k)
        _, info = env.reset(seed=k, options={"variation": ["all"]})
        env.action_space.seed(k)
        frames = [env.render()]
        for _ in range(ROWS - 1):
            env.step(env.action_space.sample())
            frames.append(env.render())
        action = rng.normal(size=(ROWS, 2)).astype(np.float32)
        action[-1] = np.nan
        episodes.append(
            {
                "pixels": np.stack(frames),
                "goal": np.broadcast_to(info["goal"], (ROWS, side, side, 3)).copy(),
                "action": action,
                "proprio": rng.normal(size=(ROWS, 4)).astype(np.float32),
                "state": rng.normal(size=(ROWS, 7)).astype(np.float32),
                "reward": rng.normal(size=ROWS).astype(np.float32),
                "step_idx": np.arange(ROWS),
            }
        )
    return episodes


# ---------------------------------------------------------------------- measuring


def write(path: Path, name: str, episodes: list[dict[str, Any]], frames: int, **options: Any) -> Spent:
    """Write `frames` rows, with a commit per episode."""
    with spending() as spent, open_writer(path, format=name, mode="error", **options) as writer:
        for i in range(frames // ROWS):
            writer.write_episode(episodes[i % len(episodes)])
    return spent


@dataclass
class Spent:
    """Seconds by the clock, and of the processor in this process and its workers."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    """Measure what happens inside."""
    spent, wall, cpu = Spent(), time.perf_counter(), cpu_seconds()
    try:
        yield spent
    finally:
        spent.wall, spent.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    return time.process_time() + sum(_cpu_seconds_of(child.pid) for child in multiprocessing.active_children())


def _cpu_seconds_of(pid: int | None) -> float:
    """Of another process; 0 where the system does not show it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Speed:
    """Of loading."""

    windows_per_s: float
    cpu_us: float  # per window


def load(batches: Iterator[Any], seconds: float) -> Speed:
    """Speed over some seconds and some batches, after a few."""
    for _ in range(4):
        next(batches)
    count, begin = 0, time.perf_counter()
    with spending() as spent:
        while count < 8 or time.perf_counter() - begin < seconds:
            next(batches)
            count += 1
    return Speed(BATCH * count / spent.wall, 1e6 * spent.cpu / (BATCH * count))


def load_naively(spans: Naive, seconds: float, workers: int) -> Speed:
    """Speed of the naive reader, with worker processes that live no longer."""
    options = {"num_workers": workers, "persistent_workers": True} if workers else {}
    batches = endless(torch.utils.data.DataLoader(spans, BATCH, shuffle=True, **options))
    speed = load(batches, seconds)
    del batches
    for child in multiprocessing.active_children():
        child.join(10)
    return speed


def copy_frames(side: int, frames: int) -> Speed:
    """Speed of copying the pictures of random windows in one thread: `pixels` at random, a goal that is the same."""
    source = np.ones((frames, side * side * 3), np.uint8)
    pixels, goals = (np.ones((BATCH * STEPS, source.shape[1]), np.uint8) for _ in range(2))
    rng, count = np.random.default_rng(0), 20
    chosen = rng.integers(0, frames - STEPS * SKIP, (count, BATCH, 1)) + np.arange(0, STEPS * SKIP, SKIP)
    with spending() as spent:
        for rows in chosen.reshape(count, -1).tolist():
            for i, row in enumerate(rows):
                pixels[i] = source[row]
            for i, row in enumerate(rows):
                goals[i] = source[row // ROWS]
    return Speed(BATCH * count / spent.wall, 1e6 * spent.cpu / (BATCH * count))


def endless(batches: Any) -> Iterator[Any]:
    while True:
        yield from batches


def disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure_windows(name: str, side: int, frames: int, seconds: float) -> dict[str, Any]:
    """Random windows of all columns: `Loader` beside the naive reader."""
    episodes = make_episodes(4, side)
    with tempfile.TemporaryDirectory() as temporary:
        ours, public = Path(temporary) / "ours", Path(temporary) / "public"
        for folder in (ours, public):
            folder.mkdir()
        write(ours / "data", name, episodes, frames)
        dataset = load_dataset(ours / "data", num_steps=STEPS, frameskip=SKIP, cache="none")
        spans = None
        if name in NAIVE:
            write(public / "data", name, episodes, frames, **PUBLIC_OPTIONS.get(name, {}))
            path = Path(load_dataset(public / "data").path)
            spans = Naive(frames // ROWS, lambda: NAIVE[name](path))
        speeds: list[Speed] = []
        naive: list[Speed] = []
        for _ in range(3):
            with Loader(dataset, BATCH) as loader:
                speeds.append(load(endless(loader), seconds))
            if spans is not None:
                naive.append(load_naively(spans, seconds, 0 if name == "lance" else 2))
    cpu_us = {"loader": median(speeds, "cpu_us"), "bare_copy": copy_frames(side, frames).cpu_us}
    result = {"windows_per_s": round(median(speeds, "windows_per_s"))}
    if naive:
        cpu_us["naive"] = median(naive, "cpu_us")
        ratios = [own.windows_per_s / other.windows_per_s for own, other in zip(speeds, naive, strict=True)]
        result["naive_windows_per_s"] = round(median(naive, "windows_per_s"))
        result["ratio"] = round(float(np.median(ratios)), 1)
        result["cpu_ratio"] = round(cpu_us["naive"] / cpu_us["loader"], 1)
    return {**result, "cpu_us_per_window": {key: round(value) for key, value in cpu_us.items()}}


def median(measured: list[Any], field: str) -> float:
    return float(np.median([getattr(one, field) for one in measured]))


def measure_cache(name: str, side: int, frames: int, seconds: float) -> dict[str, Any]:
    """Random windows of a set that is decoded in memory."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "data", name, make_episodes(4, side), frames)
        dataset = load_dataset(Path(folder) / "data", num_steps=STEPS, frameskip=SKIP, cache="decoded")
        rates = {}
        for columns in (dataset.column_names, ["pixels", "action"]):
            part = dataset.with_windows(STEPS, SKIP, keys_to_load=columns)
            part.get_batch(np.arange(0, len(part), STEPS * SKIP // 2))  # fills the cache
            with Loader(part, 4 * BATCH) as loader:
                label = "all columns" if columns is dataset.column_names else "pixels and action"
                rates[label] = round(4 * load(endless(loader), seconds).windows_per_s)
        frame = side * side * 3
        source = np.zeros((frames, frame), np.uint8)
        out = np.empty((4 * BATCH * STEPS, frame), np.uint8)
        rows = np.random.default_rng(0).integers(0, frames, len(out))
        begin = time.perf_counter()
        for _ in range(20):
            np.take(source, rows, axis=0, out=out, mode="clip")
        bare = 20 * 4 * BATCH / (time.perf_counter() - begin)
        return {"windows_per_s": rates, "bare_copy_of_pixels_windows_per_s": round(bare)}


def measure_writing(name: str, side: int, frames: int, seconds: float) -> dict[str, Any]:
    """Writing episodes, each of them committed, beside writing the same rows with one commit at the end."""
    episodes = make_episodes(4, side)
    whole = {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
    rows = len(whole["reward"])
    joined = {key: np.concatenate([values] * (frames // rows)) for key, values in whole.items()}
    each: list[Spent] = []
    once: list[Spent] = []
    disk: list[Spent] = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "each"
            folder.mkdir()
            each.append(write(folder / "data", name, episodes, len(joined["reward"])))
            size = disk_bytes(folder)
            disk.append(write_bytes(Path(temporary) / "bytes", size))
            with spending() as spent, open_writer(Path(temporary) / "once", format=name, mode="error") as writer:
                writer.write_episode(joined)
            once.append(spent)
    written = len(joined["reward"])
    return {
        "frames_per_s": round(written / median(each, "wall")),
        "frames_per_cpu_s": round(written / median(each, "cpu")),
        "to_one_commit": round(float(np.median([a.wall / b.wall for a, b in zip(each, once, strict=True)])), 2),
        "cpu_to_one_commit": round(float(np.median([a.cpu / b.cpu for a, b in zip(each, once, strict=True)])), 2),
        "disk_share": round(float(np.median([b.wall / a.wall for a, b in zip(each, disk, strict=True)])), 2),
        "disk_mb_per_s": round(size / median(disk, "wall") / 1e6),
        "bytes_per_row": round(size / written),
    }


def write_bytes(path: Path, size: int) -> Spent:
    """Write one file of this size and wait for the disk."""
    block = np.random.default_rng(0).bytes(1 << 20)
    with spending() as spent, path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
        file.flush()
        os.fsync(file.fileno())
    return spent


def measure_opening(name: str, side: int, frames: int, seconds: float) -> dict[str, Any]:
    """Opening a set of many rows of small images, and its first batch."""
    rng = np.random.default_rng(0)
    episode = {
        "pixels": rng.integers(0, 256, (ROWS, 8, 8, 3), np.uint8),
        "action": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "state": rng.normal(size=(ROWS, 7)).astype(np.float32),
        "step_idx": np.arange(ROWS),
    }
    with tempfile.TemporaryDirectory() as folder:
        spent = write(Path(folder) / "data", name, [episode], frames).wall
        begin = time.perf_counter()
        dataset = load_dataset(Path(folder) / "data", num_steps=STEPS, frameskip=SKIP)
        opened = time.perf_counter()
        with Loader(dataset, BATCH) as loader:
            next(iter(loader))
        first = time.perf_counter() - opened
        return {
            "rows": frames,
            "write_rows_per_s": round(frames / spent),
            "open_s": round(opened - begin, 3),
            "first_batch_s": round(first, 3),
        }


TASKS = {
    "windows": measure_windows,
    "cache": measure_cache,
    "writing": measure_writing,
    "opening": measure_opening,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    writable = [name for name, fmt in FORMATS.items() if fmt.open_writer.__func__ is not Format.open_writer.__func__]
    parser.add_argument("--task", nargs="+", default=["writing", "windows", "cache"], choices=TASKS)
    parser.add_argument("--side", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--frames", type=int, default=2000, help="rows written; a million for `opening`")
    parser.add_argument("--formats", nargs="+", default=writable)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader worker
    for task, side, name in itertools.product(options.task, options.side, options.formats):
        measured = TASKS[task](name, side, options.frames, options.seconds)
        print(json.dumps({"task": task, "side": side, "format": name, **measured}), flush=True)


if __name__ == "__main__":
    main()
