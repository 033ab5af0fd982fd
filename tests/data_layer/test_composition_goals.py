"""Goals: what they are drawn from, and on what a draw depends."""

import pickle

import numpy as np
import pytest
import torch
from episode_factory import make_episode
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader
from toy_dataset import ArrayDataset, make_columns, make_dataset

from stable_worldmodel import data
from stable_worldmodel.data import ConcatDataset, GoalDataset, MergeDataset
from stable_worldmodel.data.goals import indexed_uniform
from stable_worldmodel.errors import ContractError, MissingKeyError

RANDOM, GEOMETRIC, UNIFORM, CURRENT = np.eye(4).tolist()
KEYS = {"row": "goal_row"}
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=5).filter(lambda values: max(values) >= 11)


def goals_of(ds):
    return ds.sample_goals(np.arange(len(ds)))


@settings(deadline=None, max_examples=60)
@given(lengths, st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.sampled_from([GEOMETRIC, UNIFORM]))
def test_future_goals_lie_on_the_strided_future_of_their_window(values, num_steps, frameskip, offset, kind):
    base = make_dataset(values, num_steps=num_steps, frameskip=frameskip)
    ds = GoalDataset(base, kind, gamma=0.7, current_goal_offset=offset, goal_keys=KEYS, seed=0)
    episodes, rows = goals_of(ds)
    ahead = (offset - 1) * frameskip
    pairs = [
        (e, s)
        for e, s in base.clip_indices
        if s + ahead + frameskip < values[e]  # only windows with a future stay
    ]
    assert list(ds.clip_indices) == pairs
    for (episode, start), goal_episode, row in zip(pairs, episodes.tolist(), rows.tolist(), strict=True):
        distance = row - (start + ahead)
        assert goal_episode == episode
        assert distance >= frameskip
        assert distance % frameskip == 0
        assert row < values[episode]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=6).filter(lambda v: max(v) > 2), st.data())
def test_random_goals_are_all_rows_of_the_episodes_named_and_no_other(values, draw):
    chosen = draw.draw(st.lists(st.sampled_from(range(len(values))), min_size=1, unique=True))
    if not sum(values[e] for e in chosen):
        return
    base = make_dataset(values)
    ds = GoalDataset(base, RANDOM, goal_keys=KEYS, seed=0, episodes=chosen)
    assert list(ds.clip_indices) == list(base.clip_indices)
    found = set()
    for epoch in range(200):
        ds.set_epoch(epoch)
        found |= set(zip(*(part.tolist() for part in goals_of(ds)), strict=True))
    assert found == {(e, row) for e in chosen for row in range(values[e])}


def test_episodes_of_random_goals_stay_with_other_windows_and_must_exist():
    ds = GoalDataset(make_dataset([5, 9, 7]), RANDOM, goal_keys=KEYS, seed=0, episodes=[2])
    assert set(goals_of(ds.with_windows(2))[0]) == {2}
    with pytest.raises(ContractError, match=r"episodes 1\.\.3: expected within \[0, 3\)"):
        GoalDataset(make_dataset([5, 9, 7]), RANDOM, goal_keys=KEYS, episodes=[1, 3])
    with pytest.raises(ContractError, match="0 episodes for random goals have no row"):
        GoalDataset(make_dataset([5, 9, 7]), RANDOM, goal_keys=KEYS, episodes=[])


@settings(deadline=None, max_examples=40)
@given(lengths, st.integers(1, 3), st.integers(1, 2), st.integers(1, 5))
def test_current_goals_are_the_row_of_the_offset(values, num_steps, frameskip, offset):
    base = make_dataset(values, num_steps=num_steps, frameskip=frameskip)
    ds = GoalDataset(base, CURRENT, current_goal_offset=offset, goal_keys=KEYS, seed=0)
    ahead = (offset - 1) * frameskip
    assert list(ds.clip_indices) == [(e, s) for e, s in base.clip_indices if s + ahead < values[e]]
    _, rows = goals_of(ds)
    assert rows.tolist() == [start + ahead for _, start in ds.clip_indices]


