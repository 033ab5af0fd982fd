"""The reader interface, on a real file."""

import copy
import pickle

import h5py
import numpy as np
import pytest
import torch
from episode_factory import assert_same_episode, make_episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stable_worldmodel.data import HDF5Writer, load_dataset
from stable_worldmodel.data.formats.hdf5 import format as hdf5
from stable_worldmodel.errors import ContractError, MissingKeyError

EPISODES = [make_episode(k) for k in range(6)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "tiny.h5"
    with HDF5Writer(path) as writer:
        writer.write_episodes(EPISODES)
    return path


def image(values):
    return torch.from_numpy(values).movedim(-1, -3)


def assert_equal(found, expected):
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    else:
        assert found == expected


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(num_steps=st.integers(1, 4), frameskip=st.integers(1, 3), data=st.data())
def test_item_is_the_slice_of_its_episode(path, num_steps, frameskip, data):
    ds = load_dataset(path, num_steps=num_steps, frameskip=frameskip)
    i = data.draw(st.integers(0, len(ds) - 1))
    episode, start = ds.clip_indices[i]
    item, source = ds[i], EPISODES[episode]
    strided = slice(start, start + num_steps * frameskip, frameskip)
    assert_equal(item["pixels"], image(source["pixels"][strided]))
    assert_equal(item["reward"], torch.from_numpy(source["reward"][strided]))
    assert_equal(item["grid"], torch.from_numpy(source["grid"][strided]))
    assert item["policy"] == source["policy"][strided]
    for t in range(num_steps):  # entry t: the actions of rows start + tK ... start + tK + K - 1, flat
        first = start + t * frameskip
        assert_equal(item["action"][t], torch.from_numpy(source["action"][first : first + frameskip].reshape(-1)))


def test_batch_is_the_stack_of_its_items(path):
    ds = load_dataset(path, num_steps=3, frameskip=2)
    indices = np.array([5, 0, len(ds) - 1, 5])
    batch, items = ds.get_batch(indices), [ds[int(i)] for i in indices]
    views = ds.__getitems__(indices.tolist())
    for name, values in batch.items():
        expected = [item[name] for item in items]
        assert_equal(values, expected if name == "policy" else torch.stack(expected))
        for view, item in zip(views, items, strict=True):
            assert_equal(view[name], item[name])
    assert batch["pixels"].shape == (4, 3, 3, 16, 16)
    assert batch["pixels"].dtype == torch.uint8
    assert_equal(ds[indices]["action"], batch["action"])


def test_action_is_nan_only_where_a_window_reaches_the_last_row(path):
    ds = load_dataset(path, num_steps=2, frameskip=2)
    for i, (episode, start) in enumerate(ds.clip_indices):
        nan = torch.isnan(ds[i]["action"]).any(-1)
        assert nan.tolist() == [False, start + 4 == ds.lengths[episode]]


def test_scalar_action_gives_one_value_per_row(tmp_path):
    with HDF5Writer(tmp_path / "scalar.h5") as writer:
        writer.write_episode({"action": np.arange(10)})
    item = load_dataset(tmp_path / "scalar.h5", num_steps=2, frameskip=3)[1]
    assert item["action"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_empty_batch_has_the_right_shapes(path):
    batch = load_dataset(path, num_steps=3, frameskip=2).get_batch([])
    assert (batch["action"].shape, batch["pixels"].shape) == ((0, 3, 4), (0, 3, 3, 16, 16))


def test_large_rows_stay_on_disk_and_read_the_same(tmp_path):
    depth = np.random.default_rng(0).normal(size=(12, 40, 40, 1)).astype(np.float32)
    with HDF5Writer(tmp_path / "depth.h5") as writer:
        writer.write_episode({"depth": depth})
    for options in ({}, {"cache": "decoded"}, {"keys_to_cache": ["depth"]}):
        ds = load_dataset(tmp_path / "depth.h5", num_steps=2, **options)
        assert_equal(ds.get_batch([3, 9])["depth"][1], torch.from_numpy(depth[9:11]))


def test_reused_batch_holds_the_new_windows(path):
    ds = load_dataset(path, num_steps=2)
    expected = {name: copy.deepcopy(values) for name, values in ds.get_batch([3, 4]).items()}
    buffer = ds.get_batch([0, 1])
    again = ds.get_batch([3, 4], out=buffer)
    for name, values in again.items():
        assert_equal(values, expected[name])
    assert again["pixels"].data_ptr() == buffer["pixels"].data_ptr()
    with pytest.raises(ContractError, match="batch of the same size"):
        ds.get_batch([1, 2, 3], out=buffer)


def test_transform_sees_the_reshaped_window(path):
    shapes = []

    def transform(item):
        shapes.append(tuple(item["action"].shape))
        return {"double": item["action"] * 2, "n": 1, "policy": item["policy"]}

    ds = load_dataset(path, num_steps=2, frameskip=2, transform=transform)
    batch = ds.get_batch([0, 1])
    assert shapes == [(2, 4), (2, 4)]
    assert batch["double"].shape == (2, 2, 4)
    assert batch["n"].tolist() == [1, 1]
    assert set(ds[0]) == {"double", "n", "policy"}


def test_batch_transform_sees_the_whole_batch(path):
    ds = load_dataset(path, num_steps=2, batch_transform=lambda batch: {"shape": tuple(batch["pixels"].shape)})
    assert ds.get_batch([0, 1, 2]) == {"shape": (3, 2, 3, 16, 16)}


def test_load_chunk_returns_windows_of_the_asked_rows(path):
    ds = load_dataset(path, frameskip=2)
    chunks = ds.load_chunk([1, 4], [0, 1], [4, 5])
    for chunk, episode, start in zip(chunks, (1, 4), (0, 1), strict=True):
        source = EPISODES[episode]
        assert_equal(chunk["pixels"], image(source["pixels"][start : start + 4 : 2]))
        assert_equal(chunk["action"], torch.from_numpy(source["action"][start : start + 4].reshape(2, 4)))


@pytest.mark.parametrize(("start", "end"), [(-2, 2), (0, 100), (4, 2)])
def test_rows_never_leave_their_episode(path, start, end):
    ds = load_dataset(path, frameskip=2)
    with pytest.raises(ContractError, match="expected 0 <= start <= stop"):
        ds.load_chunk([0], start, end)
    with pytest.raises(ContractError, match="expected 0 <= start <= stop"):
        ds.read_rows(0, start, end)
    with pytest.raises(ContractError, match="the dataset has episodes"):
        ds.read_rows(len(EPISODES), 0, 1)


def test_load_chunk_must_divide_by_frameskip(path):
    with pytest.raises(ContractError, match="multiple of frameskip"):
        load_dataset(path, frameskip=2).load_chunk([0], 0, 3)


def test_load_episode_strides_observations_and_keeps_all_actions(path):
    ds = load_dataset(path, frameskip=2)
    source = EPISODES[2]
    episode, raw = ds.load_episode(2), ds.load_episode(2, stride=1)
    assert_equal(episode["pixels"], image(source["pixels"][::2]))
    assert_equal(episode["action"], torch.from_numpy(source["action"]))
    assert_equal(raw["pixels"], image(source["pixels"]))


def test_read_rows_and_iter_episodes_return_what_was_written(path):
    ds = load_dataset(path)
    for found, expected in zip(ds.iter_episodes(), EPISODES, strict=True):
        assert_same_episode(found, expected)
    rows = ds.read_rows(1, 2, 5, ["pixels", "ep_idx"])
    np.testing.assert_array_equal(rows["pixels"], EPISODES[1]["pixels"][2:5])
    assert rows["ep_idx"].tolist() == [1, 1, 1]


def test_derived_columns_come_on_request(path):
    ds = load_dataset(path, num_steps=2, keys_to_load=["episode_idx", "episode_len", "step_idx"])
    item = ds[ds.windows_of([3])[1]]
    assert item["episode_idx"].tolist() == [3, 3]
    assert item["episode_len"].tolist() == [ds.lengths[3]] * 2
    assert item["step_idx"].tolist() == [1, 2]
    assert ds.get_col_data("ep_idx").tolist() == np.repeat(np.arange(6), ds.lengths).tolist()
    assert "ep_idx" not in load_dataset(path).column_names


def test_columns_whole_and_by_row(path):
    ds = load_dataset(path)
    np.testing.assert_array_equal(ds.get_col_data("reward"), np.concatenate([e["reward"] for e in EPISODES]))
    assert ds.get_col_data("policy")[0] == "politique-é-0"
    frames = np.concatenate([e["pixels"] for e in EPISODES])
    rows = ds.get_row_data([7, 3, 7])
    np.testing.assert_array_equal(rows["pixels"], frames[[7, 3, 7]])
    assert ds.get_row_data(3)["pixels"].shape == (16, 16, 3)
    np.testing.assert_array_equal(np.concatenate(list(ds.iter_frames("pixels"))), frames)
    assert (ds.get_dim("grid"), ds.get_dim("reward"), ds.get_dim("pixels")) == (6, 1, 768)
    with pytest.raises(ContractError, match="iter_frames"):
        ds.get_col_data("pixels")
    with pytest.raises(ContractError, match="row index"):
        ds.get_row_data(ds.num_rows)


def test_merged_column_is_the_concatenation(path):
    sources = ["action", "reward"]
    ds = load_dataset(path, num_steps=2, keys_to_load=["pixels"], keys_to_merge={"both": sources})
    merged = np.concatenate([np.c_[e["action"], e["reward"]] for e in EPISODES])
    np.testing.assert_array_equal(ds.get_col_data("both"), merged)
    assert ds[0]["both"].shape == (2, 3)
    assert ds.get_row_data(4)["both"].shape == (3,)
    assert (sources, ds.column_names) == (["action", "reward"], ["pixels", "both"])
    ds.merge_col("(seed|step)", "numbers")
    assert ds.get_dim("numbers") == 2
    for wrong in (["pixels"], ["policy"], "nothing"):
        with pytest.raises(ContractError, match="merge"):
            ds.merge_col(wrong, "target")
    with pytest.raises(ContractError, match="reserved"):
        ds.merge_col(sources, "ep_idx")


def test_unknown_columns_are_named_with_the_known_ones(path):
    with pytest.raises(MissingKeyError, match=r"no column 'pixel'.*'pixels'"):
        load_dataset(path, keys_to_load=["pixel"])
    with pytest.raises(MissingKeyError, match="no column"):
        load_dataset(path, keys_to_cache=["nothing"])


@pytest.mark.parametrize("cache", ["decoded", "none"])
def test_values_do_not_depend_on_the_cache(path, cache):
    plain, cached = load_dataset(path, num_steps=2), load_dataset(path, num_steps=2, cache=cache)
    for _ in range(2):  # the second time from memory
        assert_equal(cached.get_batch([0, 40, 7])["pixels"], plain.get_batch([0, 40, 7])["pixels"])


@pytest.mark.parametrize("cache", ["auto", "none"])
@pytest.mark.parametrize(
    "storage", [{}, {"chunks": True}, {"compression": "gzip"}, {"chunks": "rows", "shuffle": True}]
)
def test_values_do_not_depend_on_how_the_file_stores_them(path, tmp_path, storage, cache):
    with h5py.File(path) as source, h5py.File(tmp_path / "copy.h5", "w") as copied:
        for name, column in source.items():
            chunks = (5, *column.shape[1:]) if storage.get("chunks") == "rows" else storage.get("chunks")
            copied.create_dataset(name, data=column[:], dtype=column.dtype, **{**storage, "chunks": chunks})
    expected = load_dataset(path, num_steps=3, frameskip=2).get_batch([40, 0, 7, 40])
    ds = load_dataset(tmp_path / "copy.h5", num_steps=3, frameskip=2, cache=cache)
    for _ in range(2):
        for name, values in ds.get_batch([40, 0, 7, 40]).items():
            assert_equal(values, expected[name])


def test_values_do_not_depend_on_free_memory(path, monkeypatch):
    expected = load_dataset(path, num_steps=2).get_batch([0, 40, 7])
    monkeypatch.setattr(hdf5, "available_memory", lambda: 1000)
    for name, values in load_dataset(path, num_steps=2).get_batch([0, 40, 7]).items():
        assert_equal(values, expected[name])
    with pytest.raises(ContractError, match="use cache='none'"):
        load_dataset(path, cache="decoded")


@pytest.mark.parametrize("options", [{}, {"cache": "decoded"}])
def test_pickled_dataset_reads_the_same(path, options):
    ds = load_dataset(path, num_steps=2, **options)
    expected = ds.get_batch([1, 9])
    for name, values in pickle.loads(pickle.dumps(ds)).get_batch([1, 9]).items():
        assert_equal(values, expected[name])


@pytest.mark.parametrize("options", [{}, {"cache": "decoded"}])
def test_data_loader_workers_read_the_same(path, options):
    ds = load_dataset(path, num_steps=2, keys_to_load=["pixels", "action"], **options)
    whole = ds.get_batch(np.arange(len(ds)))
    loader = DataLoader(ds, batch_size=16, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    for name, values in whole.items():
        assert_equal(torch.cat([batch[name] for batch in batches]), values)


def test_replaced_file_is_noticed(path, tmp_path):
    copied = tmp_path / "copy.h5"
    copied.write_bytes(path.read_bytes())
    pickled = pickle.dumps(load_dataset(copied))
    with HDF5Writer(copied, "overwrite") as writer:
        writer.write_episode(EPISODES[0])
    with pytest.raises(RuntimeError, match="was replaced"):
        pickle.loads(pickled)[0]


def test_remote_file_reads_the_same(path):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/tiny.h5", "wb") as file:
        file.write(path.read_bytes())
    expected = load_dataset(path, num_steps=2).get_batch([0, 9])
    for name, values in load_dataset("memory://bucket/tiny.h5", num_steps=2).get_batch([0, 9]).items():
        assert_equal(values, expected[name])
