"""Concatenation and merge obey the laws of datasets, whatever they are made of."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from episode_factory import assert_same_episode, make_episode
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from toy_dataset import ArrayDataset, WithConstants, make_columns, make_dataset

from stable_worldmodel import data
from stable_worldmodel.data import ConcatDataset, HDF5Writer, MergeDataset, load_dataset
from stable_worldmodel.errors import ContractError, MissingKeyError

lengths = st.lists(st.integers(2, 9), min_size=1, max_size=4).filter(lambda values: max(values) >= 6)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)
        else:
            assert found[name] == value


def double(item):
    return {**item, "action": item["action"] * 2}


def shrink(item):
    return {**item, "pixels": item["pixels"][..., :2, :2]}


# -- concatenation ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(lengths, min_size=1, max_size=3), st.integers(1, 2), st.integers(1, 2), st.booleans(), st.data())
def test_windows_of_a_concatenation_are_those_of_its_parts_in_order(parts, num_steps, frameskip, transformed, data):
    options = {"num_steps": num_steps, "frameskip": frameskip, "transform": double if transformed else None}
    datasets = [make_dataset(values, seed, **options) for seed, values in enumerate(parts)]
    whole = ConcatDataset(datasets)
    items = [dataset[i] for dataset in datasets for i in range(len(dataset))]
    assert len(whole) == len(items)
    chosen = data.draw(st.lists(st.integers(-len(items), len(items) - 1), min_size=1, max_size=12))
    batch = whole.get_batch(chosen)
    for position, i in enumerate(chosen):
        assert_equal(whole[i], items[i])
        assert_equal({name: values[position] for name, values in batch.items()}, items[i])
    for found, i in zip(whole.__getitems__(chosen), chosen, strict=True):
        assert_equal(found, items[i])


@settings(deadline=None, max_examples=30)
@given(st.lists(lengths, min_size=1, max_size=3))
def test_rows_and_episodes_of_a_concatenation_are_those_of_its_parts(parts):
    datasets = [make_dataset(values, seed) for seed, values in enumerate(parts)]
    whole = ConcatDataset(datasets)
    assert whole.lengths.tolist() == [length for values in parts for length in values]
    np.testing.assert_array_equal(whole.offsets, np.cumsum(whole.lengths) - whole.lengths)
    np.testing.assert_array_equal(
        whole.get_col_data("row"), np.concatenate([dataset.get_col_data("row") for dataset in datasets])
    )
    episodes = [episode for dataset in datasets for episode in dataset.iter_episodes()]
    for i, expected in enumerate(episodes):
        for name, values in whole.read_rows(i, 0, int(whole.lengths[i])).items():
            np.testing.assert_array_equal(values, expected[name])
    rows = np.arange(whole.num_rows)[::-1]
    np.testing.assert_array_equal(whole.get_row_data(rows)["note"], whole.get_col_data("note")[::-1])
    owner = np.repeat(np.arange(whole.num_episodes), whole.lengths)
    assert whole.get_col_data("episode_idx").tolist() == owner.tolist()
    assert list(whole.clip_indices) == [
        (i, start) for i, length in enumerate(whole.lengths.tolist()) for start in range(length)
    ]


def test_parts_may_have_gaps_between_their_episodes():
    gaps = ArrayDataset([3, 2], make_columns(20), offsets=[12, 4], num_steps=2)
    whole = ConcatDataset([make_dataset([4], 7, num_steps=2), gaps])
    assert whole.get_batch([3, 5])["row"].tolist() == [[12, 13], [4, 5]]
    assert whole.read_rows(2, 0, 2)["row"].tolist() == [4, 5]
    assert whole.get_col_data("ep_idx").tolist() == [0] * 4 + [-1] * 4 + [2] * 2 + [-1] * 6 + [1] * 3


def test_different_transforms_of_the_parts_all_apply():
    plain, doubled = make_dataset([4, 4], 1), make_dataset([5], 2, transform=double)
    whole = ConcatDataset([plain, doubled])
    torch.testing.assert_close(whole[9]["action"], doubled[1]["action"])
    torch.testing.assert_close(whole.get_batch([9, 0])["action"][1], plain[0]["action"])
    assert_equal(whole.load_chunk([2], 1, 3)[0], doubled.load_chunk([0], 1, 3)[0])
    assert_equal(whole.load_chunk([1], 1, 3)[0], plain.load_chunk([1], 1, 3)[0])


def test_transforms_may_make_images_of_different_size_alike():
    small = ArrayDataset([5], make_columns(5, side=4), transform=shrink)
    large = ArrayDataset([5], make_columns(5, 1, side=8), transform=shrink)
    whole = ConcatDataset([small, large])
    batch = whole.get_batch([7, 2])["pixels"]
    assert batch.shape == (2, 1, 3, 2, 2)
    torch.testing.assert_close(batch[0], large[2]["pixels"])
    large.transform = None
    with pytest.raises(ContractError, match=r"pixels: .* shape \(1, 3, 2, 2\) in one dataset, \(1, 3, 8, 8\)"):
        whole.get_batch([7, 2])
    large.transform = lambda item: {"other": 1}
    with pytest.raises(ContractError, match="different keys"):
        whole.get_batch([7, 2])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_large_frames_land_where_they_belong(data):
    parts = [ArrayDataset([8], make_columns(8, seed, side=40), num_steps=2, frameskip=2) for seed in range(3)]
    whole = ConcatDataset(parts)
    chosen = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=9))
    buffer = whole.get_batch([0] * len(chosen))
    found = whole.get_batch(chosen, out=buffer if data.draw(st.booleans()) else None)["pixels"]
    for position, i in enumerate(chosen):
        torch.testing.assert_close(found[position], parts[i // 5][i % 5]["pixels"], rtol=0, atol=0)


def test_images_of_an_interleaved_batch_keep_their_memory_layout():
    parts = [make_dataset([6], seed, batch_transform=lambda batch: batch) for seed in (0, 1)]
    pixels = ConcatDataset(parts).get_batch([0, 7, 1])["pixels"]
    assert pixels.movedim(-3, -1).is_contiguous()


def test_own_transform_of_a_concatenation_comes_last():
    whole = ConcatDataset([make_dataset([4], transform=double), make_dataset([4], 1)])
    whole.transform = lambda item: {"sum": item["action"].sum()}
    assert whole[0].keys() == {"sum"}
    expected = [whole.datasets[0][1]["action"].sum(), whole.datasets[1][2]["action"].sum()]
    torch.testing.assert_close(whole.get_batch([1, 6])["sum"], torch.stack(expected))


def test_per_episode_constants_are_none_where_a_part_lacks_them():
    parts = [
        WithConstants([3, 3], make_columns(6), {"task": ["a", "b"]}),
        make_dataset([3], 1),
        WithConstants([3], make_columns(3, 2), {"task": ["c"], "mass": [1.5]}),
    ]
    whole = ConcatDataset(parts)
    assert whole.episode_column_names == ["task", "mass"]
    assert whole.get_episode_data([3, 0, 2, 3]) == {"task": ["c", "a", None, "c"], "mass": [1.5, None, None, 1.5]}
    assert whole.get_episode_data()["task"] == ["a", "b", None, "c"]
    with pytest.raises(ContractError, match="out of range"):
        whole.get_episode_data([4])


def test_datasets_that_do_not_match_are_refused_by_name():
    base = make_dataset([5])
    other = make_columns(5)
    other["action"] = other["action"].astype(np.float64)
    with pytest.raises(ContractError, match=r"action: expected float32 \(2,\) per row, found float64"):
        ConcatDataset([base, ArrayDataset([5], other)])
    del other["action"]
    with pytest.raises(ContractError, match="action: missing"):
        ConcatDataset([base, ArrayDataset([5], other)])
    with pytest.raises(ContractError, match="frameskip=2, but dataset 0 has frameskip=1"):
        ConcatDataset([base, make_dataset([5], frameskip=2)])
    for compose in (ConcatDataset, MergeDataset):
        with pytest.raises(ContractError, match="at least one"):
            compose([])
        with pytest.raises(TypeError, match="dataset 1 is a list"):
            compose([base, []])


def test_columns_merged_into_a_concatenation_are_merged_in_every_part():
    whole = ConcatDataset([make_dataset([4], 0), make_dataset([4], 1, transform=double)])
    whole.merge_col(["action", "row"], "both")
    assert whole[5]["both"].shape == (1, 3)
    assert whole.get_batch([0, 5])["both"][1, 0, 2] == 1001
    np.testing.assert_array_equal(whole.get_col_data("both")[:, 2], whole.get_col_data("row"))


def test_other_windows_of_a_composition_are_those_of_its_parts():
    parts = [make_dataset([6, 4], seed) for seed in (0, 1)]
    for compose in (ConcatDataset, MergeDataset):
        view = compose(parts).with_windows(2, 2, keys_to_load=["row"])
        direct = compose([part.with_windows(2, 2, keys_to_load=["row"]) for part in parts])
        assert len(view) == len(direct)
        assert_equal(view.get_batch([0, -1]), direct.get_batch([0, -1]))


# -- merge ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(lengths, st.integers(1, 2), st.integers(1, 2), st.booleans(), st.data())
def test_items_of_a_merge_are_the_union_of_the_items(values, num_steps, frameskip, transformed, data):
    options = {"num_steps": num_steps, "frameskip": frameskip}
    left = make_dataset(values, 1, transform=double if transformed else None, **options)
    columns = {f"x_{name}" if name != "row" else name: v for name, v in make_columns(sum(values), 2).items()}
    right = ArrayDataset(values, columns, **options)
    merged = MergeDataset([left, right])
    assert len(merged) == len(left)
    chosen = data.draw(st.lists(st.integers(0, len(left) - 1), min_size=1, max_size=6))
    batch = merged.get_batch(chosen)
    for position, i in enumerate(chosen):
        expected = {**right[i], **left[i]}  # the first wins
        assert_equal(merged[i], expected)
        assert_equal({name: values[position] for name, values in batch.items()}, expected)
    np.testing.assert_array_equal(merged.get_col_data("x_note"), columns["x_note"])
    np.testing.assert_array_equal(merged.get_col_data("row"), left.get_col_data("row"))


def test_first_dataset_wins_in_chunks_too():
    merged = MergeDataset([make_dataset([6], 1), make_dataset([6], 2, transform=double)])
    assert merged.load_chunk([0], 2, 4)[0]["row"].tolist() == [1002, 1003]
    assert merged[2]["row"].tolist() == [1002]
    assert merged.load_episode(0)["row"][0] == 1000


def test_keys_can_be_chosen_per_dataset():
    parts = [make_dataset([6], seed) for seed in (1, 2)]
    merged = MergeDataset(parts, [["row"], ["row", "action"]])
    assert merged.column_names == ["row", "action"]
    assert merged[3]["row"].tolist() == [1003]
    torch.testing.assert_close(merged[3]["action"], parts[1][3]["action"])
    parts[0].transform = double  # which asks for a column that is not taken
    assert MergeDataset(parts, [["row"], None])[3].keys() == {"row", "pixels", "action", "note"}
    with pytest.raises(MissingKeyError, match="no column 'nothing'"):
        MergeDataset(parts, [["nothing"], None])
    with pytest.raises(ContractError, match="1 entries: expected one per dataset, 2"):
        MergeDataset(parts, [["row"]])


def test_rows_of_merged_datasets_may_lie_in_another_order():
    columns = {"other": np.arange(10)}
    shuffled = ArrayDataset([3, 2], columns, offsets=[6, 1], num_steps=2)
    merged = MergeDataset([make_dataset([3, 2], 1, num_steps=2), shuffled])
    assert merged.get_batch([1, 2])["other"].tolist() == [[7, 8], [1, 2]]
    assert merged.get_batch([1, 2])["row"].tolist() == [[1001, 1002], [1003, 1004]]
    assert merged.get_col_data("other").tolist() == [6, 7, 8, 1, 2]


def test_merged_datasets_must_have_the_same_episodes_and_windows():
    base = make_dataset([4, 5])
    with pytest.raises(ContractError, match=r"dataset 1: rows of its episodes: episode 1 has 6, in dataset 0 it has 5"):
        MergeDataset([base, make_dataset([4, 6])])
    with pytest.raises(ContractError, match="expected 2 episodes as in dataset 0, found 1"):
        MergeDataset([base, make_dataset([9])])
    with pytest.raises(ContractError, match="windows of its episodes"):
        MergeDataset([base, data.GoalDataset(make_dataset([4, 5]), goal_keys={"row": "goal"}, seed=0)])


@pytest.mark.parametrize("transform", [None, double])
def test_a_column_merged_on_top_is_part_of_items(transform):
    merged = MergeDataset([make_dataset([4], 1, transform=transform), ArrayDataset([4], {"y": np.ones(4)})])
    merged.merge_col(["row", "y"], "both")
    assert merged[2]["both"].tolist() == [[1002.0, 1.0]]
    assert merged.get_batch([2])["both"].shape == (1, 1, 2)


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("composition")
    for number in range(2):
        with HDF5Writer(folder / f"{number}.h5", metadata={"env": "toy", "seed": number}) as writer:
            writer.write_episodes(make_episode(10 * number + k, rows=12) for k in range(3))
    return [folder / "0.h5", folder / "1.h5"]


def test_compositions_of_files_read_the_same_in_worker_processes_and_after_pickling(files):
    datasets = [load_dataset(path, num_steps=2) for path in files]
    whole = ConcatDataset([MergeDataset([dataset, dataset]) for dataset in datasets])
    expected = whole.get_batch(np.arange(len(whole)))
    copied = pickle.loads(pickle.dumps(whole))
    assert_equal(copied.get_batch(np.arange(len(whole))), expected)
    loader = DataLoader(whole, batch_size=16, num_workers=2, multiprocessing_context="fork")
    torch.testing.assert_close(torch.cat([batch["pixels"] for batch in loader]), expected["pixels"])
    assert whole.metadata == {"env": "toy"}
    for found, expected_episode in zip(whole.iter_episodes(), map(make_twelve, range(2)), strict=False):
        assert_same_episode(found, expected_episode)


def make_twelve(k):
    return make_episode(k, rows=12)


def test_a_batch_fills_given_memory(files):
    whole = ConcatDataset([load_dataset(path, num_steps=2) for path in files])
    expected = whole.get_batch([30, 1, 40])
    buffer = whole.get_batch([0, 1, 2])
    again = whole.get_batch([30, 1, 40], out=buffer)
    assert_equal(again, expected)
    assert again["pixels"].data_ptr() == buffer["pixels"].data_ptr()


def test_a_million_rows_need_no_memory_per_window():
    rows = np.zeros(500_000, np.float32)
    parts = [ArrayDataset([500] * 1000, {"action": rows}, num_steps=4) for _ in range(2)]
    tracemalloc.start()
    whole = ConcatDataset(parts)
    goals = data.GoalDataset(MergeDataset([whole]), goal_keys={"action": "goal"}, seed=0)
    goals.get_batch([0, len(goals) - 1])
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(whole) == 2 * 1000 * 497
    assert used < 1_000_000  # arrays over 2,000 episodes; a list of 10^6 windows takes a hundred times as much


def test_a_batch_of_a_composition_reads_every_column_once_per_part():
    calls = []

    class Counting(ArrayDataset):
        def _read_rows(self, name, rows, out):
            calls.append(name)
            return super()._read_rows(name, rows, out)

    parts = [Counting([50], make_columns(50, seed), num_steps=3) for seed in (0, 1)]
    ConcatDataset(parts).get_batch(np.arange(0, 96, 3))
    assert sorted(calls) == sorted(["pixels", "action", "row", "note"] * 2)
