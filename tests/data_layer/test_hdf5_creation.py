"""A new HDF5 file on a full disk, and what the writer puts past the library: frames and their checksums."""

import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_factory import assert_same_episode, make_goal_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.data import HDF5Writer, load_dataset, verify
from stable_worldmodel.data.formats.hdf5 import layout
from stable_worldmodel.data.formats.hdf5.checksums import crc32_of_rows
from stable_worldmodel.data.formats.hdf5.writer import BACKGROUND_BYTES
from stable_worldmodel.data.journal import journal_path, read_journal

HERE = Path(__file__).parent
# Prints what the first attempt raised, and writes the episode when the limit is gone.
TWO_ATTEMPTS = """
import resource, sys
from episode_factory import make_goal_episode
from stable_worldmodel.data import HDF5Writer

path, limit = sys.argv[1], int(sys.argv[2])
endless = resource.getrlimit(resource.RLIMIT_FSIZE)
episode = make_goal_episode(0, side=48)
with HDF5Writer(path) as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, endless[1]))
    try:
        writer.write_episode(episode)
    except OSError as error:
        print(error.errno, writer.num_episodes)
    resource.setrlimit(resource.RLIMIT_FSIZE, endless)
    if "again" in sys.argv:
        writer.write_episode(episode)
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)


# -- full disks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 300, 10_000, 200_000, 800_000])
def test_a_first_file_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, limit):
    result = run(TWO_ATTEMPTS, tmp_path / "set.h5", limit)
    assert (result.returncode, result.stdout) == (0, "27 0\n"), result.stderr  # EFBIG
    assert not list(tmp_path.iterdir())


def test_the_same_writer_goes_on_when_there_is_room(tmp_path):
    path = tmp_path / "set.h5"
    result = run(TWO_ATTEMPTS, path, 300_000, "again")
    assert (result.returncode, result.stdout) == (0, "27 0\n"), result.stderr
    (episode,) = load_dataset(path).iter_episodes()
    assert_same_episode(episode, make_goal_episode(0, side=48))
    assert verify(path, deep=True).ok
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["set.h5", "set.h5.journal"]


@pytest.mark.parametrize("kilobytes", [4, 64, 512])
def test_a_full_disk_does_not_bring_the_interpreter_down(tmp_path, kilobytes):
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted")
    try:
        result = run(TWO_ATTEMPTS, tmp_path / "set.h5", 1 << 40)
        assert (result.returncode, result.stdout) == (0, "28 0\n"), result.stderr  # ENOSPC
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_file_beyond_the_size_limit_of_the_process_is_not_touched(tmp_path):
    path = tmp_path / "set.h5"
    with HDF5Writer(path) as writer:
        writer.write_episode(make_goal_episode(0))
    before = path.read_bytes()
    code = (
        "import resource, sys\n"
        "from stable_worldmodel.data import HDF5Writer\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "HDF5Writer(sys.argv[1])\n"
    )
    result = run(code, path)
    assert result.returncode == 1
    assert f"OSError: [Errno 27] {len(before)} bytes, the limit of this process is 5000" in result.stderr
    assert path.read_bytes() == before


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 600),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3])),
    width=st.integers(1, 5000),
)
def test_the_room_taken_for_the_first_episode_is_enough(rows, shape, width):
    rng = np.random.default_rng(rows)
    episode = {
        "goal": rng.integers(0, 256, (rows, *shape), dtype=np.uint8),
        "pixels": rng.integers(0, 256, (rows, *shape), dtype=np.uint8),
        "state": rng.normal(size=(rows, width)),
        "done": np.zeros(rows, dtype=bool),
    }
    with tempfile.TemporaryDirectory() as folder:
        planned, written = Path(folder) / "planned.h5", Path(folder) / "written.h5"
        layout.create_file(planned, episode, ["goal"])
        with HDF5Writer(written) as writer:
            writer.write_episode(episode)
            assert written.stat().st_size <= planned.stat().st_size
        assert written.stat().st_size <= planned.stat().st_size


def test_a_file_system_that_cannot_take_room_beforehand_is_used_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    episode = make_goal_episode(1)
    with HDF5Writer(tmp_path / "set.h5") as writer:
        writer.write_episode(episode)
    (found,) = load_dataset(tmp_path / "set.h5").iter_episodes()
    assert_same_episode(found, episode)


# -- frames and checksums ----------------------------------------------------------------------------------------------


def large_episode(k, rows=40, side=128):
    """More than `BACKGROUND_BYTES`: every second row and column of larger pictures, and one goal."""
    rng = np.random.default_rng(k)
    wide = rng.integers(0, 256, (rows, 2 * side, 2 * side, 3), dtype=np.uint8)
    goal = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return {
        "pixels": wide[:, ::2, ::2],
        "goal": goal[(np.arange(rows) > rows // 2).astype(int)],
        "state": np.asfortranarray(rng.normal(size=(rows, 3))),
    }


def test_large_episodes_are_written_and_described_as_they_are(tmp_path):
    path = tmp_path / "set.h5"
    episodes = [large_episode(k) for k in range(3)]
    assert episodes[0]["pixels"].nbytes > BACKGROUND_BYTES
    with HDF5Writer(path) as writer:
        writer.write_episodes(episodes)
    for found, expected in zip(load_dataset(path).iter_episodes(), episodes, strict=True):
        assert_same_episode(found, expected)
    records = [record for record, _ in read_journal(journal_path(path)) if record["kind"] == "episode"]
    for record, episode in zip(records, episodes, strict=True):
        assert record["crc32"] == {name: zlib.crc32(values.tobytes()) for name, values in episode.items()}
        assert record["bytes"] == sum(values.nbytes for values in episode.values())
        assert record["len"] == 40
    assert verify(path, deep=True).ok


def test_frames_of_a_compressed_column_go_through_the_library(tmp_path):
    path = tmp_path / "foreign.h5"
    episodes = [large_episode(k) for k in range(2)]
    with HDF5Writer(tmp_path / "plain.h5", unique_columns=()) as writer:
        writer.write_episode(episodes[0])
    with h5py.File(tmp_path / "plain.h5", "r") as plain, h5py.File(path, "w", libver=("v110", "latest")) as file:
        for name, values in plain.items():
            options = {"compression": "gzip", "compression_opts": 1} if name == "pixels" else {}
            chunks, most = values.chunks, values.maxshape
            file.create_dataset(name, data=values[:], dtype=values.dtype, chunks=chunks, maxshape=most, **options)
    with HDF5Writer(path) as writer:
        writer.write_episode(episodes[1])
    for found, expected in zip(load_dataset(path).iter_episodes(), episodes, strict=True):
        assert_same_episode(found, expected)


@given(st.lists(st.tuples(st.binary(min_size=6, max_size=6), st.integers(1, 70)), min_size=1, max_size=8))
def test_checksum_of_repeated_frames_is_that_of_all_rows(parts):
    frames = np.frombuffer(b"".join(frame for frame, _ in parts), np.uint8).reshape(-1, 1, 2, 3)
    shown = np.repeat(np.arange(len(parts)), [count for _, count in parts])
    assert crc32_of_rows(frames, shown) == zlib.crc32(frames[shown].tobytes())
