"""The replay buffer against a list of episodes, and under two threads."""

import logging
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from episode_factory import assert_same_episode, make_episode
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader

from stable_worldmodel import data
from stable_worldmodel.data import ReplayBuffer, Writer, classic_filter, load_dataset
from stable_worldmodel.errors import ContractError


def episode(k, rows):
    """Every value tells the episode and the row."""
    t = np.arange(rows)
    return {
        "obs": np.stack([np.full(rows, k), t], axis=1),
        "action": np.stack([k + t / 100, -t], axis=1).astype(np.float32),
        "name": [f"{k}/{i}" for i in range(rows)],
    }


class Model:
    """What a buffer holds, said with lists."""

    def __init__(self, max_steps):
        self.max_steps, self.episodes = max_steps, []

    def write(self, ep):
        self.episodes.append(ep)
        while sum(len(e["obs"]) for e in self.episodes) > self.max_steps:
            self.episodes.pop(0)

    def windows(self, history, frameskip):
        span = history * frameskip
        return [(e, s) for e, ep in enumerate(self.episodes) for s in range(len(ep["obs"]) - span + 1)]

    def window(self, pair, history, frameskip):
        e, s = pair
        ep, span = self.episodes[e], history * frameskip
        return {
            "obs": ep["obs"][s : s + span : frameskip],
            "action": ep["action"][s : s + span].reshape(history, -1),
            "name": ep["name"][s : s + span : frameskip],
        }


@settings(deadline=None, max_examples=60)
@given(
    st.integers(6, 30),
    st.lists(st.integers(0, 6), max_size=14),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2**32),
)
def test_content_and_samples_are_those_of_a_list_of_episodes(max_steps, lengths, history, frameskip, seed):
    buffer, model = ReplayBuffer(max_steps, history, frameskip, seed=seed), Model(max_steps)
    for k, rows in enumerate(lengths):
        buffer.write_episode(episode(k, rows))
        if rows:
            model.write(episode(k, rows))
        assert buffer.num_episodes == len(model.episodes)
        assert buffer.num_steps_stored == sum(len(e["obs"]) for e in model.episodes) <= max_steps
        for other in (1, history, history + 1):
            assert buffer.num_valid_ends(other) == len(model.windows(other, frameskip))
    pairs = model.windows(history, frameskip)
    assert len(buffer) == len(pairs)
    assert list(buffer.clip_indices) == pairs
    for found, expected in zip(buffer.episodes(), model.episodes, strict=True):
        np.testing.assert_array_equal(found["obs"], expected["obs"])
        assert found["name"].tolist() == expected["name"]
    for i, pair in enumerate(pairs):
        item, expected = buffer[i], model.window(pair, history, frameskip)
        torch.testing.assert_close(item["obs"], torch.from_numpy(expected["obs"]))
        torch.testing.assert_close(item["action"], torch.from_numpy(expected["action"]))
        assert item["name"] == expected["name"]
    if not pairs:
        with pytest.raises(RuntimeError, match="nothing to sample"):
            buffer.sample(1)
        return
    batch = buffer.sample(8)
    possible = [model.window(pair, history, frameskip) for pair in pairs]
    for i in range(8):
        assert any(
            np.array_equal(batch["obs"][i], window["obs"])
            and np.array_equal(batch["action"][i], window["action"])
            and batch["name"][i].tolist() == window["name"]
            for window in possible
        )


def test_shapes_and_dtypes_of_a_sample():
    buffer = ReplayBuffer(100, history_len=3, frameskip=2, seed=0)
    buffer.write_episodes(make_episode(k, rows=12) for k in range(3))
    batch = buffer.sample(5)
    assert {name: (values.shape, values.dtype) for name, values in batch.items()} == {
        "pixels": ((5, 3, 16, 16, 3), np.dtype(np.uint8)),
        "action": ((5, 3, 4), np.dtype(np.float32)),
        "reward": ((5, 3), np.dtype(np.float64)),
        "terminated": ((5, 3), np.dtype(bool)),
        "step_idx": ((5, 3), np.dtype(np.int64)),
        "grid": ((5, 3, 2, 3), np.dtype(np.float32)),
        "policy": ((5, 3), np.dtype(object)),
        "seed": ((5, 3), np.dtype(np.int64)),
    }
    assert buffer.sample(5, history_len=1)["action"].shape == (5, 1, 4)
    assert buffer.sample(0)["pixels"].shape == (0, 3, 16, 16, 3)


