"""Kills a writer before and after every step that it takes, and looks at what is left.

    python kill_points.py FOLDER FORMAT SCENARIO [--stride N] [--swap] [--no-exchange] [--before N] [--after N]

SCENARIO is `create`, `append`, `overwrite`, `convert` (to a new dataset), `replace` (by a conversion) or `copy` (one
that replaces by copying files). Every N-th step is tried; with `--swap` only those that put a new dataset into place;
with `--no-exchange` directories cannot trade places in one step, and a reader may find none between two. `--before` is
how many episodes there are before, to which the writer adds three, and `--after` how many the next one adds.

Prints the number of steps that were tried; what is wrong is raised. Each writer and each look is a process of its own,
forked from this one, which never imports pylance.
"""

import argparse
import os
import shutil
import signal
import traceback
from pathlib import Path

import av  # noqa: F401  what takes long to import is, before anything is forked
import numpy as np
import pyarrow.parquet  # noqa: F401
from directory_episodes import make_views

from stable_worldmodel.data import conversion, convert, load_dataset, open_writer, verify
from stable_worldmodel.data.formats.directory import row_log
from stable_worldmodel.data.formats.directory.writer import DirectoryWriter
from stable_worldmodel.data.formats.hdf5 import layout as hdf5_layout
from stable_worldmodel.data.formats.hdf5 import repair as hdf5_repair
from stable_worldmodel.data.formats.hdf5.writer import HDF5Writer
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance.writer import LanceWriter
from stable_worldmodel.data.formats.lerobot import parquet
from stable_worldmodel.data.formats.shared import disk
from stable_worldmodel.data.formats.shared.writer import EpisodeWriter
from stable_worldmodel.data.journal import Journal
from stable_worldmodel.errors import NotFoundError

STEPS = [  # what changes files
    (Path, ["rename", "replace", "mkdir", "unlink", "rmdir"]),
    (shutil, ["rmtree"]),
    (disk, ["exchange"]),
    (Journal, ["append", "begin", "sync"]),
    (row_log.RowLog, ["append", "restart", "remove"]),
    (tables, ["append", "replace", "tidy", "clean", "keep_episodes", "set_metadata"]),
    (HDF5Writer, ["_extend"]),
    (hdf5_layout, ["create_file", "cut", "prepare_append"]),
    (hdf5_repair, ["repair_superblock"]),
    (parquet, ["write_table"]),
]
SWAPS = [(writer, "_publish") for writer in (EpisodeWriter, DirectoryWriter, LanceWriter)] + [(conversion, "_publish")]
ADDED = 3  # episodes
REPLACING = ("overwrite", "replace", "copy")