def test_current_goal_is_the_last_observation_by_default():
    ds = GoalDataset(make_dataset([10], num_steps=3, frameskip=2), CURRENT, goal_keys=KEYS, seed=0)
    assert len(ds) == 5
    for i in range(5):
        assert ds[i]["goal_row"].tolist() == ds[i]["row"][-1:].tolist()


@settings(deadline=None, max_examples=30)
@given(lengths, st.integers(0, 2**32), st.integers(0, 5), st.data())
def test_an_item_and_a_batch_agree_and_the_goal_is_the_row_it_says(values, seed, epoch, data):
    ds = GoalDataset(
        make_dataset(values, num_steps=2), (0.25, 0.25, 0.25, 0.25), goal_keys={**KEYS, "note": "g"}, seed=seed
    )
    ds.set_epoch(epoch)
    chosen = data.draw(st.lists(st.integers(-len(ds), len(ds) - 1), min_size=1, max_size=10))
    episodes, rows = ds.sample_goals(chosen)
    batch = ds.get_batch(chosen)
    for position, i in enumerate(chosen):
        flat = int(ds.offsets[episodes[position]] + rows[position])
        assert ds[i]["goal_row"].tolist() == batch["goal_row"][position].tolist() == [flat]
        assert ds[i]["g"] == batch["g"][position] == [f"0/{flat}"]


def test_goals_depend_on_seed_epoch_and_index_alone():
    base = make_dataset([40, 40], num_steps=2)
    ds, same = (GoalDataset(base, goal_keys=KEYS, seed=3) for _ in range(2))
    everything = np.stack(goals_of(ds))
    order = np.random.default_rng(0).permutation(len(ds))
    for i in order.tolist():  # one by one and in any order
        assert [v.item() for v in same.sample_goals([i])] == everything[:, i].tolist()
    np.testing.assert_array_equal(np.stack(goals_of(pickle.loads(pickle.dumps(ds)))), everything)
    ds.set_epoch(1)
    assert (np.stack(goals_of(ds)) != everything).any()
    ds.set_epoch(0)
    np.testing.assert_array_equal(np.stack(goals_of(ds)), everything)
    assert (np.stack(goals_of(GoalDataset(base, goal_keys=KEYS, seed=4))) != everything).any()
    assert GoalDataset(base, goal_keys=KEYS).seed != GoalDataset(base, goal_keys=KEYS).seed


def test_workers_draw_the_goals_that_one_process_draws():
    ds = GoalDataset(make_dataset([60], num_steps=2), goal_keys=KEYS, seed=0)
    loader = DataLoader(ds, batch_size=8, num_workers=2, multiprocessing_context="fork")
    found = torch.cat([batch["goal_row"] for batch in loader])
    assert found.tolist() == ds.get_batch(np.arange(len(ds)))["goal_row"].tolist()
    assert len(np.unique(found)) > 8


def test_kinds_come_with_their_probabilities():
    base = make_dataset([5000, 50], num_steps=1)
    ds = GoalDataset(base, (0.4, 0.0, 0.25, 0.35), goal_keys=KEYS, seed=0)
    episodes, rows = goals_of(ds)
    windows = np.array(list(ds.clip_indices))
    current = (episodes == windows[:, 0]) & (rows == windows[:, 1])
    past = (episodes != windows[:, 0]) | (rows < windows[:, 1])  # only random goals
    expected_past = np.mean(1 - (5000 - windows[:, 1]) / base.num_rows) * 0.4
    assert abs(current.mean() - 0.35) < 0.025
    assert abs(past.mean() - expected_past) < 0.025


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
def test_geometric_goals_follow_their_law_and_are_cut_at_the_end(gamma):
    lengths = [30] * 800
    ds = GoalDataset(make_dataset(lengths), GEOMETRIC, gamma=gamma, goal_keys=KEYS, seed=1)
    _, rows = goals_of(ds)
    starts = np.array([start for _, start in ds.clip_indices])
    distance = (rows - starts)[starts == 4]  # 25 rows follow
    assert len(distance) == 800
    k = np.arange(1, 26)
    expected = (1 - gamma) * gamma ** (k - 1)
    expected[-1] = gamma ** (24)  # what lies beyond is cut to the last row
    counts = np.bincount(distance, minlength=26)[1:]
    if gamma == 0:
        assert counts[0] == 800
    else:
        keep = expected * 800 >= 5
        observed = [*counts[keep], counts[~keep].sum()]
        wanted = [*(expected[keep] * 800), expected[~keep].sum() * 800]
        if wanted[-1] == 0:
            observed, wanted = observed[:-1], wanted[:-1]
        assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_random_and_uniform_goals_are_uniform():
    base = ArrayDataset([20, 30], make_columns(60), offsets=[35, 2])  # with gaps and out of order
    ds = GoalDataset(ConcatDataset([base] * 100), RANDOM, goal_keys=KEYS, seed=2)
    episodes, rows = goals_of(ds)
    assert stats.chisquare(np.bincount(episodes % 2), [len(ds) * 0.4, len(ds) * 0.6]).pvalue > 1e-3
    assert stats.chisquare(np.bincount(rows[episodes % 2 == 0], minlength=20)).pvalue > 1e-3
    uniform = GoalDataset(make_dataset([11] * 500), UNIFORM, goal_keys=KEYS, seed=2)
    starts = np.array([start for _, start in uniform.clip_indices])
    distance = (goals_of(uniform)[1] - starts)[starts == 0]
    assert stats.chisquare(np.bincount(distance, minlength=11)[1:]).pvalue > 1e-3


