"""Joining shards: nothing is decoded, everything is compared, and nothing is lost however often it is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from shard_tools import assert_equal_datasets, collect, in_turn, leftovers

from stable_worldmodel.cluster.merge import merge_shards
from stable_worldmodel.cluster.shards import ShardedRun
from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.formats.folder.join import join_directories
from stable_worldmodel.data.formats.hdf5.join import check_checksums, join_files
from stable_worldmodel.errors import ContractError

KILLS = Path(__file__).with_name("shard_kills.py")
JOINS = {"hdf5": (join_files, ".h5"), "folder": (join_directories, ""), "video": (join_directories, "")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "what", "kills"),
    [("hdf5", "collect", 3), ("hdf5", "merge", 4), ("folder", "collect", 2), ("folder", "merge", 4)],
)
def test_killed_at_random_steps_it_goes_on_to_the_same_dataset(tmp_path, format, what, kills):
    command = [sys.executable, str(KILLS), str(tmp_path), format, what, "--kills", str(kills), "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] >= kills


def episode(k, rows=5, text="x", number=np.int64):
    rng = np.random.default_rng(k)
    return {
        "pixels": rng.integers(0, 255, (rows, 8, 8, 3), np.uint8),
        "goal": np.repeat(rng.integers(0, 255, (1, 8, 8, 3), np.uint8), rows, axis=0),
        "action": rng.normal(size=(rows, 2)).astype(np.float32),
        "count": np.arange(rows, dtype=number),
        "label": [f"{text}{k}"] * rows,
        "seed": np.full(rows, k),
    }


def written(path, format, episodes, **options):
    with open_writer(path, format=format, metadata={"a": 1}, **options) as writer:
        writer.write_episodes(episodes)
    return path


@pytest.mark.parametrize("format", list(JOINS))
def test_a_join_equals_what_one_writer_writes(tmp_path, format):
    join, suffix = JOINS[format]
    episodes = [episode(k, rows=3 + k % 4) for k in range(9)]
    one = written(tmp_path / f"one{suffix}", format, episodes)
    parts = [(0, 4), (4, 5), (5, 9)]
    sources = [written(tmp_path / f"{a}{suffix}", format, episodes[a:b]) for a, b in parts]
    lengths = join(sources, tmp_path / f"joined{suffix}", {"a": 1})
    assert lengths.tolist() == [3 + k % 4 for k in range(9)]
    assert_equal_datasets(one, tmp_path / f"joined{suffix}")
    with open_writer(tmp_path / f"joined{suffix}", format=format) as writer:
        writer.write_episode(episode(9))
    assert verify(tmp_path / f"joined{suffix}", deep=True).ok


@pytest.mark.parametrize("format", ["hdf5", "folder"])
def test_the_first_part_decides_about_types_and_the_widest_about_texts(tmp_path, format):
    join, suffix = JOINS[format]
    parts = [
        [episode(0, number=np.int32), episode(1, number=np.int64)],
        [episode(2, text="long" * 30, number=np.int64)],
        [episode(3, number=np.int16)],
    ]
    sources = [written(tmp_path / f"{i}{suffix}", format, part) for i, part in enumerate(parts)]
    joined = tmp_path / f"joined{suffix}"
    join(sources, joined, {})
    dataset = load_dataset(joined)
    assert dataset.columns["count"].dtype == np.int32
    assert dataset.read_rows(2, 0, 1)["label"][0] == "long" * 30 + "2"
    assert verify(joined, deep=True).ok
    big = written(tmp_path / f"big{suffix}", format, [{**episode(4), "count": np.arange(5) + 2**40}])
    with pytest.raises(ContractError, match="do not fit into int32"):
        join([sources[0], big], tmp_path / f"not{suffix}", {})


@pytest.mark.parametrize("format", ["hdf5", "folder"])
def test_parts_with_other_columns_are_named(tmp_path, format):
    join, suffix = JOINS[format]
    first = written(tmp_path / f"a{suffix}", format, [episode(0)])
    for name, change in {
        "reward": {"reward": np.zeros(5)},
        "count": {"count": np.zeros((5, 2), np.int64)},
        "label": {"label": np.zeros(5)},
    }.items():
        other = written(tmp_path / f"{name}{suffix}", format, [{**episode(1), **change}])
        with pytest.raises(ContractError, match=f"does not match.*\n.*{name}"):
            join([first, other], tmp_path / f"joined{suffix}", {})
    assert not (tmp_path / f"joined{suffix}").exists()


def test_frames_keep_their_chunks_and_goals_are_stored_once(tmp_path):
    parts = [written(tmp_path / f"{k}.h5", "hdf5", [episode(k)]) for k in range(3)]
    join_files(parts, tmp_path / "joined.h5", {})
    with h5py.File(tmp_path / "joined.h5") as file:
        assert file["pixels"].chunks == (1, 8, 8, 3)
        assert len(file["goal/frames"]) == 3
        assert file["goal/row"][:].tolist() == [0] * 5 + [1] * 5 + [2] * 5
        assert file["ep_offset"][:].tolist() == [0, 5, 10]


def test_frames_of_a_directory_are_linked(tmp_path):
    parts = [written(tmp_path / str(k), "folder", [episode(k)]) for k in range(2)]
    join_directories(parts, tmp_path / "joined", {})
    assert (tmp_path / "joined/pixels/ep_1_step_3.jpeg").samefile(parts[1] / "pixels/ep_0_step_3.jpeg")
    assert len({file.stat().st_ino for file in (tmp_path / "joined/goal").glob("ep_0_*")}) == 1


def test_without_links_frames_are_copied(tmp_path, monkeypatch):
    import os

    episodes = [episode(k) for k in range(4)]
    one = written(tmp_path / "one", "folder", episodes)
    parts = [written(tmp_path / str(k), "folder", episodes[k : k + 2]) for k in (0, 2)]

    def refuse(*arguments):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    join_directories(parts, tmp_path / "joined", {"a": 1})
    monkeypatch.undo()
    assert_equal_datasets(one, tmp_path / "joined")


@pytest.mark.parametrize("column", ["pixels", "goal", "action", "label"])
def test_a_damaged_shard_is_found_before_anything_is_deleted(tmp_path, column):
    for number in (1, 2):
        collect(tmp_path / "d.h5", shards=2, shard=number)
    shard = ShardedRun.open(tmp_path / "d.h5").path_of(2)
    with h5py.File(shard, "r+") as file:
        if column == "goal":
            file["goal/frames"][1, 0, 0, 0] += 1
        elif column == "label":
            file["label"][1] = b"other"
        else:
            values = file[column][2]
            values[...] = 77
            file[column][2] = values
    before = shard.read_bytes()
    with pytest.raises(ContractError, match=f"episode .*differs from what was recorded, in '{column}'"):
        merge_shards(tmp_path / "d.h5", progress=False)
    assert shard.read_bytes() == before
    assert leftovers(tmp_path) == ["d.h5.shards"]


def test_checksums_of_an_undamaged_file_hold(tmp_path):
    check_checksums(written(tmp_path / "a.h5", "hdf5", [episode(k) for k in range(9)]))


@pytest.mark.parametrize("format", ["hdf5", "folder"])
def test_a_shard_whose_writer_was_killed_after_its_last_episode_is_complete(tmp_path, format):
    suffix = JOINS[format][1]
    collect(tmp_path / f"one{suffix}", format=format)
    for number in (1, 2):
        collect(tmp_path / f"d{suffix}", format=format, shards=2, shard=number)
    shard = ShardedRun.open(tmp_path / f"d{suffix}").path_of(2)
    code = (
        "import os, sys; from stable_worldmodel.data import load_dataset, open_writer\n"
        "old, new, format = sys.argv[1:]; d = load_dataset(old, format=format)\n"
        "w = open_writer(new, format=format, metadata=dict(d.metadata)); w.write_episodes(d.iter_episodes())\n"
        "os.kill(os.getpid(), 9)"
    )
    saved = shard.with_name(f"saved{suffix}")
    shard.rename(saved)
    Path(f"{shard}.journal").rename(f"{saved}.journal")
    subprocess.run([sys.executable, "-c", code, str(saved), str(shard), format], check=False, timeout=60)
    assert Path(f"{shard}.lock").exists()
    merge_shards(tmp_path / f"d{suffix}", format=format, progress=False)
    if format == "hdf5":  # the copy was encoded once more otherwise
        assert_equal_datasets(tmp_path / "one.h5", tmp_path / "d.h5")
    assert verify(tmp_path / f"d{suffix}", deep=True).ok


def test_a_foreign_dataset_in_the_place_of_a_shard_is_refused(tmp_path):
    for number in (1, 2):
        collect(tmp_path / "d.h5", 6, shards=2, shard=number)
    run = ShardedRun.open(tmp_path / "d.h5")
    for side in ("", ".journal"):
        Path(f"{run.path_of(1)}{side}").replace(f"{run.path_of(2)}{side}")
    with pytest.raises(ContractError, match="no shard of this run"):
        merge_shards(tmp_path / "d.h5", progress=False)
    with pytest.raises(ContractError, match="no shard of this run"):
        collect(tmp_path / "d.h5", 6, shards=2, cluster=in_turn)


def test_a_dataset_in_the_place_of_the_target_stays(tmp_path):
    for number in (1, 2):
        collect(tmp_path / "d.h5", shards=2, shard=number)
    written(tmp_path / "d.h5", "hdf5", [episode(0)])
    with pytest.raises(FileExistsError):
        merge_shards(tmp_path / "d.h5", progress=False)
    assert load_dataset(tmp_path / "d.h5").num_episodes == 1
    merge_shards(tmp_path / "d.h5", overwrite=True, progress=False)
    assert load_dataset(tmp_path / "d.h5").num_episodes == 7
    assert leftovers(tmp_path, "d.h5") == []