def test_the_default_sampler_is_uniform_over_windows():
    buffer = ReplayBuffer(60, history_len=2, seed=0)
    buffer.write_episodes(episode(k, rows) for k, rows in enumerate((30, 3, 20, 2, 15)))  # the first is gone again
    keys, counts = np.unique(buffer.sample(40_000)["obs"][:, 0] @ [100, 1], return_counts=True)
    assert len(keys) == len(buffer) == 2 + 19 + 1 + 14
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_draw_depends_on_seed_step_and_content_alone():
    first, second, other = (ReplayBuffer(100, seed=seed) for seed in (1, 1, 2))
    for buffer in (first, second, other):
        buffer.write_episodes(episode(k, 20) for k in range(5))
    in_order = [first.sample(16)["obs"] for _ in range(3)]
    for step in (2, 0, 1):
        np.testing.assert_array_equal(second.sample(16, step=step)["obs"], in_order[step])
    assert (in_order[0] != in_order[1]).any()
    assert (other.sample(16)["obs"] != in_order[0]).any()


def test_a_sampler_of_ones_own_chooses_the_windows():
    calls = []

    def newest(step, buffer, batch_size, history_len):
        calls.append((step, batch_size, history_len))
        return np.full(batch_size, buffer.num_valid_ends(history_len) - 1)

    buffer = ReplayBuffer(50, sampler=newest)
    buffer.write_episode(episode(0, 9))
    assert buffer.sample(2, history_len=2)["obs"][:, -1, 1].tolist() == [8, 8]
    buffer.sample(1)
    assert calls == [(0, 2, 2), (1, 1, 1)]
    for answer, error, message in (
        (np.zeros(3, int), ValueError, r"shape \(3,\): expected \(2,\)"),
        (np.array([0, 9]), IndexError, "expected within"),
        (np.array([0, -1]), IndexError, r"expected within \[0, 9\)"),
        (np.array([0.5, 1]), ContractError, "expected integers"),
    ):
        buffer.sampler = lambda *_, answer=answer: answer
        with pytest.raises(error, match=message):
            buffer.sample(2)


def test_episodes_that_do_not_fit_change_nothing():
    buffer = ReplayBuffer(20, seed=0)
    buffer.write_episode(episode(0, 5))
    good = episode(1, 5)
    for broken, message in (
        ({**good, "extra": np.zeros(5)}, "extra: not in the buffer"),
        ({key: good[key] for key in ("obs", "name")}, "action: missing"),
        ({**good, "obs": np.zeros((5, 3), int)}, r"obs: expected shape \(2,\) per row, found \(3,\)"),
        ({**good, "obs": np.zeros((5, 2))}, "obs: expected int64, found float64"),
        ({**good, "name": np.zeros(5)}, "name: expected text, found float64"),
        ({**good, "obs": good["name"]}, "obs: expected shape"),
        ({**good, "action": np.zeros((4, 2))}, "equal lengths"),
        ({**good, "action": 3.0}, "expected one value per row"),
        (episode(1, 21), "21 rows does not fit into max_steps=20"),
    ):
        with pytest.raises(ValueError, match=message):
            buffer.write_episode(broken)
    assert buffer.lengths.tolist() == [5]
    buffer.write_episode({})
    buffer.write_episode(episode(1, 0))
    assert buffer.num_episodes == 1


def test_values_are_cast_to_the_dtypes_of_the_first_episode():
    buffer = ReplayBuffer(20)
    buffer.write_episode({"reward": np.zeros(3, np.float32), "n": np.zeros(3, np.int32)})
    buffer.write_episode({"reward": [1, 2], "n": [1, 2]})
    assert buffer.get_col_data("reward").dtype == np.float32
    assert buffer.get_col_data("reward").tolist() == [0, 0, 0, 1, 2]
    with pytest.raises(ContractError, match="n: values do not fit into int32"):
        buffer.write_episode({"reward": [0.0], "n": [2**40]})


