"""`World.collect` in shards: equal to one machine's dataset, whatever comes in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_tools import assert_equal_datasets, collect, in_turn, leftovers
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.cluster.merge import merge_shards
from stable_worldmodel.cluster.shards import ShardedRun
from stable_worldmodel.data import DatasetLockedError, load_dataset, open_writer
from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

FORMATS = ["hdf5", "folder", "video", "lance", "hf_arrow"]


@pytest.mark.parametrize("format", FORMATS)
def test_shards_become_the_dataset_that_one_machine_records(tmp_path, format):
    collect(tmp_path / "one", format=format)
    collect(tmp_path / "many", format=format, cluster=in_turn, shards=3)
    names = [path.name for path in tmp_path.iterdir()]
    one, many = (next(name for name in sorted(names) if name.startswith(begin)) for begin in ("one", "many"))
    assert not [name for name in names if "shard" in name]
    assert_equal_datasets(tmp_path / one, tmp_path / many)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9).flatmap(lambda e: st.tuples(st.just(e), st.integers(1, e))), st.integers(1, 3), st.data())
def test_any_split_gives_the_same_rows(tmp_path_factory, sizes, num_envs, data):
    episodes, shards = sizes
    folder = tmp_path_factory.mktemp("split")
    format = data.draw(st.sampled_from(["hdf5", "folder"]))
    collect(folder / "one", episodes, num_envs=1, format=format)
    collect(folder / "many", episodes, num_envs=num_envs, format=format, cluster=in_turn, shards=shards)
    suffix = ".h5" if format == "hdf5" else ""
    assert_equal_datasets(folder / f"one{suffix}", folder / f"many{suffix}")


def test_shards_by_hand_in_any_order_and_twice(tmp_path):
    collect(tmp_path / "one.h5")
    for number in (3, 1, 3, 2):
        collect(tmp_path / "d.h5", shards=3, shard=number)
    merge_shards(tmp_path / "d.h5", progress=False)
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "d.h5")
    assert leftovers(tmp_path, "one.h5", "d.h5") == []
    collect(tmp_path / "d.h5", shards=3, shard=2, mode="resume")  # comes late: nothing is left to do
    assert leftovers(tmp_path, "one.h5", "d.h5") == []


def test_a_half_recorded_shard_goes_on_where_it_was(tmp_path):
    collect(tmp_path / "one.h5", 9)
    whole, half = tmp_path / "whole.h5", tmp_path / "half.h5"
    collect(whole, 9, shards=2, shard=2)
    complete = ShardedRun.open(whole).path_of(2)
    collect(half, 9, shards=2, shard=1)
    shard = ShardedRun.open(half).path_of(2)
    metadata = load_dataset(complete).metadata
    with open_writer(shard, metadata=metadata) as writer:
        for _, episode in zip(range(2), load_dataset(complete).iter_episodes(), strict=False):
            writer.write_episode(episode)
    assert "2 of 5 episodes" in ShardedRun.open(half).describe(2)
    with pytest.raises(ContractError, match=r"shard 2/2: 2 of 5 episodes"):
        merge_shards(half, progress=False)
    collect(half, 9, shards=2, shard=2)
    merge_shards(half, progress=False)
    assert_equal_datasets(tmp_path / "one.h5", half)


def test_only_what_is_missing_is_recorded(tmp_path):
    seen = []

    def counting(function, jobs, tick=None):
        seen.extend(job.number for job in jobs)
        return in_turn(function, jobs)

    collect(tmp_path / "d.h5", shards=4, shard=2)
    collect(tmp_path / "d.h5", cluster=counting, shards=4)
    assert seen == [1, 3, 4]


def test_options_per_episode_and_per_env_reach_their_episodes(tmp_path):
    for options in ([{"n": k} for k in range(7)], [{"n": 0}, {"n": 1}]):
        name = str(len(options))
        collect(tmp_path / f"one{name}.h5", options=options)
        collect(tmp_path / f"many{name}.h5", options=options, cluster=in_turn, shards=3)
        assert_equal_datasets(tmp_path / f"one{name}.h5", tmp_path / f"many{name}.h5")
    with pytest.raises(ContractError, match="options has 3 items"):
        collect(tmp_path / "d.h5", options=[{}] * 3, cluster=in_turn, shards=3)


def test_a_merged_dataset_is_continued_like_any_other(tmp_path):
    for format, suffix in (("hdf5", ".h5"), ("folder", "")):
        collect(tmp_path / f"one_{format}", 9, format=format)
        collect(tmp_path / f"many_{format}", 6, format=format, cluster=in_turn, shards=3)
        collect(tmp_path / f"many_{format}", 1, format=format)
        collect(tmp_path / f"many_{format}", 9, format=format, mode="resume")
        assert_equal_datasets(tmp_path / f"one_{format}{suffix}", tmp_path / f"many_{format}{suffix}")


def test_wrappers_policies_and_registrations_travel(tmp_path):
    """In processes that know nothing of the toy envs, with what cloudpickle alone can send."""
    import gymnasium as gym

    class Shifted(gym.Wrapper):
        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            return observation, reward + 5, *rest

    class Constant:
        type = "constant"

        def set_env(self, env):
            self.env = env

        def get_action(self, info):
            return np.full(self.env.action_space.shape, 0.25, np.float32)

    for name, more in (("one", {}), ("many", {"cluster": "local", "shards": 2, "cluster_options": {"workers": 2}})):
        with World("toy/Coin-v0", 2, add_pixels=False, verbose=0, pre_wrappers=[lambda env: Shifted(env)]) as world:
            world.set_policy(RandomPolicy(seed=3))
            world.collect(tmp_path / f"{name}.h5", 4, seed=0, progress=False, **more)
        with World("toy/Walk-v0", 2, (8, 8), verbose=0) as world:
            world.set_policy(Constant())
            world.collect(tmp_path / f"{name}_constant.h5", 4, seed=0, progress=False, **more)
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "many.h5")
    assert_equal_datasets(tmp_path / "one_constant.h5", tmp_path / "many_constant.h5")
    assert np.nanmax(load_dataset(tmp_path / "many.h5").get_col_data("reward")) >= 5


def test_a_large_policy_lies_in_a_file(tmp_path):
    collect(tmp_path / "one.h5")
    with World("toy/Walk-v0", 2, (8, 8), verbose=0, max_length=6) as world:
        policy = RandomPolicy(seed=1)
        policy._weights = np.zeros(1 << 20)
        world.set_policy(policy)

        def looking(function, jobs, tick=None):
            assert Path(jobs[0].world).stat().st_size > 1 << 20
            return in_turn(function, jobs)

        world.collect(tmp_path / "d.h5", 7, seed=0, progress=False, cluster=looking, shards=2)
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "d.h5")
    assert leftovers(tmp_path, "one.h5", "d.h5") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": None, "cluster": in_turn}, "need a seed"),
        ({"cluster": in_turn, "shards": 8}, "from 1 to the number of episodes, 7"),
        ({"cluster": in_turn, "shards": 0}, "from 1 to the number of episodes, 7"),
        ({"shards": 3}, "either cluster="),
        ({"shards": 3, "shard": 1, "cluster": in_turn}, "either cluster="),
        ({"shard": 1}, "also give shards="),
        ({"shards": 3, "shard": 4}, "from 1 to 3"),
        ({"shards": 3, "shard": 1, "cluster_options": {"workers": 1}}, "cluster_options belong"),
        ({"cluster": "cloud"}, "local"),
        ({"cluster": 3}, "Executor"),
        ({"cluster": in_turn, "cluster_options": {"workers": 1}}, "open already"),
        ({"cluster": in_turn, "mode": "again"}, "mode='again'"),
    ],
)
def test_wrong_arguments_raise_before_anything_is_recorded(tmp_path, options, message):
    with pytest.raises(ContractError, match=message):
        collect(tmp_path / "d.h5", **options)
    assert not list(tmp_path.rglob("*.h5"))


def test_what_cannot_travel_is_refused(tmp_path):
    import gymnasium as gym

    envs = gym.vector.SyncVectorEnv([lambda: gym.make("toy/Coin-v0")] * 2)
    with World(envs, image_shape=(8, 8), verbose=0, add_pixels=False) as world:
        world.set_policy(RandomPolicy(seed=1))
        with pytest.raises(ContractError, match="built already"):
            world.collect(tmp_path / "d.h5", 4, seed=0, cluster=in_turn, shards=2)
    with World("toy/Walk-v0", 2, (8, 8), verbose=0) as world:
        policy = RandomPolicy(seed=1)
        policy._file = (tmp_path / "open").open("w")
        world.set_policy(policy)
        with policy._file, pytest.raises(ContractError, match="cannot be sent"):
            world.collect(tmp_path / "e.h5", 4, seed=0, cluster=in_turn, shards=2)
        with pytest.raises(ContractError, match="path= instead of writer="):
            world.collect(writer=open_writer(tmp_path / "f.h5"), episodes=4, seed=0, cluster=in_turn)


@pytest.mark.parametrize(
    "other", [{"seed": 5}, {"policy_seed": 5}, {"max_length": 5}, {"episodes": 8}, {"options": {"a": 1}}, {"shards": 4}]
)
def test_shards_of_another_run_are_refused(tmp_path, other):
    collect(tmp_path / "d.h5", shards=3, shard=1)
    before = ShardedRun.open(tmp_path / "d.h5").path_of(1).read_bytes()
    with pytest.raises(ContractError, match="shards of another run"):
        collect(tmp_path / "d.h5", **{"shards": 3, "cluster": in_turn, **other})
    assert ShardedRun.open(tmp_path / "d.h5").path_of(1).read_bytes() == before


def test_a_dataset_that_exists_is_replaced_only_on_request(tmp_path):
    collect(tmp_path / "d.h5", 3, seed=9)
    for mode in ("append", "error"):
        with pytest.raises(FileExistsError, match=r"d\.h5 exists"):
            collect(tmp_path / "d.h5", mode=mode, cluster=in_turn, shards=2)
    with pytest.raises(ContractError, match="cannot resume"):
        collect(tmp_path / "d.h5", mode="resume", cluster=in_turn, shards=2)
    with pytest.raises(ContractError, match="3 of 7 episodes"):
        collect(tmp_path / "d.h5", seed=9, mode="resume", cluster=in_turn, shards=2)
    collect(tmp_path / "d.h5", mode="overwrite", cluster=in_turn, shards=2)
    collect(tmp_path / "one.h5")
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "d.h5")
    collect(tmp_path / "d.h5", mode="resume", cluster=in_turn, shards=2)  # nothing is left to do
    assert leftovers(tmp_path, "one.h5", "d.h5") == []


def test_a_shard_that_somebody_records_is_refused_with_who_it_is(tmp_path):
    collect(tmp_path / "d.h5", shards=2, shard=1)
    run = ShardedRun.open(tmp_path / "d.h5")
    code = "import sys, time; from stable_worldmodel.data.lock import WriterLock; from pathlib import Path\n"
    code += "with WriterLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(run.path_of(2))], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(DatasetLockedError, match=f'"pid": {other.pid}'):
            collect(tmp_path / "d.h5", shards=2, shard=2)
        with pytest.raises(ContractError, match=f'shard 2/2: missing, being written by .*"pid": {other.pid}'):
            merge_shards(tmp_path / "d.h5", progress=False)
    finally:
        other.kill()
        other.communicate()
    collect(tmp_path / "d.h5", shards=2, shard=2)
    merge_shards(tmp_path / "d.h5", progress=False)
    assert load_dataset(tmp_path / "d.h5").num_episodes == 7


# -- the command line --------------------------------------------------------------------------------------------------

COMMAND = ["collect", "TwoRoom-v1", "--num-envs", "2", "--image-size", "32", "--max-steps", "5", "--episodes", "5"]


def swm(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_shards_and_merge_at_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert swm(*COMMAND, "-o", "one.h5").exit_code == 0
    first = swm(*COMMAND, "-o", "d.h5", "--shard", "1/2")
    assert first.exit_code == 0, first.output
    assert "shard 1/2: 2 of 2 episodes" in first.output
    assert "swm merge d.h5" in first.output
    early = swm("merge", "d.h5")
    assert early.exit_code == 1
    assert "shard 2/2: missing" in early.output
    second = swm(*COMMAND, "-o", "d.h5", "--shard", "2/2", "--json")
    assert json.loads(second.stdout) == {
        "path": "d.h5.shards/00002-of-00002.h5",
        "shard": 2,
        "shards": 2,
        "episodes": 3,
    }
    merged = swm("merge", "d.h5")
    assert merged.exit_code == 0, merged.output
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "d.h5")
    assert "no shards" in swm("merge", "other.h5").output


def test_merge_finds_shards_of_any_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shard in ("1/2", "2/2"):
        assert swm(*COMMAND, "-o", "frames", "--format", "folder", "--shard", shard).exit_code == 0
    assert swm("merge", "frames").exit_code == 0
    assert load_dataset("frames").num_episodes == 5
    assert leftovers(tmp_path, "frames", "home") == []  # the data root of the test


def test_a_cluster_at_the_command_line(tmp_path):
    options = ["--cluster", "local", "--shards", 2, "--cluster-option", "workers=1"]
    assert swm(*COMMAND, "-o", tmp_path / "one.h5").exit_code == 0
    done = swm(*COMMAND, "-o", tmp_path / "d.h5", *options)
    assert done.exit_code == 0, done.output
    assert "cluster='local', shards=2" in done.output
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "d.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "0/2"], "from 1 to 2"),
        (["--shard", "3/2"], "from 1 to 2"),
        (["--shard", "1"], "NUMBER/SHARDS"),
        (["--shard", "1/2", "--cluster", "local"], "leave out"),
        (["--shards", "2"], "only with --cluster"),
        (["--cluster", "cloud"], "local"),
        (["--shard", "1/6"], "from 1 to the number of episodes, 5"),
    ],
)
def test_wrong_options_end_with_one_line(tmp_path, options, message):
    done = swm(*COMMAND, "-o", tmp_path / "d.h5", *options)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_merge_of_several_datasets_still_needs_a_name(tmp_path):
    done = swm("merge", tmp_path / "a.h5", tmp_path / "b.h5")
    assert done.exit_code == 1
    assert "--output" in done.output
