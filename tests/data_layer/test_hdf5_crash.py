"""Kills and concurrent readers: at every instant the file is a prefix of complete episodes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from episode_factory import assert_same_datasets, assert_same_episode, make_goal_episode

from stable_worldmodel.data import HDF5Writer, load_dataset
from stable_worldmodel.data.formats.hdf5.repair import is_marked_open, lookup3, read_superblock
from stable_worldmodel.data.journal import journal_path, read_journal

CHILD = Path(__file__).with_name("writing_child.py")
ENDLESS = 100_000


def start_writing(path, total=ENDLESS, mode="append"):
    """A process that is past its imports and has opened the dataset."""
    command = [sys.executable, str(CHILD), str(path), str(total), mode]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.readline()
    return child


def kill_after(child, seconds):
    """Kill the process and return the number of episodes it acknowledged."""
    time.sleep(seconds)
    child.kill()
    out, err = child.stdout.read(), child.stderr.read()  # `communicate` would miss what `readline` has buffered
    child.wait()
    assert child.returncode == -signal.SIGKILL, err
    return int(out.split()[-1]) if out.split() else 0


def assert_prefix(path, at_least):
    """The dataset holds episodes 0 .. n-1 and nothing else; n may exceed the acknowledged count by one."""
    if not at_least and not path.exists():
        return 0
    ds = load_dataset(path)
    assert at_least <= ds.num_episodes <= at_least + 1
    for k, episode in enumerate(ds.iter_episodes()):
        assert_same_episode(episode, make_goal_episode(k, side=48))
    return ds.num_episodes


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_recording_keeps_acknowledged_episodes_and_continues_to_the_same_file(tmp_path, kills):
    path, whole = tmp_path / "killed.h5", tmp_path / "whole.h5"
    rng = random.Random(kills)
    stored = 0
    for _ in range(kills):
        acknowledged = kill_after(start_writing(path), rng.uniform(0, 0.12))
        stored = assert_prefix(path, max(acknowledged, stored))
    total = stored + 3
    for target in (path, whole):
        assert start_writing(target, total).wait() == 0
    assert_same_datasets(path, whole)
    described = [record["i"] for record, _ in read_journal(journal_path(path)) if record["kind"] == "episode"]
    assert described == list(range(total))


def test_killed_file_is_repaired_by_append_and_noted_in_the_journal(tmp_path):
    path = tmp_path / "killed.h5"
    child = start_writing(path)
    child.stdout.readline()  # the first episode is there
    stored = assert_prefix(path, kill_after(child, 0.05))
    before = read_superblock(path)
    assert is_marked_open(before)
    with HDF5Writer(path) as writer:
        assert writer.num_episodes == stored
    with h5py.File(path, "r") as file:  # a plain open, without the reader's part of the protocol
        assert len(file["ep_len"]) == stored
    repairs = [record for record, _ in read_journal(journal_path(path)) if record["kind"] == "repair"]
    assert [record["superblock"] for record in repairs] == [before.hex()]


def test_killed_overwrite_keeps_the_old_file(tmp_path):
    path = tmp_path / "old.h5"
    with HDF5Writer(path) as writer:
        writer.write_episodes(make_goal_episode(k, side=48) for k in range(2))
    before = path.read_bytes()
    kill_after(start_writing(path, mode="overwrite"), 0.1)
    assert path.read_bytes() == before
    assert_prefix(path, 2)


def test_reader_during_writing_sees_growing_prefixes(tmp_path):
    path = tmp_path / "live.h5"
    child = start_writing(path)
    child.stdout.readline()  # the first episode is there
    try:
        counts = []
        for _ in range(10):
            ds = load_dataset(path)
            last = ds.num_episodes - 1
            counts.append(last + 1)
            assert_same_episode(ds.read_rows(last, 0, ds.lengths[last]), make_goal_episode(last, side=48))
            time.sleep(0.02)
    finally:
        child.kill()
        child.communicate()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_open_reader_survives_later_appends(tmp_path):
    path = tmp_path / "live.h5"
    with HDF5Writer(path) as writer:
        writer.write_episode(make_goal_episode(0))
        ds = load_dataset(path)
        writer.write_episodes(make_goal_episode(k) for k in range(1, 20))
        (episode,) = ds.iter_episodes()
        assert_same_episode(episode, make_goal_episode(0))


def test_lookup3_matches_its_reference_value():
    # From the driver of Bob Jenkins' lookup3.c.
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert lookup3(b"") == 0xDEADBEEF
