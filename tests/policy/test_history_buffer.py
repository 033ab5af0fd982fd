from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel.buffer import HistoryBuffer
from stable_worldmodel.errors import ContractError


def filled(steps, n_envs=2, max_len=7, block=2):
    """Entry t holds frame 10 * env + t and the action that led to it; the first action is NaN."""
    buffer = HistoryBuffer(n_envs, max_len, block, block_keys=("action",))
    for t in range(steps):
        buffer.append(entry(n_envs, t, t == 0))
    return buffer


def entry(n_envs, t, first=False):
    frame = (10 * np.arange(n_envs) + t).astype(float)
    action = np.full((n_envs, 1, 1), np.nan if first else t)
    return {"pixels": frame.reshape(-1, 1, 1), "t": frame, "action": action}


def test_frames_are_strided_oldest_first_with_the_blocks_between_them():
    past = filled(5).get(3)
    np.testing.assert_array_equal(past["pixels"][:, :, 0], [[0, 2, 4], [10, 12, 14]])
    np.testing.assert_array_equal(past["t"], [[0, 2, 4], [10, 12, 14]])
    np.testing.assert_array_equal(past["action"], [[[1, 2], [3, 4]]] * 2)


def test_time_axes_are_joined():
    buffer = HistoryBuffer(2, 3)
    for t in range(3):
        buffer.append({"pixels": np.full((2, 2, 4, 4, 3), t, np.uint8)})
    pixels = buffer.get(3)["pixels"]
    assert pixels.shape == (2, 6, 4, 4, 3)
    assert pixels[0, :, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert pixels.dtype == np.uint8


def test_an_under_filled_env_repeats_its_oldest_strided_frame_with_zero_blocks():
    buffer = filled(5)
    buffer.reset([1])
    for t in (5, 6, 7, 8):
        buffer.append(entry(2, t, first=t == 5))
    assert buffer.num_strided().tolist() == [4, 2]
    past = buffer.get(4)
    np.testing.assert_array_equal(past["t"], [[2, 4, 6, 8], [16, 16, 16, 18]])
    np.testing.assert_array_equal(past["action"][1], [[0, 0], [0, 0], [7, 8]])


def test_nan_counts_as_zero():
    buffer = HistoryBuffer(1, 3, block_keys=("action",))
    for action in (1.0, np.nan, 3.0):
        buffer.append({"action": np.array([[action]])})
    assert buffer.get(3)["action"].tolist() == [[[0.0], [3.0]]]


def test_rows_follow_the_order_asked_for():
    np.testing.assert_array_equal(filled(3, n_envs=3).get(1, [2, 0])["t"], [[22], [2]])


def test_one_frame_has_no_blocks_and_nothing_known_gives_none():
    buffer = filled(3)
    assert set(buffer.get(1)) == {"pixels", "t"}
    assert buffer.get(0) is None
    buffer.reset([0])
    assert len(buffer) == 0
    assert buffer.get(1) is None
    assert buffer.get(1, [1]) is not None
    assert HistoryBuffer(1, 1).get(1) is None


@given(steps=st.integers(1, 30), max_len=st.integers(1, 12), block=st.integers(1, 4), n=st.integers(1, 5))
def test_the_ring_agrees_with_a_list_of_everything(steps, max_len, block, n):
    past = filled(steps, max_len=max_len, block=block).get(n)
    kept = list(range(steps))[-max_len:]
    strided = kept[::-1][::block][::-1][-n:]
    padded = [strided[0]] * (n - len(strided)) + strided
    assert past["t"][0].tolist() == padded
    if n > 1:
        blocks = [[0] * block if a == b else list(range(a + 1, b + 1)) for a, b in pairwise(padded)]
        assert past["action"][0].tolist() == blocks


def test_entries_are_copies():
    buffer, live = HistoryBuffer(1, 2), np.zeros((1, 1))
    buffer.append({"x": live})
    live += 1
    assert buffer.get(1)["x"].tolist() == [[0.0]]


def test_tensors_are_accepted():
    buffer = HistoryBuffer(1, 2)
    buffer.append({"x": torch.ones(1, 1, 3)})
    assert buffer.get(1)["x"].shape == (1, 1, 3)


def test_bad_sizes_and_entries_are_refused():
    for sizes in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ContractError):
            HistoryBuffer(*sizes)
    buffer = filled(1)
    with pytest.raises(ContractError, match="expected shape"):
        buffer.append(entry(3, 1))
    with pytest.raises(ContractError, match="keys"):
        buffer.append({"pixels": np.zeros((2, 1, 1))})
