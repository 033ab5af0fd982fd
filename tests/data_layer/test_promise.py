"""What a writer promises, point by point (`docs/data.md`), for every format; and the laws of what was written."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from directory_episodes import make_views
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_every_format import WRITABLE

from stable_worldmodel.data import (
    DatasetLockedError,
    convert,
    detect_format,
    load_dataset,
    open_writer,
    verify,
)
from stable_worldmodel.data.formats.shared import disk
from stable_worldmodel.data.journal import format_line, parse_line
from stable_worldmodel.data.lock import lock_path
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

HERE = Path(__file__).parent
EXACT = {"hdf5"}
SIDES = (".journal", ".lock", ".log")


@pytest.fixture(params=WRITABLE)
def format(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def write(path, format, numbers, **options):
    with open_writer(path, format, **options) as writer:
        writer.write_episodes(make_views(k) for k in numbers)


def assert_holds(path, format, numbers):
    """The dataset has these episodes and no others."""
    ds = load_dataset(path, cache="none")
    assert ds.num_episodes == len(numbers)
    for i, k in enumerate(numbers):
        found, expected = ds.read_rows(i, 0, int(ds.lengths[i])), make_views(k)
        assert set(found) == set(expected)
        for name, values in expected.items():
            values = np.asarray(values, dtype=object if isinstance(values, list) else None)
            if values.dtype == np.uint8 and format not in EXACT:
                assert np.abs(found[name].astype(int) - values).mean() < 4, (k, name)
            else:
                np.testing.assert_array_equal(found[name], values, err_msg=f"episode {k}, {name}")
    return ds


def start_writing(path, format, total=100_000, mode="append"):
    command = [sys.executable, str(HERE / "directory_child.py"), str(path), str(total), mode, format]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill(child):
    """Kill a writer and return how many episodes it had acknowledged."""
    child.kill()
    out, err = child.stdout.read(), child.stderr.read()  # `communicate` would miss what `readline` has buffered
    child.wait()
    assert child.returncode == -signal.SIGKILL, err
    return int(out.split()[-1]) if out.split() else 0


def snapshot(folder):
    """All files below a folder but locks, with their content."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# -- 1 to 10 ----------------------------------------------------------------------------------------------------------


def test_1_committed_episodes_survive_a_kill_and_are_continued(path, format):
    child = start_writing(path, format)
    for _ in range(4):
        child.stdout.readline()
    acknowledged = max(3, kill(child))
    stored = load_dataset(path).num_episodes
    assert acknowledged <= stored <= acknowledged + 1
    assert_holds(path, format, range(stored))
    write(path, format, [stored])
    assert_holds(path, format, range(stored + 1))


@pytest.mark.parametrize("every", [0, 1e9])
def test_1_commits_reach_the_disk_when_asked_to_and_closing_always_does(path, format, every, monkeypatch):
    counts = {"now": 0}

    def counted(function):
        def call(*arguments):
            counts["now"] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(disk.os, "fsync", counted(disk.os.fsync))
    monkeypatch.setattr(disk, "_sync_file_system", counted(disk._sync_file_system))
    with open_writer(path, format, fsync_every=every) as writer:
        for k in range(2):
            writer.write_episode(make_views(k))
        for k in range(2, 4):  # neither the first nor one at which the files double
            before = counts["now"]
            writer.write_episode(make_views(k, rows=5))
            if k == 2:
                assert (counts["now"] > before) == (every == 0)
        before = counts["now"]
    assert counts["now"] > before


def test_2_a_reader_sees_growing_prefixes_of_complete_episodes(path, format):
    child = start_writing(path, format)
    child.stdout.readline()
    child.stdout.readline()  # the first episode is there
    counts = []
    try:
        while len(counts) < 4 or (counts[-1] == counts[0] and len(counts) < 100):
            ds = load_dataset(path, cache="none")
            counts.append(ds.num_episodes)
            last = counts[-1] - 1
            found, expected = ds.read_rows(last, 0, int(ds.lengths[last])), make_views(last)
            np.testing.assert_array_equal(found["action"], expected["action"])
            assert np.abs(found["pixels"].astype(int) - expected["pixels"]).mean() < 4
            time.sleep(0.02)
    finally:
        child.kill()
        child.communicate()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