def test_streams_are_uniform_and_independent():
    numbers = np.arange(20_000)
    first, second = (indexed_uniform(7, 0, numbers, stream) for stream in (0, 1))
    for values in (first, second, indexed_uniform(7, 1, numbers)):
        assert 0 <= values.min() <= values.max() < 1
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
    assert indexed_uniform(7, 0, numbers[5:6]).item() == first[5]


def test_default_goals_are_of_pixels_and_proprio():
    columns = {**make_columns(9), "proprio": np.ones((9, 3), np.float32)}
    item = GoalDataset(ArrayDataset([9], columns, num_steps=2), CURRENT, seed=0)[3]
    assert item["goal_pixels"].shape == (1, 3, 4, 4)
    assert item["goal_proprio"].shape == (1, 3)
    torch.testing.assert_close(item["goal_pixels"], item["pixels"][-1:])
    assert "goal_proprio" not in GoalDataset(make_dataset([9]), CURRENT, seed=0)[0]
    with pytest.raises(ContractError, match="goal_keys is empty"):
        GoalDataset(ArrayDataset([9], {"x": np.arange(9)}), seed=0)


def test_goals_pass_through_the_transforms_of_the_dataset():
    def halve(item):
        return {**item, "pixels": item["pixels"].float() / 2}

    for options in ({"transform": halve}, {"transform": halve, "batch_transform": halve}):
        ds = GoalDataset(make_dataset([9], num_steps=2, frameskip=2, **options), CURRENT, seed=0)
        torch.testing.assert_close(ds[3]["goal_pixels"], ds[3]["pixels"][-1:])
        batch = ds.get_batch([3, 1])
        torch.testing.assert_close(batch["goal_pixels"], batch["pixels"][:, -1:])
    lossy = make_dataset([9], transform=lambda item: {"row": item["row"]})
    with pytest.raises(ContractError, match=r"goals are made of .'pixels'., which the transform"):
        GoalDataset(lossy, seed=0)[0]


def test_own_transform_sees_the_goal():
    ds = GoalDataset(make_dataset([9], num_steps=2), CURRENT, goal_keys=KEYS, seed=0)
    ds.transform = lambda item: {"distance": item["goal_row"] - item["row"]}
    assert ds[0]["distance"].tolist() == [1, 0]
    assert ds.get_batch([0, 1])["distance"].tolist() == [[1, 0], [1, 0]]


def test_goals_of_compositions_are_those_of_their_rows():
    whole = ConcatDataset([make_dataset([9, 8], 1, num_steps=2), make_dataset([7], 2, num_steps=2)])
    ds = GoalDataset(whole, GEOMETRIC, goal_keys=KEYS, seed=0)
    episodes, rows = goals_of(ds)
    batch = ds.get_batch(np.arange(len(ds)))
    expected = whole.get_col_data("row")[whole.offsets[episodes] + rows]
    assert batch["goal_row"][:, 0].tolist() == expected.tolist()
    nested = ConcatDataset([GoalDataset(part, CURRENT, goal_keys=KEYS, seed=0) for part in whole.datasets])
    assert nested[len(nested) - 1]["goal_row"].tolist() == [2006]
    assert nested.get_batch([0, len(nested) - 1])["goal_row"].tolist() == [[1001], [2006]]


