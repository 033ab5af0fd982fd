"""Dataset classes of earlier releases keep their attributes and their rules."""

import numpy as np
import pytest
import torch
from episode_factory import make_episode
from toy_dataset import make_dataset

from stable_worldmodel import data
from stable_worldmodel.data import FrameDataset, HDF5Writer, HFDataset, InjectedDataset, StepsDataset, load_dataset
from stable_worldmodel.errors import ContractError, NotFoundError

LENGTHS = [6, 9, 7]
EPISODES = [make_episode(k, rows) for k, rows in enumerate(LENGTHS)]


@pytest.fixture
def path(tmp_path):
    with HDF5Writer(tmp_path / "steps.h5") as writer:
        writer.write_episodes(EPISODES)
    return tmp_path / "steps.h5"


def test_steps_have_the_attributes_of_the_first_releases(path):
    ds = StepsDataset(path)
    assert isinstance(ds, HFDataset)
    assert (ds.num_steps, ds.frameskip, ds.data_dir) == (2, 1, path)
    assert ds.episodes.tolist() == [0, 1, 2]
    assert {episode: rows.tolist() for episode, rows in ds.episode_slices.items()} == {
        0: list(range(6)),
        1: list(range(6, 15)),
        2: list(range(15, 22)),
    }
    assert ds.cum_slices.tolist() == [0, 5, 13, 19]
    assert len(ds) == 19
    assert ds.idx_to_ep.tolist() == [0] * 5 + [1] * 8 + [2] * 6
    assert ds.img_cols == ds.infer_img_path_columns() == ["pixels"]
    ids = ds.get_col_data("episode_idx")
    assert ds.get_episode_slice(1, ids).tolist() == list(range(6, 15))
    with pytest.raises(ContractError, match="no row has the episode id 9"):
        ds.get_episode_slice(9, ids)


def test_texts_that_are_image_paths_count_as_image_columns(tmp_path):
    with HDF5Writer(tmp_path / "paths.h5") as writer:
        writer.write_episode({**make_episode(0, 4), "view": ["img/0/0_view.jpeg"] * 4, "note": ["x"] * 4})
    assert StepsDataset(tmp_path / "paths.h5").infer_img_path_columns() == ["pixels", "view"]


def test_items_of_steps_are_windows(path):
    ds, plain = StepsDataset(path, frameskip=2), load_dataset(path, num_steps=2, frameskip=2)
    assert len(ds) == len(plain)
    for i in (0, 5, -1):
        for name, value in plain[i].items():
            found = ds[i][name]
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(found, value, equal_nan=True)
            else:
                assert found == value
    assert ds.get_batch([0, 1])["action"].shape == (2, 2, 4)


def test_transform_of_steps_sees_dense_actions_and_the_item_has_blocks(path):
    seen = []

    def transform(item):
        seen.append(tuple(item["action"].shape))
        return {**item, "action": item["action"] + 1}

    ds = StepsDataset(path, num_steps=3, frameskip=2, transform=transform)
    item = ds[1]
    assert seen == [(6, 2)]
    torch.testing.assert_close(item["action"], torch.from_numpy(EPISODES[1]["action"][:6] + 1).reshape(3, 4))
    assert ds.get_batch([0, 1])["action"].shape == (2, 3, 4)


def test_steps_are_looked_up_by_name(path, tmp_path, monkeypatch):
    assert StepsDataset("steps", cache_dir=tmp_path).data_dir == path
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    assert len(StepsDataset("steps", "hdf5", num_steps=1)) == sum(LENGTHS)
    with pytest.raises(NotFoundError):
        StepsDataset("absent")


def test_steps_refuse_short_episodes_and_missing_columns(path, tmp_path):
    assert len(StepsDataset(path, num_steps=3, frameskip=2)) == 1 + 4 + 2  # an episode may fit exactly
    with pytest.raises(ValueError, match="episode 0 has 6 rows: expected at least 7"):
        StepsDataset(path, num_steps=7)
    with HDF5Writer(tmp_path / "bare.h5") as writer:
        writer.write_episode({"pixels": EPISODES[0]["pixels"]})
    with pytest.raises(ContractError, match=r"\['step_idx', 'action'\] are missing"):
        StepsDataset(tmp_path / "bare.h5")


def test_frames_are_windows_of_a_share_of_the_episodes(path):
    ds = FrameDataset(path, num_steps=2, subset_prop=0.5)
    assert list(ds.clip_indices) == [(0, s) for s in range(5)] + [(1, s) for s in range(8)]
    torch.testing.assert_close(ds[6]["reward"], torch.from_numpy(EPISODES[1]["reward"][1:3]))
    assert "pixels" not in FrameDataset(path, decode_columns=[])[0]
    assert FrameDataset(path, device="cpu")[0]["pixels"].device.type == "cpu"
    assert FrameDataset(path, transform=lambda item: {"n": len(item)})[0] == {"n": 8}
    with pytest.raises(ValueError, match="no window of 10 rows"):
        FrameDataset(path, num_steps=10)
    with pytest.raises(ContractError, match="subset_prop"):
        FrameDataset(path, subset_prop=0)


def test_whole_trajectories_are_items_of_their_length(path):
    ds = FrameDataset(path, frameskip=2, num_steps=-1)
    assert len(ds) == 3
    assert [tuple(ds[i]["pixels"].shape) for i in range(3)] == [(3, 3, 16, 16), (4, 3, 16, 16), (3, 3, 16, 16)]
    assert ds[-1]["action"].shape == (3, 4)
    assert len(list(ds)) == 3
    with pytest.raises(IndexError):
        ds[3]


def test_injection_replaces_windows_by_proportion():
    original, external = make_dataset([400], 1, num_steps=2), make_dataset([50], 2, num_steps=2)
    ds = InjectedDataset(original, external, (0.75, 0.25), seed=0)
    assert len(ds) == len(original) == 399
    rows = ds.get_batch(np.arange(399))["row"][:, 0].numpy()
    kept = rows < 2000
    assert abs(kept.mean() - 0.75) < 0.08
    assert (rows[kept] == 1000 + np.flatnonzero(kept)).all()
    assert len(np.unique(rows[~kept])) > 25
    assert [ds[i]["row"][0].item() for i in range(-5, 0)] == rows[-5:].tolist()
    same = InjectedDataset(original, external, (0.75, 0.25), seed=0).get_batch(np.arange(399))["row"]
    assert same[:, 0].tolist() == rows.tolist()
    assert len(list(ds)) == 399
    with pytest.raises(ContractError, match="two numbers >= 0 with sum 1"):
        InjectedDataset(original, external, (1, 1), seed=0)


def test_modules_of_earlier_releases_have_their_names():
    assert data.buffer.ReplayBuffer is data.ReplayBuffer
    assert data.dataset.ConcatDataset is data.ConcatDataset
    assert data.dataset.HDF5Dataset is data.HDF5Dataset
    assert data.utils.list_datasets is data.list_datasets
    with pytest.raises(AttributeError, match="Nothing"):
        data.dataset.Nothing
