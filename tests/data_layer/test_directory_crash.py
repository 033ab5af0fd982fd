"""Kills and concurrent readers of the directory formats: at every instant there is a prefix of complete episodes."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from directory_episodes import FORMATS, assert_close, make_views

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.journal import journal_path, read_journal
from stable_worldmodel.errors import ContractError

CHILD = Path(__file__).with_name("directory_child.py")
ENDLESS = 100_000


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


def start_writing(path, format, total=ENDLESS, mode="append"):
    """A process that is past its imports and has opened the dataset."""
    command = [sys.executable, str(CHILD), str(path), str(total), mode, format]
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


def assert_prefix(path, format, at_least):
    """The dataset holds episodes 0 .. n-1 and nothing else; n may exceed the acknowledged count by one."""
    if not at_least and not path.exists():
        return 0
    ds = load_dataset(path)
    assert at_least <= ds.num_episodes <= at_least + 1
    for k, episode in enumerate(ds.iter_episodes()):
        assert_close(episode, make_views(k), format)
    return ds.num_episodes


def contents(path):
    """All files but those that carry the identity of the dataset."""
    files = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: data for name, data in files.items() if name.name not in ("ep_len.npz", "state.json")}


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_recording_keeps_acknowledged_episodes_and_continues_to_the_same_files(tmp_path, format, kills):
    path, whole = tmp_path / "killed", tmp_path / "whole"
    rng = random.Random(kills)
    stored = 0
    for _ in range(kills):
        acknowledged = kill_after(start_writing(path, format), rng.uniform(0, 0.15))
        stored = assert_prefix(path, format, max(acknowledged, stored))
    total = stored + 3
    for target in (path, whole):
        assert start_writing(target, format, total).wait() == 0
    assert contents(path) == contents(whole)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["killed", "killed.journal", "whole", "whole.journal"]
    described = [record["i"] for record, _ in read_journal(journal_path(path)) if record["kind"] == "episode"]
    assert described == list(range(total))
    assert verify(path, deep=True).checked == total
    assert verify(path, deep=True).ok


def test_killed_overwrite_keeps_the_old_dataset(tmp_path, format):
    path = tmp_path / "old"
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k) for k in range(2))
    before = contents(path)
    kill_after(start_writing(path, format, mode="overwrite"), 0.1)
    assert contents(path) == before
    assert_prefix(path, format, 2)
    with open_writer(path, format) as writer:
        writer.write_episode(make_views(2))
    assert_prefix(path, format, 3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["old", "old.journal"]


def test_reader_during_writing_sees_growing_prefixes(tmp_path, format):
    path = tmp_path / "live"
    child = start_writing(path, format)
    child.stdout.readline()  # the first episode is there
    try:
        counts = []
        for _ in range(15):
            ds = load_dataset(path)
            counts.append(ds.num_episodes)
            last = counts[-1] - 1
            assert_close(ds.read_rows(last, 0, ds.lengths[last]), make_views(last), format)
            time.sleep(0.02)
    finally:
        child.kill()
        child.communicate()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_open_reader_survives_later_appends(tmp_path, format):
    path = tmp_path / "live"
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k) for k in range(3))  # the last one is in the log only
        ds = load_dataset(path, keys_to_load=["reward"], cache="none")
        writer.write_episodes(make_views(k) for k in range(3, 20))
        for k in range(3):  # columns that were not loaded at first are read now
            assert_close(ds.read_rows(k, 0, ds.lengths[k], [*make_views(k)]), make_views(k), format)


def test_open_reader_of_a_replaced_dataset_says_so(tmp_path, format):
    path = tmp_path / "set"
    for k in (0, 1):
        with open_writer(path, format, mode="overwrite") as writer:
            writer.write_episode(make_views(k))
        if k == 0:
            ds = load_dataset(path, keys_to_load=["pixels", "goal"], cache="none")
    for column in ("pixels", "reward"):
        with pytest.raises(RuntimeError, match="was replaced since the dataset was opened"):
            ds.read_rows(0, 0, 1, [column])


@pytest.fixture
def killed(tmp_path, format):
    """A dataset of three episodes, the last of which is in its log; the path."""
    path = tmp_path / "live"
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k) for k in range(3))
        shutil.copytree(path, tmp_path / "killed")
        for side in (log_path, journal_path):
            shutil.copy(side(path), side(tmp_path / "killed"))
    return tmp_path / "killed"


def cut(file, size):
    file.write_bytes(file.read_bytes()[:-size])


def test_torn_record_in_the_log_is_ignored_and_written_again(killed, format):
    journal = journal_path(killed)
    cut(journal, len(journal.read_bytes().splitlines(keepends=True)[-1]))  # it is written after the log
    cut(log_path(killed), 7)
    assert_prefix(killed, format, 2)
    with open_writer(killed, format) as writer:
        assert writer.num_episodes == 2
        writer.write_episode(make_views(2))
    assert_prefix(killed, format, 3)
    assert np.sum(load_dataset(killed).lengths) == verify(killed, deep=True).rows


def test_recorded_episode_that_is_gone_is_missed(killed, format, caplog):
    cut(log_path(killed), 7)
    with pytest.raises(ContractError, match=r"episodes 2 to 2 were recorded and are not there.*repair=True"):
        load_dataset(killed)
    assert "episodes 2 to 2 were recorded" in verify(killed).faults[0]
    copy = killed.with_name("copy")
    shutil.copytree(killed, copy)
    shutil.copy(journal_path(killed), journal_path(copy))
    assert verify(killed, repair=True).repaired_to == 2
    assert_prefix(killed, format, 2)
    with open_writer(copy, format) as writer:  # so does appending, which says what it takes the place of
        writer.write_episode(make_views(2))
    assert "episodes 2 to 2 were recorded" in caplog.text
    assert_prefix(copy, format, 3)
    assert verify(copy, deep=True).ok
