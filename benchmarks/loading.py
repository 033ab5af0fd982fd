"""Speed of writing episodes and of loading random windows, per format, against a naive reader in the same run.

    python benchmarks/loading.py [--side 64 224] [--frames 3000] [--formats hdf5 ...] [--seconds 2]

Windows of T = 4 observations, K = 5 rows apart, in batches of B = 64 at random, all columns loaded, page cache warm.
The naive reader is what one would write first: a `torch.utils.data.Dataset` that reads the whole span of a window row
by row, decodes with Pillow (or PyAV) and lets `DataLoader` collate, with two worker processes (Lance: none, since its
threads do not survive a fork). Prints one JSON object per image size and format; `ratio` is `Loader` over naive.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import stable_worldmodel.envs  # noqa: F401
from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.registry import FORMATS, Format

STEPS, SKIP, BATCH = 4, 5, 64
ROWS = 100  # per episode


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


# ---------------------------------------------------------------------- the naive reader


class Naive(torch.utils.data.Dataset):
    """Windows of a dataset, row by row. `open_row` gives a function from (episode, t) to a dict of arrays."""

    def __init__(self, episodes: int, open_row: Callable[[], Callable[[int, int], dict[str, Any]]]):
        self._per_episode = ROWS - STEPS * SKIP + 1
        self._size = episodes * self._per_episode
        self._open_row = open_row
        self._row: Callable[[int, int], dict[str, Any]] | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, window: int) -> dict[str, torch.Tensor]:
        if self._row is None:
            self._row = self._open_row()  # in the worker
        episode, start = divmod(window, self._per_episode)
        rows = [self._row(episode, start + i) for i in range(STEPS * SKIP)]
        span = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return {name: v.reshape(STEPS, -1) if name == "action" else v[::SKIP] for name, v in span.items()}


def naive_hdf5(path: Path) -> Callable[[int, int], dict[str, Any]]:
    import h5py

    file = h5py.File(path, "r")
    columns = {name: file[name] for name in file if name not in ("ep_len", "ep_offset")}
    return lambda episode, t: {name: np.asarray(column[episode * ROWS + t]) for name, column in columns.items()}


def naive_folder(path: Path) -> Callable[[int, int], dict[str, Any]]:
    from PIL import Image

    tables = {file.stem: np.load(file)["arr_0"] for file in path.glob("*.npz") if not file.stem.startswith("ep_")}
    images = [folder.name for folder in path.iterdir() if folder.is_dir()]

    def row(episode: int, t: int) -> dict[str, Any]:
        values = {name: np.asarray(table[episode * ROWS + t]) for name, table in tables.items()}
        for name in images:
            values[name] = np.asarray(Image.open(path / name / f"ep_{episode}_step_{t}.jpeg"))
        return values

    return row


def naive_lance(path: Path) -> Callable[[int, int], dict[str, Any]]:
    import lance
    from PIL import Image

    dataset = lance.dataset(str(path))

    def row(episode: int, t: int) -> dict[str, Any]:
        record = dataset.take([episode * ROWS + t]).to_pylist()[0]
        return {
            name: np.asarray(Image.open(io.BytesIO(value))) if isinstance(value, bytes) else np.asarray(value)
            for name, value in record.items()
        }

    return row


def naive_video(path: Path) -> Callable[[int, int], dict[str, Any]]:
    import av

    tables = {file.stem: np.load(file)["arr_0"] for file in path.glob("*.npz") if not file.stem.startswith("ep_")}
    videos = [folder.name for folder in path.iterdir() if folder.is_dir()]
    decoded: dict[tuple[str, int], list[np.ndarray]] = {}

    def row(episode: int, t: int) -> dict[str, Any]:
        values = {name: np.asarray(table[episode * ROWS + t]) for name, table in tables.items()}
        for name in videos:
            if (name, episode) not in decoded:
                decoded.clear() if len(decoded) > 2 * len(videos) else None
                with av.open(str(path / name / f"ep_{episode}.mp4")) as container:
                    frames = container.decode(video=0)
                    decoded[name, episode] = [frame.to_ndarray(format="rgb24") for frame in frames]
            values[name] = decoded[name, episode][t]
        return values

    return row


NAIVE = {"hdf5": naive_hdf5, "folder": naive_folder, "lance": naive_lance, "video": naive_video}
# Written for the naive reader, which knows only the public layouts: every row of every column in its place.
PUBLIC_OPTIONS: dict[str, dict[str, Any]] = {"hdf5": {"unique_columns": ()}}


# ---------------------------------------------------------------------- measuring


def write(path: Path, name: str, episodes: list[dict[str, Any]], frames: int, **options: Any) -> float:
    """Seconds to write `frames` rows, with a commit per episode."""
    begin = time.perf_counter()
    with open_writer(path, format=name, mode="error", **options) as writer:
        for i in range(frames // ROWS):
            writer.write_episode(episodes[i % len(episodes)])
    return time.perf_counter() - begin


def windows_per_second(batches: Iterator[Any], seconds: float) -> float:
    """Rate over some seconds, after a few batches."""
    for _ in range(3):
        next(batches)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        next(batches)
        count += 1
    return BATCH * count / (time.perf_counter() - begin)


def endless(batches: Any) -> Iterator[Any]:
    while True:
        yield from batches


def disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(name: str, side: int, frames: int, seconds: float) -> dict[str, Any]:
    episodes = make_episodes(4, side)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "ours"
        folder.mkdir()
        spent = write(folder / "data", name, episodes, frames)
        size = disk_bytes(folder)
        begin = time.perf_counter()
        dataset = load_dataset(folder / "data", num_steps=STEPS, frameskip=SKIP)
        opened = time.perf_counter() - begin
        with Loader(dataset, BATCH) as loader:
            begin = time.perf_counter()
            next(iter(loader))
            first = time.perf_counter() - begin
            ours = windows_per_second(endless(loader), seconds)
        result = {
            "side": side,
            "format": name,
            "write_frames_per_s": round(frames / spent),
            "bytes_per_row": round(size / frames),
            "open_s": round(opened, 3),
            "first_batch_s": round(first, 3),
            "windows_per_s": round(ours),
        }
        if name in NAIVE:
            public = Path(temporary) / "public"
            public.mkdir()
            write(public / "data", name, episodes, frames, **PUBLIC_OPTIONS.get(name, {}))
            path = load_dataset(public / "data").path
            naive = Naive(frames // ROWS, lambda: NAIVE[name](Path(path)))
            workers = {} if name == "lance" else {"num_workers": 2, "persistent_workers": True}
            loaded = torch.utils.data.DataLoader(naive, BATCH, shuffle=True, **workers)
            theirs = windows_per_second(endless(loaded), seconds)
            result |= {"naive_windows_per_s": round(theirs), "ratio": round(ours / theirs, 1)}
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    writable = [name for name, fmt in FORMATS.items() if fmt.open_writer.__func__ is not Format.open_writer.__func__]
    parser.add_argument("--side", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--formats", nargs="+", default=writable)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader worker
    for side, name in itertools.product(options.side, options.formats):
        print(json.dumps(measure(name, side, options.frames, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