def test_key_filter_is_applied_first():
    source = {**make_episode(0), "state": [object()] * 3}  # neither of the right length nor storable
    for key_filter in (classic_filter, ["pixels", "action", "reward", "terminated", "truncated"]):
        buffer = ReplayBuffer(100, key_filter=key_filter)
        buffer.write_episode(source)
        assert sorted(buffer.column_names) == ["action", "pixels", "reward", "terminated"]


def test_per_episode_constants_go_with_their_episode():
    buffer = ReplayBuffer(10)
    buffer.write_episode({**episode(0, 5), "_episode_data": {"task": "a"}})
    buffer.write_episode({**episode(1, 5), "_episode_data": {"task": "b", "mass": 2.0}})
    assert buffer.get_episode_data() == {"task": ["a", "b"], "mass": [None, 2.0]}
    buffer.write_episode(episode(2, 3))
    assert buffer.episode_column_names == ["task", "mass"]
    assert buffer.get_episode_data([1, 0]) == {"task": [None, "b"], "mass": [None, 2.0]}
    assert [ep.get("_episode_data") for ep in buffer.episodes()] == [{"task": "b", "mass": 2.0}, None]


def test_it_reads_like_a_dataset(tmp_path):
    episodes = [make_episode(k) for k in range(6)]
    with data.HDF5Writer(tmp_path / "set.h5") as writer:
        writer.write_episodes(episodes)
    options = {"frameskip": 2, "transform": lambda item: {**item, "half": item["grid"] / 2}}
    ds = load_dataset(tmp_path / "set.h5", num_steps=2, **options)
    buffer = ReplayBuffer(int(ds.num_rows), 2, **options)
    buffer.write_episode(make_episode(9))  # evicted again, so that nothing begins at slot 0
    buffer.write_episodes(episodes)
    assert buffer.lengths.dtype == np.int32
    assert buffer.lengths.tolist() == ds.lengths.tolist()
    assert buffer.offsets.tolist() == ds.offsets.tolist()
    assert (len(buffer), buffer.num_steps) == (len(ds), 2)
    assert buffer.windows_of([2]).tolist() == ds.windows_of([2]).tolist()
    for found, expected in (
        (buffer[-1], ds[-1]),
        (buffer.get_batch([3, 0]), ds.get_batch([3, 0])),
        (buffer.load_episode(1), ds.load_episode(1)),
        (buffer.load_chunk([4], 0, 4)[0], ds.load_chunk([4], 0, 4)[0]),
    ):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(found[name], value, equal_nan=True)
            else:
                assert found[name] == value
    np.testing.assert_array_equal(buffer.get_col_data("grid"), ds.get_col_data("grid"))
    np.testing.assert_array_equal(buffer.get_row_data([5, 2])["pixels"], ds.get_row_data([5, 2])["pixels"])
    assert buffer.get_dim("grid") == 6
    np.testing.assert_array_equal(np.concatenate([*buffer.iter_frames("reward")]), ds.get_col_data("reward"))
    normalizer = data.column_normalizer(buffer, "grid", "grid")
    expected = data.column_normalizer(ds, "grid", "grid")
    np.testing.assert_allclose(normalizer.scaler.mean, expected.scaler.mean)
    with pytest.raises(IndexError):
        ReplayBuffer(5)[0]


def test_it_feeds_a_data_loader():
    buffer = ReplayBuffer(100, history_len=2)
    buffer.write_episodes(make_episode(k, rows=10) for k in range(2))
    batches = list(DataLoader(buffer, batch_size=6, num_workers=2, multiprocessing_context="fork"))
    torch.testing.assert_close(
        torch.cat([batch["pixels"] for batch in batches]), buffer.get_batch(np.arange(18))["pixels"]
    )


def test_dump_and_load_give_the_same_episodes(tmp_path, caplog):
    buffer = ReplayBuffer(60)
    buffer.write_episodes(make_episode(k, rows=20) for k in range(5))
    with pytest.raises(ContractError, match="the buffer is empty"):
        ReplayBuffer(5).dump(tmp_path / "x.h5")
    buffer.dump(tmp_path / "x", "hdf5", metadata={"env": "toy"})
    buffer.dump(tmp_path / "x", "hdf5")  # replaces it
    copied = ReplayBuffer(1000)
    copied.load(tmp_path / "x")
    for k, found in zip((2, 3, 4), copied.episodes(), strict=True):
        assert_same_episode(found, make_episode(k, rows=20))
    with caplog.at_level(logging.WARNING):
        buffer.write_episode({**make_episode(5), "_episode_data": {"task": "a"}})
        buffer.dump(tmp_path / "y.h5")
    supported = data.get_format("hdf5").supports_episode_data
    assert supported or "keeps no per-episode data; ['task'] are dropped" in caplog.text


