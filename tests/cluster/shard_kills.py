"""Kills sharded collections and merges before or after random steps, lets them go on, and looks at what comes of it.

    python tests/cluster/shard_kills.py FOLDER FORMAT collect|merge [--kills 10] [--seed 0]

Each trial is killed (SIGKILL) one to three times and then left to end. Its dataset must equal the one that a single
machine records, without a file more; in between no episode that was complete may be lost. Prints the kills as JSON;
what is wrong is raised. Every attempt is a process of its own, forked from this one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))

import toy_envs
from shard_tools import assert_equal_datasets, collect, in_turn, leftovers

from stable_worldmodel.cluster import merge as merging
from stable_worldmodel.cluster.merge import merge_shards
from stable_worldmodel.cluster.shards import ShardedRun, shards_folder
from stable_worldmodel.data import conversion, load_dataset
from stable_worldmodel.data.formats.directory.row_log import RowLog
from stable_worldmodel.data.formats.folder import join as folder_join
from stable_worldmodel.data.formats.folder import npz_table
from stable_worldmodel.data.formats.hdf5 import join as hdf5_join
from stable_worldmodel.data.formats.hdf5 import layout
from stable_worldmodel.data.formats.hdf5.writer import HDF5Writer
from stable_worldmodel.data.formats.shared import swap
from stable_worldmodel.data.journal import Journal

STEPS = [  # what changes files
    (os, ["link", "unlink", "rmdir", "mkdir", "rename", "replace"]),
    (shutil, ["rmtree", "copyfile"]),
    (swap, ["put_in_place"]),
    (conversion, ["_publish"]),
    (merging, ["write_json", "_delete"]),
    (Journal, ["append", "begin", "sync"]),
    (RowLog, ["append", "restart", "remove"]),
    (HDF5Writer, ["_extend"]),
    (layout, ["create_file", "cut"]),
    (hdf5_join, ["_copy_chunks", "_copy_columns", "_copy_journal", "check_checksums"]),
    (folder_join, ["_link_frames", "write_index"]),
    (npz_table, ["write_arrays"]),
]
EPISODES, SHARDS = 7, 3


def count_steps(fatal: int | None, after: bool) -> list[int]:
    """Count every step from now on, and die at number `fatal`; returns where the count is."""
    taken = [0]

    def counted(function):
        def call(*arguments, **keywords):
            taken[0] += 1
            mine = taken[0]
            if mine == fatal and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            if mine == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, names in STEPS:
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
    return taken


def attempt(work, fatal: int | None = None, after: bool = False) -> int:
    """Run `work` in a forked process; returns the steps it took, or -1 when it was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            taken = count_steps(fatal, after)
            work()
            os.write(writer, str(taken[0]).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        steps = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return -1
    assert status == 0, f"the attempt failed with status {status}"
    return int(steps)


def complete_episodes(target: Path, format: str) -> int:
    """How many episodes are safe, wherever they are."""
    if target.exists():
        return load_dataset(target, format=format).num_episodes
    if not (shards_folder(target) / "run.json").exists():
        return 0
    run = ShardedRun.open(target)
    shards = [run.path_of(number) for number in range(1, run.shards + 1)]
    return sum(load_dataset(path, format=run.shard_format.name).num_episodes for path in shards if path.exists())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("format")
    parser.add_argument("what", choices=["collect", "merge"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    toy_envs.register()
    rng = random.Random(chosen.seed)
    suffix = ".h5" if chosen.format == "hdf5" else ""
    one, prepared = chosen.folder / f"one{suffix}", chosen.folder / "prepared"
    options = {"format": chosen.format, "cluster": in_turn, "shards": SHARDS}
    collect(one, EPISODES, format=chosen.format)
    for number in range(1, SHARDS + 1):
        collect(prepared / f"d{suffix}", EPISODES, format=chosen.format, shards=SHARDS, shard=number)

    def trial(name: str):
        folder = chosen.folder / name
        target = folder / f"d{suffix}"
        if chosen.what == "collect":
            folder.mkdir()
            return target, lambda: collect(target, EPISODES, mode="resume", **options)
        shutil.copytree(prepared, folder)
        return target, lambda: merge_shards(target, format=chosen.format, progress=False)

    target, work = trial("measured")
    steps = attempt(work)
    assert_equal_datasets(one, target)
    killed, points = 0, []
    while killed < chosen.kills:
        target, work = trial(f"trial_{killed}")
        safe = complete_episodes(target, chosen.format)
        for _ in range(rng.randint(1, 3)):
            if chosen.what == "merge" and not leftovers(target.parent, target.name):
                break  # killed when all was done
            fatal, after = rng.randint(1, steps), rng.random() < 0.5
            if attempt(work, fatal, after) != -1:
                break
            killed += 1
            points.append(fatal)
            found = complete_episodes(target, chosen.format)
            assert found >= safe, f"killed at steps {points}: {safe} episodes were complete, {found} are"
            safe = found
        if chosen.what == "collect" or leftovers(target.parent, target.name):
            attempt(work)
        assert_equal_datasets(one, target)
        more = leftovers(target.parent, target.name)
        assert not more, f"killed at steps {points}: {more} are left"
        shutil.rmtree(target.parent)
    print(json.dumps({"format": chosen.format, "what": chosen.what, "steps": steps, "kills": killed, "at": points}))


if __name__ == "__main__":
    main()
