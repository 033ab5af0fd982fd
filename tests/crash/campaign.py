"""Kills writers at random points, again and again, and looks at what is left.

    python tests/crash/campaign.py [--formats hdf5 ...] [--kills 200] [--seed 0]

Prints one JSON object per format: episodes that were acknowledged and are gone (`lost`), episodes that a reader saw
incomplete or wrong (`damaged`), kills after which the dataset could not be opened (`unreadable`) or continued
(`stuck`), and whether the end equals an uninterrupted run. All must be 0, and true. Half of the kills hit an existing
dataset (append), half a fresh one. Beside the kills: an exception in the middle of an episode, a full disk (a small
tmpfs; needs root), and a reader that polls while another process writes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from episodes import faults, make_episode

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.data.registry import FORMATS, Format

CHILD = Path(__file__).with_name("child.py")
LOSSLESS = {"hdf5"}
ENDLESS = 1_000_000


def writable_formats() -> list[str]:
    return [name for name, fmt in FORMATS.items() if fmt.open_writer.__func__ is not Format.open_writer.__func__]


def start(path: Path, name: str, total: int = ENDLESS) -> subprocess.Popen:
    """A writer that is past its imports and has opened the dataset."""
    command = [sys.executable, str(CHILD), str(path), name, str(total)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.opened = child.stdout.readline()  # type: ignore[attr-defined]
    return child


def kill(child: subprocess.Popen, seconds: float) -> int | None:
    """Kill it and return how many episodes it acknowledged; None if it had failed by itself."""
    time.sleep(seconds)
    failed = child.poll() not in (None, 0)
    child.kill()
    out, error = child.stdout.read(), child.stderr.read()  # communicate() would miss what readline has buffered
    child.wait()
    if failed:
        print(error, file=sys.stderr)
        return None
    words = (child.opened + out).split()  # type: ignore[attr-defined]
    return int(words[-1]) if words else 0


def inspect(path: Path, name: str, acknowledged: int, table: dict) -> int:
    """Count what is wrong with the dataset; the number of episodes it has."""
    if not acknowledged and not path.exists():
        return 0
    try:
        dataset = load_dataset(path)
        stored = dataset.num_episodes
        wrong = [
            faults(dataset.read_rows(k, 0, int(dataset.lengths[k])), k, name in LOSSLESS)
            for k in range(max(0, stored - 3), stored)
        ]
    except Exception as error:
        if acknowledged:
            print(f"{name}: {error!r}", file=sys.stderr)
            table["unreadable"] += 1
        return acknowledged
    table["lost"] += max(0, acknowledged - stored)
    table["damaged"] += sum(map(bool, wrong))
    for fault in filter(None, wrong):
        print(f"{name}: {fault}", file=sys.stderr)
    return stored


def kills(name: str, folder: Path, count: int, rng: random.Random) -> dict:
    """Kill writers of a fresh and of a growing dataset in turn; then finish the growing one and compare."""
    table = {"kills": count, "lost": 0, "damaged": 0, "unreadable": 0, "stuck": 0}
    growing, stored = folder / "growing", 0
    for k in range(count):
        path = folder / f"fresh_{k}" if k % 2 else growing
        before = 0 if k % 2 else stored
        acknowledged = kill(start(path, name), rng.expovariate(1 / 0.05))
        if acknowledged is None:
            table["stuck"] += 1
            continue
        found = inspect(path, name, max(acknowledged, before), table)
        if k % 2:
            for left in folder.glob(f"*fresh_{k}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        else:
            stored = found
    total = stored + 3
    finished = start(growing, name, total)
    whole = start(folder / "whole", name, total)
    table["stuck"] += (finished.wait(), finished.communicate())[0] != 0
    whole.communicate()
    table["equal"] = equal(growing, folder / "whole")
    table["episodes"] = total
    return table


def equal(one: Path, other: Path) -> bool:
    """Whether two datasets hold the same rows, bit for bit."""
    left, right = load_dataset(one), load_dataset(other)
    if left.lengths.tolist() != right.lengths.tolist():
        return False
    for k, rows in enumerate(left.lengths.tolist()):
        a, b = left.read_rows(k, 0, rows), right.read_rows(k, 0, rows)
        if a.keys() != b.keys() or any(not np.array_equal(_bits(a[key]), _bits(b[key])) for key in a):
            return False
    return True


def _bits(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.hasobject else np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)


def exception_in_the_middle(name: str, folder: Path) -> bool:
    """An episode that cannot be written leaves those before it, and the next one can be."""
    path = folder / "raised"
    with open_writer(path, format=name, mode="append") as writer:
        writer.write_episode(make_episode(0))
        broken = {**make_episode(1), "action": np.zeros((2, 2), np.float32)}  # too few rows
        try:
            writer.write_episode(broken)
        except ValueError:
            writer.write_episode(make_episode(1))
    dataset = load_dataset(path)
    return dataset.num_episodes == 2 and not any(
        faults(dataset.read_rows(k, 0, int(dataset.lengths[k])), k, name in LOSSLESS) for k in range(2)
    )


@contextmanager
def small_disk(folder: Path, megabytes: int = 2):
    mount = folder / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def full_disk(name: str, folder: Path) -> str:
    """A disk that fills up ends the writing with an error, and leaves what was acknowledged."""
    table = {"lost": 0, "damaged": 0, "unreadable": 0}
    try:
        with small_disk(folder) as mount:
            child = start(mount / "data", name)
            try:
                child.wait(timeout=120)
                out = child.stdout.read()
            except subprocess.TimeoutExpired:
                child.kill()
                return "hangs"
            words = (child.opened + out).split()
            if child.returncode == 0:
                return "no error"
            inspect(mount / "data", name, int(words[-1]) if words else 0, table)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "not tried: cannot mount a tmpfs"
    return "ok" if not any(table.values()) else json.dumps(table)


def concurrent_reader(name: str, folder: Path, looks: int = 20) -> bool:
    """A reader that looks again and again sees growing prefixes of correct episodes."""
    path, table = folder / "live", {"lost": 0, "damaged": 0, "unreadable": 0}
    child = start(path, name)
    child.stdout.readline()  # the first episode is there
    counts = []
    try:
        for _ in range(looks):
            counts.append(inspect(path, name, 1, table))
            time.sleep(0.02)
    finally:
        child.kill()
        child.communicate()
    return not any(table.values()) and counts == sorted(counts) and counts[-1] > counts[0]


def campaign(name: str, count: int, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        return {
            "format": name,
            **kills(name, folder, count, random.Random(seed)),
            "exception": exception_in_the_middle(name, folder),
            "full_disk": full_disk(name, folder),
            "concurrent_reader": concurrent_reader(name, folder),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=writable_formats())
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.formats:
        print(json.dumps(campaign(name, arguments.kills, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