def in_child(work, *arguments):
    """Run `work` in a forked process and return its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    signal.alarm(60)
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_at(moment, options):
    """Make this process die when `moment` steps have begun or ended."""
    count, depth = 0, 0

    def tick():
        nonlocal count
        count += depth > 0 or not options.swap
        if count > moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function):
        def step(*args, **kwargs):
            tick()
            result = function(*args, **kwargs)
            tick()
            return result

        return step

    def swapping(function):
        def swap(*args, **kwargs):
            nonlocal depth
            depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1

        return swap

    if options.no_exchange:
        disk.exchange = lambda a, b: False
    for owner, names in STEPS:
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
    for owner, name in SWAPS:
        setattr(owner, name, swapping(getattr(owner, name)))


def writer_options(format):
    return {"commit_every": 2} if format.startswith("lance") else {}


def record(path, format, mode, first, stop, run):
    with open_writer(path, format, mode, metadata={"run": run}, **writer_options(format)) as writer:
        for k in range(writer.num_episodes, stop):
            writer.write_episode(make_views(first + k, rows=4))
            acknowledged(path).write_text(str(writer.num_episodes))


def write(path, moment, options):
    """Write until killed; `acknowledged` tells how far it got."""
    kill_at(moment, options)
    format, scenario = options.format, options.scenario
    if scenario in ("create", "append"):
        record(path, format, "append", 0, options.before + ADDED, 1)
    elif scenario == "overwrite":
        record(path, format, "overwrite", 10, options.before + ADDED, 2)
    else:
        mode = "error" if scenario == "convert" else "overwrite"
        convert(source_of(path), path, dest_format=format, mode=mode, progress=False)
    acknowledged(path).write_text("closed")


def acknowledged(path):
    return path.parent / "acknowledged"


def source_of(path):
    return path.parent.parent / "source" / "set"


def base(path, options):
    """What is there before: enough commits that closing the next writer joins fragments."""
    if options.scenario not in ("create", "convert"):
        record(path, options.format, "append", 0, options.before, 1)
        acknowledged(path).unlink()


def source(path, options):
    source_of(path).parent.mkdir()
    format = options.format if options.scenario == "copy" else "hdf5"
    record(source_of(path), format, "append", 10, options.before + ADDED, 2)


def look(path, moment, options):
    """A reader sees a prefix with everything acknowledged; a writer can go on, and then all is as it should be."""
    text = acknowledged(path).read_text() if acknowledged(path).exists() else "0"
    replacing = options.scenario in REPLACING
    whole = options.before + ADDED
    stored = look_as_reader(path, text, options)
    if stored and moment % 2:  # which may end what the writer has begun, so not every time
        report = verify(path)
        assert report.episodes == stored, report
        assert not [fault for fault in report.faults if "recorded" in fault], report
    with open_writer(path, options.format, metadata={"run": 1}, **writer_options(options.format)) as writer:
        if stored is None:
            stored = writer.num_episodes
            assert replacing
            assert stored in (options.before, whole)
        assert writer.num_episodes == stored
        shift = 10 * (writer.metadata["run"] == 2)
        if replacing:
            assert stored == (whole if shift else options.before)
        writer.write_episodes(make_views(k + shift, rows=4) for k in range(stored, whole + options.after))
    ds = load_dataset(path)
    assert ds.num_episodes == whole + options.after
    assert_episodes(ds, shift)
    report = verify(path, deep=True)
    assert report.ok, report
    assert report.checked == whole + options.after
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith(".")]
    assert not [entry for entry in path.parent.iterdir() if entry.name.endswith((".lock", ".log"))]


def look_as_reader(path, text, options):
    """The episodes that are there, all looked at; None when there is no telling."""
    try:
        ds = load_dataset(path)
    except NotFoundError:
        if options.scenario in REPLACING:
            assert options.no_exchange
            return None
        assert text == "0"
        assert options.scenario != "append"
        return 0
    new = ds.metadata["run"] == 2
    assert_episodes(ds, 10 * new)
    if options.scenario in ("create", "append"):
        assert not new
        assert text in ("0", "closed") or ds.num_episodes >= int(text), (ds.num_episodes, text)
    else:
        assert ds.num_episodes == (options.before + ADDED if new else options.before)
        assert new or (text != "closed" and options.scenario in REPLACING)
    return ds.num_episodes


def assert_episodes(ds, offset):
    for k in range(ds.num_episodes):
        expected = make_views(k + offset, rows=4)
        found = ds.read_rows(k, 0, 4)
        for name in ("action", "reward", "seed", "grid", "policy"):
            values = np.asarray(expected[name], dtype=object if isinstance(expected[name], list) else None)
            np.testing.assert_array_equal(found[name], values, err_msg=f"episode {k}, {name}")
        for name in ("pixels", "goal"):
            assert np.abs(found[name].astype(int) - expected[name]).mean() < 4, (k, name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("format")
    parser.add_argument("scenario", choices=["create", "append", *REPLACING, "convert"])
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--swap", action="store_true")
    parser.add_argument("--no-exchange", action="store_true")
    parser.add_argument("--before", type=int, default=2)
    parser.add_argument("--after", type=int, default=1)
    options = parser.parse_args()
    if options.scenario in ("convert", "replace", "copy"):
        assert in_child(source, options.folder / "0" / "data", options) == 0
    tried = 0
    for moment in range(0, 10_000, options.stride):
        path = options.folder / str(moment) / "data"
        path.parent.mkdir()
        assert in_child(base, path, options) == 0
        status = in_child(write, path, moment, options)
        assert os.WIFSIGNALED(status) or status == 0, f"{options.scenario}, step {moment}: the writer failed"
        assert in_child(look, path, moment, options) == 0, f"{options.scenario}, killed at step {moment}"
        shutil.rmtree(path.parent)
        tried += 1
        if status == 0:
            break
    print(tried)


if __name__ == "__main__":
    main()
