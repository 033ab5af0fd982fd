"""Kills a Lance writer before and after every step that it takes, and looks at what is left.

    python lance_kill_points.py FOLDER FORMAT SCENARIO STRIDE

SCENARIO is `create`, `append` or `overwrite`. Every STRIDE-th step is tried. Prints the number of steps that were
tried; what is wrong is raised. Each writer and each look is a process of its own, forked from this one, which never
imports pylance.
"""

import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
from directory_episodes import make_views

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.formats.directory import row_log
from stable_worldmodel.data.formats.lance import tables
from stable_worldmodel.data.formats.lance import writer as lance_writer
from stable_worldmodel.data.journal import Journal

STEPS = [  # what changes files
    (tables, ["append", "replace", "tidy", "clean", "keep_episodes", "set_metadata"]),
    (row_log.RowLog, ["append", "restart", "remove"]),
    (Journal, ["append", "begin", "sync"]),
    (Path, ["rename", "replace", "mkdir", "unlink", "rmdir"]),
    (shutil, ["rmtree"]),
    (lance_writer, ["put_in_place"]),
]
EPISODES = 5


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


def kill_at(moment):
    """Make this process die when `moment` steps have begun or ended."""
    count = 0

    def tick():
        nonlocal count
        count += 1
        if count > moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function):
        def step(*args, **kwargs):
            tick()
            result = function(*args, **kwargs)
            tick()
            return result

        return step

    for owner, names in STEPS:
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))


def write(path, format, scenario, moment):
    """Write until killed; `acknowledged` tells how far it got."""
    kill_at(moment)
    mode = "overwrite" if scenario == "overwrite" else "append"
    with open_writer(path, format, mode, commit_every=2, metadata={"run": 1 + (mode == "overwrite")}) as writer:
        for k in range(writer.num_episodes, EPISODES):
            writer.write_episode(make_views(k + 10 * (mode == "overwrite"), rows=4))
            acknowledged(path).write_text(str(writer.num_episodes))
    acknowledged(path).write_text("closed")


def acknowledged(path):
    return path.parent / "acknowledged"


def base(path, format):
    """What is there before: enough commits that closing the next writer joins fragments."""
    with open_writer(path, format, commit_every=1, metadata={"run": 1}) as writer:
        writer.write_episodes(make_views(k, rows=4) for k in range(2))


def look(path, format, scenario):
    """A reader sees a prefix with everything acknowledged; a writer can go on, and then all is as it should be."""
    text = acknowledged(path).read_text() if acknowledged(path).exists() else "0"
    new = scenario == "overwrite"
    if text == "0" and scenario == "create" and not frames_exist(path):
        stored = 0
    else:
        ds = load_dataset(path)
        stored, offset = ds.num_episodes, 10 * (ds.metadata == {"run": 2})
        assert ds.metadata == {"run": 1 + bool(offset)}
        assert_episodes(ds, offset)
        if new:
            assert stored == (EPISODES if offset else 2), stored
            assert offset or text != "closed"
        elif text not in ("0", "closed"):
            assert stored >= int(text), (stored, text)
    with open_writer(path, format, commit_every=2, metadata={"run": 1}) as writer:
        assert writer.num_episodes == stored
        shift = 10 * (writer.metadata == {"run": 2})
        writer.write_episodes(make_views(k + shift, rows=4) for k in range(stored, EPISODES + 1))
    ds = load_dataset(path)
    assert ds.num_episodes == EPISODES + 1
    assert_episodes(ds, shift)
    report = verify(path, deep=True)
    assert report.ok, report
    assert report.checked == EPISODES + 1
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith(".")]
    assert not [entry for entry in path.parent.iterdir() if entry.name.endswith((".lock", ".log"))]


def frames_exist(path):
    return any((folder / "data.lance" / "_versions").is_dir() for folder in (path, path.parent))


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
    folder, format, scenario, stride = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    tried = 0
    for moment in range(0, 10_000, stride):
        path = folder / str(moment) / "data"
        path.parent.mkdir()
        if scenario != "create":
            assert in_child(base, path, format) == 0
        status = in_child(write, path, format, scenario, moment)
        assert os.WIFSIGNALED(status) or status == 0, f"{scenario}, step {moment}: the writer failed"
        assert in_child(look, path, format, scenario) == 0, f"{scenario}, killed at step {moment}"
        shutil.rmtree(path.parent)
        tried += 1
        if status == 0:
            break
    print(tried)


if __name__ == "__main__":
    main()
