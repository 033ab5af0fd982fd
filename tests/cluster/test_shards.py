"""Which episodes a shard has, and what is written down about a run."""

from __future__ import annotations

import itertools
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel.cluster.shards import (
    RUN_FILE,
    ShardedRun,
    check_shards,
    episodes_of,
    parse_shard,
    shards_folder,
)
from stable_worldmodel.errors import ContractError, NotFoundError

WHAT = {"env": {"id": "toy"}, "policy": {"type": "random"}, "seed": 0, "options": None, "writer": {}}


@given(st.integers(1, 10**6).flatmap(lambda e: st.tuples(st.just(e), st.integers(1, min(e, 300)))))
def test_shards_are_a_partition_into_contiguous_ranges_of_almost_equal_length(sizes):
    episodes, shards = sizes
    ranges = [episodes_of(number, shards, episodes) for number in range(1, shards + 1)]
    assert [ranges[0].start, ranges[-1].stop] == [0, episodes]
    assert all(a.stop == b.start for a, b in itertools.pairwise(ranges))
    lengths = {len(span) for span in ranges}
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("number", [0, 5, -1, 1.0, True, "1"])
def test_numbers_of_shards_go_from_one_to_their_number(number):
    with pytest.raises(ContractError, match="from 1 to 4"):
        episodes_of(number, 4, 10)


@pytest.mark.parametrize("shards", [0, 11, -1, 2.0, True, "2"])
def test_there_are_no_more_shards_than_episodes(shards):
    with pytest.raises(ContractError, match="from 1 to the number of episodes, 10"):
        check_shards(shards, 10)


def test_a_shard_is_named_by_two_numbers():
    assert parse_shard("3/64") == (3, 64)
    for text in ("3", "3/", "/64", "a/b", "3/64/1", "-1/4", "", "٣/4"):
        with pytest.raises(ContractError, match="NUMBER/SHARDS"):
            parse_shard(text)
    for text in ("0/4", "5/4", "0/0"):
        with pytest.raises(ContractError, match="from 1 to"):
            parse_shard(text)


def test_a_run_is_written_down_once_and_joined_by_the_same_run_only(tmp_path):
    run = ShardedRun.begin(tmp_path / "d.h5", None, 10, 4, WHAT)
    written = (run.folder / RUN_FILE).read_bytes()
    assert ShardedRun.begin(tmp_path / "d.h5", None, 10, 4, WHAT) == run == ShardedRun.open(tmp_path / "d.h5")
    for episodes, shards, what, named in (
        (11, 4, WHAT, "episodes 10 instead of 11"),
        (10, 5, WHAT, "shards 4 instead of 5"),
        (10, 4, {**WHAT, "seed": 3}, "seed 0 instead of 3"),
        (10, 4, {**WHAT, "writer": {"quality": 3}}, "writer"),
    ):
        with pytest.raises(ContractError, match=named):
            ShardedRun.begin(tmp_path / "d.h5", None, episodes, shards, what)
    assert (run.folder / RUN_FILE).read_bytes() == written
    assert [path.name for path in run.folder.iterdir()] == [RUN_FILE]


def test_of_many_that_write_a_run_down_at_once_all_join_the_same(tmp_path):
    outcomes, ready = [], threading.Barrier(8)

    def begin(seed):
        ready.wait()
        try:
            outcomes.append(ShardedRun.begin(tmp_path / "d.h5", None, 10, 4, {**WHAT, "seed": seed}).content["seed"])
        except ContractError:
            outcomes.append(None)

    threads = [threading.Thread(target=begin, args=(seed % 2,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = json.loads((shards_folder(tmp_path / "d.h5") / RUN_FILE).read_text())["seed"]
    assert sorted(map(str, outcomes)) == sorted([str(written)] * 4 + ["None"] * 4)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"d\.h5 has no shards"):
        ShardedRun.open(tmp_path / "d.h5")
    shards_folder(tmp_path / "d.h5").mkdir()
    for content in ("{", "[]", '{"version": 99}'):
        (shards_folder(tmp_path / "d.h5") / RUN_FILE).write_text(content)
        with pytest.raises(ContractError, match=r"run\.json"):
            ShardedRun.open(tmp_path / "d.h5")


def test_shards_are_no_datasets_of_the_data_folder(tmp_path, monkeypatch):
    from stable_worldmodel.data import list_datasets, open_writer

    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    run = ShardedRun.begin(tmp_path / "d.h5", None, 10, 4, WHAT)
    with open_writer(run.path_of(1)) as writer:
        writer.write_episode({"action": [0.0]})
    assert list_datasets() == []
