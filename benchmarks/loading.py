"""Speed of writing episodes and of loading random windows, per format, against a naive reader in the same run.

    python benchmarks/loading.py [--task writing windows cache] [--side 64 224] [--frames 2000] [--formats hdf5 ...]
    python benchmarks/loading.py --task opening --side 8 --frames 1000000

Windows of T = 4 observations, K = 5 rows apart, in batches of B = 64 at random, all columns loaded, page cache warm.
The naive reader is what one would write first: a `torch.utils.data.Dataset` that reads the whole span of a window,
decodes it with Pillow (or PyAV) and lets `DataLoader` collate, with two worker processes (Lance: none, since its
threads do not survive a fork). Prints one JSON object per task, image size and format; `ratio` is `Loader` over naive,
the median of three turns.
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

Span = dict[str, np.ndarray]  # column -> (T * K, ...)


class Naive(torch.utils.data.Dataset):
    """Windows of a dataset, one at a time. `open_span` gives a function from (episode, first row) to all its rows."""

    def __init__(self, episodes: int, open_span: Callable[[], Callable[[int, int], Span]]):
        self._per_episode = ROWS - STEPS * SKIP + 1
        self._size = episodes * self._per_episode
        self._open_span = open_span
        self._span: Callable[[int, int], Span] | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, window: int) -> dict[str, torch.Tensor]:
        if self._span is None:
            self._span = self._open_span()  # in the worker
        span = {name: torch.from_numpy(rows) for name, rows in self._span(*divmod(window, self._per_episode)).items()}
        return {name: v.reshape(STEPS, -1) if name == "action" else v[::SKIP] for name, v in span.items()}


def naive_hdf5(path: Path) -> Callable[[int, int], Span]:
    import h5py

    file = h5py.File(path, "r")
    columns = {name: file[name] for name in file if name not in ("ep_len", "ep_offset")}

    def span(episode: int, start: int) -> Span:
        first = episode * ROWS + start
        return {name: column[first : first + STEPS * SKIP] for name, column in columns.items()}

    return span


def naive_folder(path: Path) -> Callable[[int, int], Span]:
    from PIL import Image

    tables, images = _tables(path), _folders(path)

    def span(episode: int, start: int) -> Span:
        steps = range(start, start + STEPS * SKIP)
        values = _rows(tables, episode, start)
        for name in images:
            values[name] = np.stack(
                [np.asarray(Image.open(path / name / f"ep_{episode}_step_{t}.jpeg")) for t in steps]
            )
        return values

    return span


def naive_video(path: Path) -> Callable[[int, int], Span]:
    import av

    tables, videos = _tables(path), _folders(path)

    def span(episode: int, start: int) -> Span:
        values = _rows(tables, episode, start)
        for name in videos:
            with av.open(str(path / name / f"ep_{episode}.mp4")) as container:
                stream = container.streams.video[0]
                tick = float(stream.time_base * stream.average_rate)  # frames per unit of time
                container.seek(round(start / tick), stream=stream)
                frames = (
                    f.to_ndarray(format="rgb24") for f in container.decode(stream) if round(f.pts * tick) >= start
                )
                values[name] = np.stack(list(itertools.islice(frames, STEPS * SKIP)))
        return values

    return span


def naive_lance(path: Path) -> Callable[[int, int], Span]:
    import lance
    from PIL import Image

    dataset = lance.dataset(str(path))

    def span(episode: int, start: int) -> Span:
        first = episode * ROWS + start
        table = dataset.take(list(range(first, first + STEPS * SKIP))).to_pydict()
        return {name: np.stack([_decoded(value) for value in values]) for name, values in table.items()}

    def _decoded(value: Any) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value)

    return span


def _tables(path: Path) -> Span:
    return {file.stem: np.load(file)["arr_0"] for file in path.glob("*.npz") if not file.stem.startswith("ep_")}


def _rows(tables: Span, episode: int, start: int) -> Span:
    first = episode * ROWS + start
    return {name: table[first : first + STEPS * SKIP] for name, table in tables.items()}


def _folders(path: Path) -> list[str]:
    return [folder.name for folder in path.iterdir() if folder.is_dir()]


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


def measure_windows(name: str, side: int, frames: int, seconds: float) -> dict[str, Any]:
    """Random windows of all columns: `Loader` beside the naive reader."""
    episodes = make_episodes(4, side)
    with tempfile.TemporaryDirectory() as temporary:
        ours, public = Path(temporary) / "ours", Path(temporary) / "public"
        for folder in (ours, public):
            folder.mkdir()
        write(ours / "data", name, episodes, frames)
        dataset = load_dataset(ours / "data", num_steps=STEPS, frameskip=SKIP, cache="none")
        naive: Iterator[Any] | None = None
        if name in NAIVE:
            write(public / "data", name, episodes, frames, **PUBLIC_OPTIONS.get(name, {}))
            path = Path(load_dataset(public / "data").path)
            workers = {} if name == "lance" else {"num_workers": 2, "persistent_workers": True}
            spans = Naive(frames // ROWS, lambda: NAIVE[name](path))
            naive = endless(torch.utils.data.DataLoader(spans, BATCH, shuffle=True, **workers))
        rates: list[float] = []
        naive_rates: list[float] = []
        with Loader(dataset, BATCH) as loader:
            for _ in range(3):
                rates.append(windows_per_second(endless(loader), seconds))
                if naive is not None:
                    naive_rates.append(windows_per_second(naive, seconds))
        result = {"windows_per_s": round(float(np.median(rates)))}
        if naive_rates:
            ratio = float(np.median(np.divide(rates, naive_rates)))
            result |= {"naive_windows_per_s": round(float(np.median(naive_rates))), "ratio": round(ratio, 1)}
        return result


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
                rates[label] = round(4 * windows_per_second(endless(loader), seconds))
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
    rates, overheads = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as temporary:
            each, once = Path(temporary) / "each", Path(temporary) / "once"
            each.mkdir()
            spent = write(each / "data", name, episodes, frames)
            size = disk_bytes(each)
            once.mkdir()
            joined = {key: np.concatenate([values] * (frames // rows)) for key, values in whole.items()}
            begin = time.perf_counter()
            with open_writer(once / "data", format=name, mode="error") as writer:
                writer.write_episode(joined)
            overheads.append(spent / (time.perf_counter() - begin))
            rates.append(frames / spent)
    return {
        "frames_per_s": round(float(np.median(rates))),
        "to_one_commit": round(float(np.median(overheads)), 2),
        "bytes_per_row": round(size / frames),
    }


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
        spent = write(Path(folder) / "data", name, [episode], frames)
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
