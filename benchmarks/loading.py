"""Speed of writing episodes and of loading random windows, against a plain h5py loop in the same run.

    python benchmarks/loading.py [--side 64 224] [--frames 4000]

Prints one JSON object per image size: `windows_per_s` of `get_batch` (T=4, K=5, B=64, random windows, page cache
warm, tensors ready for the device), the same with reused memory (`out=`) and with decoded frames, and of a baseline
that reads each window with h5py, one column after another, and collates. `ratio` is the first over the last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from stable_worldmodel.data import HDF5Writer, load_dataset

STEPS, SKIP, BATCH = 4, 5, 64
ROWS = 100  # per episode


def make_episode(rng: np.random.Generator, side: int) -> dict[str, Any]:
    """One episode shaped like a recording of PushT."""
    action = rng.normal(size=(ROWS, 2)).astype(np.float32)
    action[-1] = np.nan
    return {
        "pixels": rng.integers(0, 256, (ROWS, side, side, 3), dtype=np.uint8),
        "action": action,
        "proprio": rng.normal(size=(ROWS, 4)).astype(np.float32),
        "state": rng.normal(size=(ROWS, 7)),
        "reward": rng.normal(size=ROWS),
        "step_idx": np.arange(ROWS),
    }


def write(path: Path, side: int, frames: int) -> float:
    """Write a dataset and return frames per second, with a commit per episode."""
    rng = np.random.default_rng(0)
    episodes = [make_episode(rng, side) for _ in range(4)]
    begin = time.perf_counter()
    with HDF5Writer(path, "error") as writer:
        writer.write_episodes(episodes[i % 4] for i in range(frames // ROWS))
    return frames / (time.perf_counter() - begin)


def windows_per_second(load: Callable[[np.ndarray], Any], windows: int, seconds: float = 1.0) -> float:
    """Rate of `load` over batches of random windows: the median batch, so that a busy machine disturbs little."""
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, windows, BATCH) for _ in range(64)]
    for batch in batches:  # warm up caches
        load(batch)
    times = []
    while sum(times) < seconds:
        begin = time.perf_counter()
        load(batches[len(times) % len(batches)])
        times.append(time.perf_counter() - begin)
    return BATCH / float(np.median(times))


def naive_loader(path: Path) -> Callable[[np.ndarray], dict[str, torch.Tensor]]:
    """Per-sample reading as one would first write it: the span of every column, strided, then collated."""
    file = h5py.File(path, "r")
    columns = {name: file[name] for name in file if name not in ("ep_len", "ep_offset")}
    per_episode = ROWS - STEPS * SKIP + 1

    def item(window: int) -> dict[str, torch.Tensor]:
        episode, start = divmod(window, per_episode)
        first = episode * ROWS + start
        spans = {name: torch.from_numpy(column[first : first + STEPS * SKIP]) for name, column in columns.items()}
        return {name: span.reshape(STEPS, -1) if name == "action" else span[::SKIP] for name, span in spans.items()}

    def batch(windows: np.ndarray) -> dict[str, torch.Tensor]:
        items = [item(int(window)) for window in windows]
        return {name: torch.stack([values[name] for values in items]) for name in columns}

    return batch


def measure(side: int, frames: int, folder: Path) -> dict[str, Any]:
    path = folder / f"loading_{side}.h5"
    written = write(path, side, frames)
    begin = time.perf_counter()
    dataset = load_dataset(path, num_steps=STEPS, frameskip=SKIP)
    opened = time.perf_counter() - begin
    decoded = load_dataset(path, num_steps=STEPS, frameskip=SKIP, cache="decoded")
    buffer = dataset.get_batch(range(BATCH))
    rates = {
        "get_batch": windows_per_second(dataset.get_batch, len(dataset)),
        "get_batch_out": windows_per_second(lambda batch: dataset.get_batch(batch, buffer), len(dataset)),
        "get_batch_decoded": windows_per_second(decoded.get_batch, len(dataset)),
        "naive_h5py": windows_per_second(naive_loader(path), len(dataset)),
    }
    path.unlink()
    return {
        "side": side,
        "frames": frames,
        "write_frames_per_s": round(written),
        "open_s": round(opened, 3),
        "windows_per_s": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(rates["get_batch"] / rates["naive_h5py"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--frames", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader worker
    with tempfile.TemporaryDirectory() as folder:
        for side in options.side:
            print(json.dumps(measure(side, options.frames, Path(folder))))


if __name__ == "__main__":
    main()
