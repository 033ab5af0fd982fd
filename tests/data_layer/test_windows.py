"""Laws of the window arithmetic."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.data.windows import ClipIndices, WindowIndex
from stable_worldmodel.errors import ContractError

lengths = st.lists(st.integers(1, 25), min_size=1, max_size=8)
sizes = st.integers(1, 4)


def brute_force(lengths, num_steps, frameskip):
    span = num_steps * frameskip
    return [(e, s) for e, n in enumerate(lengths) for s in range(n - span + 1)]


def build(lengths, num_steps, frameskip):
    """The index and the list of windows it must be equal to; None when no window fits."""
    pairs = brute_force(lengths, num_steps, frameskip)
    offsets = np.cumsum(lengths) - lengths
    if not pairs:
        with pytest.raises(ContractError, match="no window of"):
            WindowIndex(np.array(lengths), offsets, num_steps, frameskip)
        return None, pairs
    return WindowIndex(np.array(lengths), offsets, num_steps, frameskip), pairs


@settings(deadline=None)
@given(lengths, sizes, sizes)
def test_windows_are_all_starts_of_all_episodes_in_order(lengths, num_steps, frameskip):
    index, pairs = build(lengths, num_steps, frameskip)
    if index is None:
        return
    assert len(index) == sum(max(0, n - num_steps * frameskip + 1) for n in lengths) == len(pairs)
    episode, start = index.locate(np.arange(len(index)))
    assert list(zip(episode.tolist(), start.tolist(), strict=True)) == pairs
    assert list(ClipIndices(index)) == pairs


@settings(deadline=None)
@given(lengths, sizes, sizes)
def test_windows_to_the_end_reach_the_last_row_and_repeat_it_as_action(lengths, num_steps, frameskip):
    offsets = np.cumsum(lengths) - lengths
    index = WindowIndex(np.array(lengths), offsets, num_steps, frameskip, to_end=True, check=False)
    reach = (num_steps - 1) * frameskip  # rows from the first observation to the last
    assert list(ClipIndices(index)) == [(e, s) for e, n in enumerate(lengths) for s in range(n - reach)]
    rows, action_rows = index.rows(np.arange(len(index)))
    for (episode, start), observed, acted in zip(ClipIndices(index), rows, action_rows, strict=True):
        first, last = offsets[episode] + start, offsets[episode] + lengths[episode] - 1
        assert observed.tolist() == list(range(first, first + reach + 1, frameskip))
        assert acted.tolist() == [min(first + k, last) for k in range(num_steps * frameskip)]
    if len(index):
        doubled = WindowIndex.concatenate([index, index], [0, sum(lengths)])
        _, again = doubled.rows(np.arange(len(index), 2 * len(index)))
        assert (again == action_rows + sum(lengths)).all()


@settings(deadline=None)
@given(lengths, sizes, sizes)
def test_rows_stay_inside_their_episode_and_are_strided(lengths, num_steps, frameskip):
    index, pairs = build(lengths, num_steps, frameskip)
    if index is None:
        return
    rows, action_rows = index.rows(np.arange(len(index)))
    first = np.cumsum(lengths) - lengths
    for (episode, start), observed, acted in zip(pairs, rows, action_rows, strict=True):
        begin = first[episode] + start
        assert acted.tolist() == list(range(begin, begin + num_steps * frameskip))
        assert observed.tolist() == acted[::frameskip].tolist()
        assert acted[-1] < first[episode] + lengths[episode]


@settings(deadline=None)
@given(lengths, sizes, st.data())
def test_windows_of_selects_exactly_the_windows_of_these_episodes(lengths, num_steps, data):
    index, pairs = build(lengths, num_steps, 1)
    if index is None:
        return
    episodes = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    expected = [i for episode in episodes for i, pair in enumerate(pairs) if pair[0] == episode]
    assert index.windows_of(episodes).tolist() == expected


def test_offsets_need_not_be_in_order():
    index = WindowIndex(np.array([3, 2]), np.array([2, 0]), num_steps=2)
    assert index.rows(np.arange(3))[0].tolist() == [[2, 3], [3, 4], [0, 1]]


def test_negative_indices_count_from_the_end_and_others_are_refused():
    index = WindowIndex(np.array([5]), np.array([0]), num_steps=2)
    assert index.locate(np.array(-1))[1] == 3
    for outside in (4, -5):
        with pytest.raises(IndexError, match="expected within"):
            index.locate(np.array([outside]))
    with pytest.raises(IndexError, match="episode index"):
        index.windows_of([1])
    for wrong in ([True, False], [0.5]):
        with pytest.raises(ContractError, match="expected integers"):
            index.locate(np.array(wrong))


def test_short_episodes_are_counted_in_one_warning(caplog):
    with caplog.at_level(logging.WARNING):
        WindowIndex(np.array([2, 9, 3]), np.array([0, 2, 11]), num_steps=4)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 episodes are shorter than 4 rows and give no window"
    ]


@pytest.mark.parametrize("sizes", [{"num_steps": 0}, {"frameskip": 0}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ContractError, match="expected both >= 1"):
        WindowIndex(np.array([5]), np.array([0]), **sizes)
