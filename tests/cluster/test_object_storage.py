"""Shards and datasets behind URLs: the same dataset as on one disk, and nothing half there."""

from __future__ import annotations

import itertools
import json

import fsspec
import pytest
from shard_tools import assert_equal_datasets, collect, in_turn
from typer.testing import CliRunner

from stable_worldmodel.cli import app
from stable_worldmodel.cluster import merge_shards, remote
from stable_worldmodel.data import load_dataset
from stable_worldmodel.errors import ContractError, NotFoundError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A place for objects, and a data root of this test's own."""
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "home"))
    return f"memory://{tmp_path.name}"


def fetched(url, folder):
    """The dataset behind a URL, with its journal, as a file."""
    files, path = fsspec.core.url_to_fs(url)
    for side in ("", ".journal"):
        files.get_file(path + side, str(folder / f"fetched.h5{side}"))
    return folder / "fetched.h5"


def objects(root):
    files, path = fsspec.core.url_to_fs(root)
    return sorted(name.rpartition("/")[2] for name in files.find(path)) if files.exists(path) else []


def staged(tmp_path):
    return [path.name for path in (tmp_path / "home").rglob("*.h5")]


def test_shards_in_a_store_become_the_dataset_that_one_machine_records(root, tmp_path):
    collect(tmp_path / "one.h5")
    collect(f"{root}/d.h5", cluster=in_turn, shards=3)
    assert_equal_datasets(tmp_path / "one.h5", fetched(f"{root}/d.h5", tmp_path))
    assert objects(root) == ["d.h5", "d.h5.journal"]
    assert staged(tmp_path) == []
    assert load_dataset(f"{root}/d.h5").num_episodes == 7


def test_worker_processes_upload_their_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "home"))
    collect(tmp_path / "one.h5")
    url = f"file://{tmp_path}/store/d.h5"
    collect(url, cluster="local", shards=3, cluster_options={"workers": 2})
    assert_equal_datasets(tmp_path / "one.h5", tmp_path / "store" / "d.h5")
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["d.h5", "d.h5.journal"]


def test_by_hand_in_any_order_and_twice(root, tmp_path):
    collect(tmp_path / "one.h5")
    url = f"{root}/d.h5"
    for number in (3, 1, 3):
        collect(url, shards=3, shard=number)
    with pytest.raises(ContractError, match="shard 2/3: missing"):
        merge_shards(url, progress=False)
    collect(url, shards=3, shard=2)
    assert staged(tmp_path) == []
    assert merge_shards(url, progress=False) == url
    assert_equal_datasets(tmp_path / "one.h5", fetched(url, tmp_path))
    collect(url, shards=3, shard=2, mode="resume")  # comes late: nothing is left to do
    assert objects(root) == ["d.h5", "d.h5.journal"]


class Killed(BaseException):
    """Stands for the end of the process."""


def dying(function, nth):
    """The function, whose call number `nth` is the process's last."""
    calls = itertools.count()

    def dies(*arguments):
        if next(calls) == nth:
            raise Killed
        return function(*arguments)

    return dies


@pytest.mark.parametrize("step", ["put", "fetch", "publish", "_upload"])
def test_what_was_killed_goes_on(root, tmp_path, monkeypatch, step):
    collect(tmp_path / "one.h5")
    url = f"{root}/d.h5"
    home = remote if step == "_upload" else remote.Store
    for nth in range(12):
        with monkeypatch.context() as patch:
            patch.setattr(home, step, dying(getattr(home, step), nth))
            try:
                collect(url, cluster=in_turn, shards=3, mode="resume")
            except Killed:
                continue
        break
    assert_equal_datasets(tmp_path / "one.h5", fetched(url, tmp_path))
    assert objects(root) == ["d.h5", "d.h5.journal"]


def test_another_run_and_an_existing_dataset_are_refused(root, tmp_path):
    url = f"{root}/d.h5"
    collect(url, shards=3, shard=1)
    with pytest.raises(ContractError, match="seed 0 instead of 1"):
        collect(url, shards=3, shard=2, seed=1)
    with pytest.raises(ContractError, match="shards 3 instead of 2"):
        collect(url, shards=2, shard=2)
    collect(url, cluster=in_turn, shards=3)
    with pytest.raises(FileExistsError, match="exists"):
        collect(url, cluster=in_turn, shards=3)
    with pytest.raises(ContractError, match="objects cannot grow"):
        collect(url, 9, cluster=in_turn, shards=3, mode="resume")
    collect(url, 4, cluster=in_turn, shards=2, mode="overwrite")
    assert load_dataset(url).num_episodes == 4
    with pytest.raises(NotFoundError, match="no shards"):
        merge_shards(f"{root}/none.h5", progress=False)


@pytest.mark.parametrize("name", ["d.lance", "d", ""])
def test_only_single_files_go_to_a_store(root, name):
    with pytest.raises(ContractError, match="HDF5"):
        collect(f"{root}/{name}", cluster=in_turn, shards=2)


def test_the_command_line(root, tmp_path):
    url, words = f"{root}/rooms.h5", ["collect", "TwoRoom-v1", "--episodes", "3", "--max-steps", "5", "--num-envs", "1"]
    run = CliRunner().invoke
    assert run(app, [*words, "--out", url]).exit_code != 0  # a URL takes shards only
    for shard in ("1/2", "2/2"):
        done = run(app, [*words, "--out", url, "--shard", shard, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["path"] == url
    assert run(app, ["merge", url]).exit_code == 0
    assert load_dataset(url).num_episodes == 3
