"""How fast shards become one dataset, beside copying the same files.

    python benchmarks/merge.py [--formats hdf5 folder video] [--size 64] [--megabytes 400] [--shards 8] [--repeats 5]

Prints JSON, a record per format. `merge` is what `swm merge` does with finished shards, from the first look at them
until the dataset is in place, on the disk and compared with the checksums of the shards; deleting the shards is timed
apart. `copy` is `shutil.copyfile` of every file of the shards, then the same wait for the disk. The two take turns, and
the medians are of `repeats` turns; `ratio` is the median of merge over copy within a turn. MB are 10^6 bytes as stored;
`cpu_mb_s` counts processor seconds instead of those on the clock, which others who use the machine do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from stable_worldmodel.cluster import merge as merging
from stable_worldmodel.cluster.merge import merge_shards
from stable_worldmodel.cluster.shards import ShardedRun
from stable_worldmodel.data import open_writer
from stable_worldmodel.data.formats.shared.disk import sync

ROWS = 50


def episode(k: int, size: int, base: np.ndarray) -> dict:
    """An episode as PushT gives it: pictures, a goal picture, a few numbers, two texts."""
    rng = np.random.default_rng(k)
    return {
        "pixels": np.roll(base, k, axis=1),
        "goal": np.broadcast_to(base[k % ROWS], base.shape),
        "action": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "state": rng.normal(size=(ROWS, 7)),
        "reward": rng.normal(size=ROWS),
        "step_idx": np.arange(ROWS),
        "seed": np.full(ROWS, k),
        "policy": ["random"] * ROWS,
    }


def smooth_frames(size: int) -> np.ndarray:
    """Pictures that encode like drawings do, (ROWS, size, size, 3) uint8."""
    y, x = np.mgrid[:size, :size] / size
    t = np.arange(ROWS)[:, None, None]
    channels = [127 + 120 * np.sin(6 * (x + i * y) + t / 8) for i in range(3)]
    noise = np.random.default_rng(0).normal(0, 4, (ROWS, size, size, 3))
    return np.clip(np.stack(channels, -1) + noise, 0, 255).astype(np.uint8)


def prepare(target: Path, format: str, shards: int, size: int, megabytes: float) -> ShardedRun:
    """Write shards of about this many bytes together."""
    base = smooth_frames(size)
    probe = target.with_name("probe")
    with open_writer(probe, format=format) as writer:
        for k in range(4):
            writer.write_episode(episode(k, size, base))
    per_episode = sum(file.stat().st_size for file in files_of(target.parent)) / 4
    for path in target.parent.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    episodes = max(shards, round(megabytes * 1e6 / per_episode))
    what = {"env": {}, "policy": {}, "seed": 0, "options": None, "writer": {}}
    run = ShardedRun.begin(target, format, episodes, shards, what)
    for number in range(1, shards + 1):
        with open_writer(run.path_of(number), format=format, metadata=run.metadata_of(number)) as writer:
            for k in run.episodes_of(number):
                writer.write_episode(episode(k, size, base))
    return run


def files_of(folder: Path) -> list[Path]:
    """Files below a folder, those with several names once."""
    found = {(path.stat().st_dev, path.stat().st_ino): path for path in folder.rglob("*") if path.is_file()}
    return list(found.values())


def timed(work) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


def copy_all(files: list[Path], folder: Path) -> None:
    folder.mkdir()
    copies = [folder / str(i) for i in range(len(files))]
    for file, copy in zip(files, copies, strict=True):
        shutil.copyfile(file, copy)
    sync([*copies, folder])


def measure(format: str, shards: int, size: int, megabytes: float, repeats: int, root: Path) -> dict:
    """The record of one format."""
    folder = Path(tempfile.mkdtemp(prefix=f"merge-{format}-", dir=root))
    target = folder / ("data.h5" if format == "hdf5" else "data")
    delete, merging._delete = merging._delete, lambda shards: None  # the shards are needed again
    try:
        run = prepare(target, format, shards, size, megabytes)
        files = files_of(run.folder)
        stored = sum(file.stat().st_size for file in files) / 1e6
        merges, copies, deletions = [], [], []
        for turn in range(-1, repeats):
            os.sync()
            copied = timed(lambda: copy_all(files, folder / "copy"))[0]
            os.sync()
            merged = timed(lambda: merge_shards(target, format=format, progress=False))
            if turn >= 0:  # the first turn warms the page cache
                merges.append(merged)
                copies.append(copied)
            shutil.rmtree(folder / "copy")
            (run.folder / merging.MARK_FILE).unlink()
            for path in (target, Path(f"{target}.journal")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        deletions.append(timed(lambda: delete(run.folder))[0])
    finally:
        merging._delete = delete
        shutil.rmtree(folder)
    return {
        "format": format,
        "size": size,
        "shards": shards,
        "episodes": run.episodes,
        "files": len(files),
        "mb": round(stored, 1),
        "merge_mb_s": round(stored / statistics.median(clock for clock, _ in merges)),
        "merge_mb_s_best": round(stored / min(clock for clock, _ in merges)),
        "cpu_mb_s": round(stored / statistics.median(cpu for _, cpu in merges)),
        "copy_mb_s": round(stored / statistics.median(copies)),
        "ratio": round(statistics.median(copied / clock for copied, (clock, _) in zip(copies, merges, strict=True)), 2),
        "merge_episodes_s": round(run.episodes / statistics.median(clock for clock, _ in merges)),
        "delete_s": round(deletions[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=["hdf5", "folder", "video"])
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in px")
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    chosen = parser.parse_args()
    records = [
        measure(format, chosen.shards, chosen.size, chosen.megabytes, chosen.repeats, chosen.folder)
        for format in chosen.formats
    ]
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg(), "records": records}, indent=2))


if __name__ == "__main__":
    main()
