"""Minari datasets read in this package's rows: L + 1 of them, rewards and flags where they arrive."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from stable_worldmodel.data import convert, detect_format, load_dataset, open_writer
from stable_worldmodel.data.formats.minari.format import MinariDataset
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.wrappers.info import INTEGER_ACTION_FILLER

GOLDEN = Path(__file__).parent.parent / "data" / "minari"
STORAGES = ("hdf5-v0", "arrow-v0")


@pytest.fixture(params=["cartpole", "pendulum"])
def golden(request):
    expected = json.loads((GOLDEN / f"expected_{request.param}.json").read_text())
    path = GOLDEN / expected["path"]
    return load_dataset(path, num_steps=expected["num_steps"], frameskip=expected["frameskip"]), expected


@pytest.fixture(params=STORAGES)
def storage(request, tmp_path):
    shutil.copytree(GOLDEN / "views" / request.param, tmp_path / "views-v0")
    return tmp_path / "views-v0"


def test_golden_rows(golden):
    ds, expected = golden
    assert ds.lengths.tolist() == expected["lengths"]
    assert len(ds) == expected["n_items"]
    for name, column in expected["columns"].items():
        values = ds.get_col_data(name)
        assert (values.dtype, list(values.shape[1:])) == (np.dtype(column["dtype"]), column["shape"]), name
        assert np.count_nonzero(np.isnan(values)) == column["nan_count"], name
        np.testing.assert_allclose(np.nansum(values, dtype=np.float64), column["sum"], rtol=1e-12, err_msg=name)
        for row, value in ((0, column["first"]), (-1, column["last"])):
            np.testing.assert_array_equal(values[row].astype(float), np.array(value, dtype=float), err_msg=name)
    observations = np.array(expected["observations"]["observation"], dtype=np.float32)  # of the first episode
    np.testing.assert_array_equal(ds.load_episode(0, stride=1)["observation"], observations)


def test_golden_rows_begin_without_reward_and_end_without_action(golden):
    ds, _ = golden
    for episode in ds.iter_episodes():
        assert np.isnan(episode["reward"][0])
        assert not np.isnan(episode["reward"][1:]).any()
        assert not episode["truncated"][:-1].any()
        assert episode["truncated"][-1]
        assert episode["step_idx"].tolist() == list(range(len(episode["reward"])))
        last = episode["action"][-1]
        assert np.isnan(last).all() if last.dtype.kind == "f" else last == INTEGER_ACTION_FILLER


def test_golden_discrete_actions():
    expected = json.loads((GOLDEN / "expected_cartpole.json").read_text())
    for episode, actions in zip(
        load_dataset(GOLDEN / expected["path"]).iter_episodes(), expected["discrete_actions"], strict=True
    ):
        assert episode["action"][:-1].tolist() == actions


def test_nested_spaces_images_and_infos_in_both_storages(storage):
    ds = load_dataset(storage, num_steps=2)
    assert detect_format(storage).name == "minari"
    with np.load(GOLDEN / "views" / "expected.npz") as expected:
        for i, episode in enumerate(ds.iter_episodes()):
            for name in ("observation.image", "observation.pos", "observation.pair.1", "vec"):
                values = expected[f"{i}/{name.removeprefix('observation.')}"]
                assert (episode[name].dtype, episode[name].shape) == (values.dtype, values.shape)
                error = np.abs(episode[name].astype(float) - values).max()
                assert error <= (3 if "image" in name else 0), name  # two JPEG decoders
            np.testing.assert_array_equal(episode["action"][:-1], expected[f"{i}/action"])
            for name in ("reward", "terminated"):
                np.testing.assert_array_equal(episode[name][1:], expected[f"{i}/{name}"])
            assert set(episode["observation.mission"]) == {"go to"}
    assert ds[0]["observation.image"].shape == (2, 3, 32, 32)
    frames = np.concatenate(list(ds.iter_frames("observation.image")))
    np.testing.assert_array_equal(ds.get_row_data([7, 0, 7])["observation.image"], frames[[7, 0, 7]])


def test_both_storages_read_the_same():
    one, other = (load_dataset(GOLDEN / "views" / name) for name in STORAGES)
    assert one.columns == other.columns
    for a, b in zip(one.iter_episodes(), other.iter_episodes(), strict=True):
        for name, values in a.items():
            np.testing.assert_array_equal(values, b[name], err_msg=name)


@pytest.mark.parametrize("place", ["", "data", "data/main_data.hdf5"])
def test_a_dataset_is_known_by_its_directory_or_main_file(place):
    path = GOLDEN / "pendulum" / "tiny-v0" / place
    assert detect_format(path).name == "minari"
    assert load_dataset(path).num_episodes == 3


def test_a_dataset_is_found_by_its_id(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(GOLDEN))
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    assert load_dataset("minari://pendulum/tiny-v0").num_episodes == 3
    assert MinariDataset("pendulum/tiny-v0").metadata["dataset_id"] == "pendulum/tiny-v0"
    for name in ("pendulum/tiny-v9", "../pendulum/tiny-v0", str(tmp_path)):
        with pytest.raises((NotFoundError, ContractError)):
            MinariDataset(name)
    with pytest.raises(TypeError, match="`name` or `path`"):
        MinariDataset()


def test_it_is_read_only(tmp_path):
    with pytest.raises(NotImplementedError, match="cannot be written"):
        open_writer(tmp_path / "x", "minari")


def test_a_copy_in_another_format_is_the_same(storage, tmp_path):
    copy = convert(storage, tmp_path / "copy", dest_format="hdf5", progress=False)
    for a, b in zip(load_dataset(storage).iter_episodes(), load_dataset(copy).iter_episodes(), strict=True):
        assert a.keys() == b.keys()
        for name, values in a.items():
            np.testing.assert_array_equal(values, b[name], err_msg=name)


def test_damaged_files_are_named(storage):
    file = next(file for file in (storage / "data").rglob("*") if file.suffix in (".hdf5", ".arrow"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ContractError, match=file.name):
        load_dataset(storage)


def test_damaged_metadata_is_named(storage):
    (storage / "data" / "metadata.json").write_text("{")
    with pytest.raises(ContractError, match=r"metadata\.json: damaged"):
        load_dataset(storage)


def test_a_missing_array_is_named(tmp_path):
    shutil.copytree(GOLDEN / "pendulum" / "tiny-v0", tmp_path / "set")
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "r+") as file:
        del file["episode_1/actions"]
    with pytest.raises(ContractError, match="episode 1, actions"):
        load_dataset(tmp_path / "set")


def test_a_short_array_is_named(tmp_path):
    shutil.copytree(GOLDEN / "pendulum" / "tiny-v0", tmp_path / "set")
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "r+") as file:
        rewards = file["episode_1/rewards"][:-2]
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = rewards
    with pytest.raises(ContractError, match=r"episode 1, 'reward': expected \(11,\), found \(9,\)"):
        load_dataset(tmp_path / "set")