def test_memory_of_an_earlier_batch_is_filled_again():
    ds = GoalDataset(make_dataset([20], num_steps=2), seed=0)
    expected = {name: values for name, values in ds.get_batch([4, 9]).items() if name != "note"}
    buffer = ds.get_batch([0, 1])
    again = ds.get_batch([4, 9], out=buffer)
    assert again["goal_pixels"].data_ptr() == buffer["goal_pixels"].data_ptr()
    for name, values in expected.items():
        torch.testing.assert_close(again[name], values, equal_nan=True)


def test_a_goal_dataset_is_otherwise_the_dataset():
    base = make_dataset([9, 8], num_steps=2)
    ds = GoalDataset(base, goal_keys=KEYS, seed=0)
    assert ds.column_names == base.column_names
    assert ds.windows_of([1]).tolist() == list(range(7, 13))
    np.testing.assert_array_equal(ds.read_rows(1, 2, 4)["row"], base.read_rows(1, 2, 4)["row"])
    ds.merge_col(["row", "action"], "both")
    assert ds[0]["both"].shape == (2, 3)
    view = ds.with_windows(3)
    assert (len(view), view.num_steps, view[0]["goal_row"].shape) == (11, 3, (1,))


@pytest.mark.parametrize("probabilities", [(1, 0, 0), (0.5, 0.5, 0.5, 0.5), (2, -1, 0, 0), (np.nan, 1, 0, 0)])
def test_impossible_probabilities_are_refused(probabilities):
    with pytest.raises(ValueError, match="four numbers >= 0 with sum 1"):
        GoalDataset(make_dataset([9]), probabilities)


def test_other_impossible_arguments_are_refused():
    base = make_dataset([9], num_steps=9)
    with pytest.raises(ContractError, match="no window has a goal in its future: the longest of 1 episodes has 9"):
        GoalDataset(base)
    assert len(GoalDataset(base, CURRENT, seed=0)) == 1
    for wrong in ({"gamma": 1.0}, {"gamma": -0.1}, {"current_goal_offset": 0}):
        with pytest.raises(ContractError, match="expected"):
            GoalDataset(base, CURRENT, **wrong)
    with pytest.raises(MissingKeyError, match="no column 'nothing'"):
        GoalDataset(base, CURRENT, goal_keys={"nothing": "goal"})


@pytest.mark.parametrize("format", [name for name, fmt in data.FORMATS.items() if "open_writer" in vars(fmt)])
def test_compositions_work_on_every_format(tmp_path, format):
    parts = []
    for number in range(2):
        with data.open_writer(tmp_path / f"part{number}", format=format) as writer:
            writer.write_episodes(make_episode(10 * number + k, rows=9, side=32) for k in range(2))
        parts.append(data.load_dataset(tmp_path / f"part{number}", num_steps=2, frameskip=2))
    whole = ConcatDataset(parts)
    ds = GoalDataset(MergeDataset([whole, whole]), (0.5, 0.0, 0.5, 0.0), seed=0)
    indices = np.arange(len(ds))
    episodes, rows = ds.sample_goals(indices)
    batch = pickle.loads(pickle.dumps(ds)).get_batch(indices)
    for i in range(0, len(ds), 5):
        member, episode = divmod(int(episodes[i]), 2)
        expected = parts[member].read_rows(episode, int(rows[i]), int(rows[i]) + 1)["pixels"]
        np.testing.assert_array_equal(batch["goal_pixels"][i].movedim(-3, -1), expected)
        member, episode = divmod(ds.clip_indices[i][0], 2)
        window = parts[member][int(parts[member].windows_of([episode])[ds.clip_indices[i][1]])]
        torch.testing.assert_close(batch["pixels"][i], window["pixels"])
        torch.testing.assert_close(batch["action"][i], window["action"], equal_nan=True)