COLLECT = """
import sys
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

path, format, episodes = sys.argv[1], sys.argv[2], int(sys.argv[3])
with World("CartPole-v1", 2, (32, 32), verbose=0, max_episode_steps=6) as world:
    world.set_policy(RandomPolicy(seed=3))
    world.collect(path, episodes, seed=5, format=format, mode="resume", progress=False)
"""


@pytest.mark.slow
def test_3_a_killed_collection_resumes_to_the_same_bits(tmp_path, format):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    child = subprocess.Popen([sys.executable, "-c", COLLECT, str(parts), format, "100000"])
    deadline, stored = time.monotonic() + 60, 0
    while stored < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
        with contextlib.suppress(NotFoundError):
            stored = load_dataset(parts).num_episodes
    child.kill()
    child.wait()
    stored = load_dataset(parts).num_episodes
    for target in (parts, whole):
        with World("CartPole-v1", 3, (32, 32), verbose=0, max_episode_steps=6) as world:
            world.set_policy(RandomPolicy(seed=3))
            world.collect(target, stored + 2, seed=5, format=format, mode="resume", progress=False)
    found, expected = load_dataset(parts), load_dataset(whole)
    assert found.num_episodes == expected.num_episodes == stored + 2
    for one, other in zip(found.iter_episodes(), expected.iter_episodes(), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)  # frames too: they are encoded alike


def test_4_an_exception_keeps_what_is_complete_and_is_raised(path, format):
    def stops():
        yield make_views(0)
        yield make_views(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), open_writer(path, format) as writer:
        writer.write_episodes(stops())
    assert_holds(path, format, range(2))
    assert verify(path, deep=True).ok


@pytest.mark.parametrize(
    "change",
    [
        {"reward": np.zeros(3)},
        {"pixels": np.zeros((5, 8, 8, 3), np.uint8)},
        {"grid": ["a"] * 5},
        {"grid": None},
        {"more": np.zeros(5)},
    ],
    ids=["length", "shape", "kind", "missing", "extra"],
)
def test_5_no_byte_of_an_episode_that_does_not_fit_is_written(path, format, change):
    with open_writer(path, format) as writer:
        writer.write_episodes(make_views(k, rows=5) for k in range(2))
        before = snapshot(path.parent)
        bad = {name: values for name, values in {**make_views(2, rows=5), **change}.items() if values is not None}
        with pytest.raises(ContractError, match=next(iter(change))):
            writer.write_episode(bad)
        assert snapshot(path.parent) == before
        writer.write_episode(make_views(2, rows=5))
    assert load_dataset(path).num_episodes == 3


def test_6_the_old_dataset_stays_until_its_replacement_is_complete(path, format):
    write(path, format, range(2), metadata={"run": 1})
    with open_writer(path, format, "overwrite", metadata={"run": 2}) as writer:
        for k in range(5, 8):
            writer.write_episode(make_views(k))
            assert assert_holds(path, format, range(2)).metadata == {"run": 1}
    assert assert_holds(path, format, range(5, 8)).metadata == {"run": 2}

    def stops():
        yield make_views(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), open_writer(path, format, "overwrite") as writer:
        writer.write_episodes(stops())
    assert assert_holds(path, format, range(5, 8)).metadata == {"run": 2}


def test_6_error_mode_touches_nothing(path, format):
    write(path, format, range(2))
    before = snapshot(path.parent)
    with pytest.raises(FileExistsError):
        open_writer(path, format, "error")
    assert snapshot(path.parent) == before


def test_7_one_writer_at_a_time_and_the_lock_of_a_dead_one_is_taken_over(path, format):
    with open_writer(path, format) as writer:
        writer.write_episode(make_views(0))
        for mode in ("append", "overwrite"):
            with pytest.raises(DatasetLockedError, match="another writer"):
                open_writer(path, format, mode)
        writer.write_episode(make_views(1))
    written = next(entry for entry in path.parent.iterdir() if detect_format(entry) and entry.suffix not in SIDES)
    lock_path(written).write_text('{"pid": 1, "host": "gone"}\n')
    write(path, format, [2])
    assert_holds(path, format, range(3))
    assert not lock_path(written).exists()