def test_clear_forgets_and_keeps_the_memory():
    buffer = ReplayBuffer(20, seed=0)
    buffer.write_episode(episode(0, 15))
    memory = buffer._rings["obs"]
    buffer.clear()
    assert (len(buffer), buffer.num_episodes, list(buffer.episodes())) == (0, 0, [])
    buffer.write_episode(episode(1, 18))
    assert buffer._rings["obs"] is memory
    assert buffer.get_col_data("obs")[:, 1].tolist() == list(range(18))


def test_it_is_a_writer_that_stays_usable():
    with ReplayBuffer(20) as buffer:
        assert isinstance(buffer, Writer)
    buffer.write_episode(episode(0, 3))
    copied = pickle.loads(pickle.dumps(buffer))
    copied.write_episode(episode(1, 3))
    assert (buffer.num_episodes, copied.num_episodes) == (1, 2)


def test_collection_fills_it():
    import stable_worldmodel as swm

    world = swm.World("toy/Walk-v0", num_envs=2, image_shape=(8, 8), verbose=0)
    world.set_policy(swm.policy.RandomPolicy(seed=0))
    buffer = ReplayBuffer(1000, history_len=2)
    world.collect(writer=buffer, episodes=6, seed=0)
    world.close()
    assert buffer.num_episodes == 6
    assert buffer.sample(4)["pixels"].shape == (4, 2, 8, 8, 3)


@pytest.mark.parametrize("sizes", [{"max_steps": 0}, {"history_len": 0}, {"frameskip": -1}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="expected >= 1"):
        ReplayBuffer(**{"max_steps": 5, **sizes})


def wide_episode(k, rows):
    return {"pixels": np.full((rows, 64, 64, 3), k % 251, np.uint8), "row": np.arange(rows), "k": np.full(rows, k)}


def test_samples_taken_while_a_thread_writes_are_never_torn():
    """All values of a window belong to one episode; a copy of slots that a writer overtook would mix two."""
    buffer = ReplayBuffer(60, history_len=4, seed=0)
    buffer.write_episode(wide_episode(0, 20))
    stop, errors = threading.Event(), []
    written = 1

    def fill():
        nonlocal written
        try:
            while not stop.is_set():
                buffer.write_episode(wide_episode(written, 8 + written % 13))
                written += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        deadline, sampled, seen = time.monotonic() + 2.5, 0, set()
        while time.monotonic() < deadline:
            batch = buffer.sample(16)
            sampled += 1
            assert (batch["k"] == batch["k"][:, :1]).all()
            assert (np.diff(batch["row"], axis=1) == 1).all()
            assert (batch["pixels"] == (batch["k"] % 251)[..., None, None, None]).all()
            seen.update(batch["k"][:, 0].tolist())
            for ep in buffer.episodes():
                assert len(set(ep["k"].tolist())) == 1
                assert ep["row"].tolist() == list(range(len(ep["row"])))
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert sampled > 20
    assert written > 100
    assert len(seen) > 20


def test_writing_does_not_wait_for_a_sample_that_is_being_copied():
    buffer = ReplayBuffer(50)
    buffer.write_episode(episode(0, 10))
    entered, go_on = threading.Event(), threading.Event()
    gather = buffer._gather

    def slow_gather(*rows):
        entered.set()
        assert go_on.wait(10)
        return gather(*rows)

    buffer._gather = slow_gather
    results = []
    thread = threading.Thread(target=lambda: results.append(buffer.sample(4)))
    thread.start()
    assert entered.wait(10)
    buffer.write_episode(episode(1, 10))  # would hang if the copy held the lock
    go_on.set()
    thread.join()
    assert results[0]["obs"].shape == (4, 1, 2)
    assert buffer.num_episodes == 2