MEMORY = """
import resource, sys
import numpy as np
from stable_worldmodel.data import open_writer

y, x = np.mgrid[0:96, 0:96]
rows = np.arange(60)[:, None, None]
frames = np.stack([x + rows, y + 2 * rows, x + y + 0 * rows], axis=-1).astype(np.uint8)  # 1.7 MB

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with open_writer(sys.argv[1], sys.argv[2]) as writer:
    for k in range(70):
        writer.write_episode({"pixels": np.roll(frames, k, axis=1), "action": np.full((60, 2), k, np.float32)})
        if k == 9:
            before = peak()
print(peak() - before)
"""


@pytest.mark.slow
def test_8_memory_does_not_grow_with_the_dataset(path, format):
    """60 episodes of 1.7 MB are 100 MB of frames."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path), format], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 40


def test_9_a_sound_dataset_passes_and_a_changed_one_does_not(path, format):
    write(path, format, range(4))
    report = verify(path, deep=True)
    assert (report.ok, report.checked, report.episodes) == (True, 4, 4)
    journal = next(path.parent.glob("set*.journal"))
    lines = journal.read_bytes().splitlines(keepends=True)
    record = parse_line(lines[3])  # of episode 2: what is stored is not what this says was
    record["crc32"]["action"] ^= 1
    journal.write_bytes(b"".join([*lines[:3], format_line(record), *lines[4:]]))
    assert any("episode 2" in fault for fault in verify(path, deep=True).faults)
    assert verify(path, deep=True, repair=True).repaired_to == 2
    assert_holds(path, format, range(2))
    assert verify(path, deep=True).ok


def test_10_a_conversion_appears_when_it_is_complete(path, format, tmp_path):
    write(tmp_path / "source", "hdf5", range(3))
    seen = []

    class Watch:
        def stage(self, name):
            pass

        def task(self, name, total, done=0):
            return self

        def advance(self, n=1, **_):
            seen.append([entry.name for entry in path.parent.glob("set*") if entry.suffix not in SIDES])

    convert(tmp_path / "source", path, dest_format=format, progress=Watch())
    assert seen == [[], [], []]
    assert_holds(path, format, range(3))


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=WRITABLE)
def lawful(request, tmp_path_factory):
    """A dataset with long, short and single-row episodes."""
    target = tmp_path_factory.mktemp("laws") / request.param
    with open_writer(target, format=request.param) as writer:
        writer.write_episodes(make_views(k, rows=rows) for k, rows in enumerate((7, 1, 12, 3)))
    return load_dataset(target)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_windows_are_rows_of_one_episode(lawful, steps, skip, data):
    ds = lawful.with_windows(steps, skip)
    span = steps * skip
    expected = [(e, start) for e, rows in enumerate(ds.lengths.tolist()) for start in range(rows - span + 1)]
    assert len(ds) == len(expected) == np.maximum(0, ds.lengths - span + 1).sum()
    if not expected:
        return
    chosen = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=6))
    batch = ds.get_batch(np.array(chosen))
    for k, i in enumerate(chosen):
        episode, start = expected[i]
        rows = ds.read_rows(episode, start, start + span)
        item = ds[i]
        assert item.keys() == batch.keys()
        for name in ("reward", "grid", "seed"):
            np.testing.assert_array_equal(item[name], rows[name][::skip], err_msg=name)
        np.testing.assert_array_equal(item["pixels"], rows["pixels"][::skip].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(item["action"], rows["action"].reshape(steps, -1))
        assert item["policy"] == rows["policy"][::skip].tolist()
        for name, values in item.items():
            if isinstance(values, list):
                assert batch[name][k] == values
            else:
                np.testing.assert_array_equal(batch[name][k], values, err_msg=name)


def test_only_last_rows_have_no_action(lawful):
    for episode in lawful.iter_episodes():
        assert np.isnan(episode["action"][-1]).all()
        assert np.isfinite(episode["action"][:-1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("one", WRITABLE)
@pytest.mark.parametrize("other", WRITABLE)
def test_any_format_becomes_any_other(tmp_path, one, other):
    write(tmp_path / "one", one, range(2))
    there = convert(tmp_path / "one", tmp_path / "other", dest_format=other, progress=False)
    assert detect_format(there).name == other
    assert_holds(there, "lossy" if one != "hdf5" else other, range(2))
    assert verify(there, deep=True).ok


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_nul_character_in_a_name_is_refused_by_everything_that_takes_one(tmp_path, monkeypatch):
    from stable_worldmodel import data
    from stable_worldmodel.data.cache import inside, new_dataset_path
    from stable_worldmodel.data.formats.hf_arrow.format import ArrowDataset
    from stable_worldmodel.data.formats.lerobot.format import LeRobotDataset
    from stable_worldmodel.data.formats.minari.format import MinariDataset

    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "root"))
    write(tmp_path / "good.h5", "hdf5", range(1))
    good, bad = tmp_path / "good.h5", f"{tmp_path}/a\0b"
    buffer = data.ReplayBuffer(8)
    buffer.write_episode(make_views(0, rows=4))
    readers = [
        *(data.HDF5Dataset, data.FolderDataset, data.ImageDataset, data.VideoDataset),
        *(data.LanceDataset, data.LanceVideoDataset, ArrowDataset, MinariDataset, LeRobotDataset),
    ]
    calls = {
        **{reader.__name__: (lambda reader=reader: reader(bad)) for reader in readers},
        "load_dataset": lambda: data.load_dataset(bad),
        "dataset_path": lambda: data.dataset_path(bad),
        "dataset_info": lambda: data.dataset_info(bad),
        "verify": lambda: data.verify(bad),
        "convert from": lambda: convert(bad, tmp_path / "x", progress=False),
        "convert to": lambda: convert(good, bad, progress=False),
        "merge from": lambda: data.merge([good, bad], tmp_path / "x", progress=False),
        "merge to": lambda: data.merge([good, good], bad, progress=False),
        "delete_dataset": lambda: data.delete_dataset("a\0b"),
        "delete_model": lambda: data.delete_model("a\0b"),
        "new_dataset_path": lambda: new_dataset_path("a\0b"),
        "get_cache_dir": lambda: data.get_cache_dir(None, "a\0b"),
        "inside": lambda: inside(tmp_path, "a\0b"),
        "dump": lambda: buffer.dump(bad),
        "load": lambda: data.ReplayBuffer(8).load(bad),
        **{f"write {name}": (lambda name=name: open_writer(bad, name)) for name in WRITABLE},
    }
    for call in calls.values():
        with pytest.raises(ContractError, match=r"NUL|non-empty"):
            call()
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == ["good.h5", "good.h5.journal"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../x", "/x", "a\\b", "C:x", "a\nb", "folder/x"])
def test_recorded_names_cannot_leave_the_data_root(tmp_path, name):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    with World("CartPole-v1", 1, (8, 8), verbose=0, max_episode_steps=2) as world:
        world.set_policy(RandomPolicy(seed=0))
        with pytest.raises(ContractError):
            world.record_dataset(name, 1, cache_dir=tmp_path / "root")
    assert [entry.name for entry in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "..", ".hidden", "a\0b", "\ud800", "x" * 300])
def test_columns_cannot_leave_the_dataset(path, format, name):
    """What no file could be called is refused or renamed; nothing appears elsewhere."""
    episode = {**make_views(0, rows=3), name: np.zeros((3, 8, 8, 3), np.uint8), f"{name}n": np.zeros(3)}
    with contextlib.suppress(ContractError):
        with open_writer(path, format) as writer:
            writer.write_episode(episode)
        assert load_dataset(path).num_episodes == 1
        assert verify(path, deep=True).ok
    left = {entry.name for entry in path.parent.iterdir()}
    assert all(entry.startswith("set") for entry in left), left


def test_the_table_of_promises_names_tests_that_exist():
    text = (HERE.parents[1] / "docs" / "data.md").read_text()
    section = text.partition("## What is promised, and where it is tested")[2].partition("\n## ")[0]
    named = set(re.findall(r"test_\w+", section))
    sources = "\n".join(f"{file.stem}.py {file.read_text()}" for file in HERE.parent.rglob("test_*.py"))
    assert len(named) > 15
    assert not [name for name in named if f"def {name}(" not in sources and f"{name}.py" not in sources]


def test_damaged_files_raise_one_class_that_names_them(path, format):
    """ContractError, which is a ValueError, or NotFoundError where the file is gone."""
    write(path, format, range(2))
    target = next(entry for entry in path.parent.iterdir() if entry.suffix not in SIDES)
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(ContractError, match="set"):
        list(load_dataset(path, cache="none").iter_episodes())
