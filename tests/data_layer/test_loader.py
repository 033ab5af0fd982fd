"""The loader's order is a function of seed and epoch; its content that of `get_batch`."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.data import HDF5Writer, load_dataset
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.order import WindowBatchSampler, WindowOrder, feistel
from stable_worldmodel.errors import ContractError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "d.h5"
    rng = np.random.default_rng(0)
    with HDF5Writer(path, "error") as writer:
        for length in (9, 14, 11):
            writer.write_episode(
                {
                    "pixels": rng.integers(0, 255, (length, 8, 8, 3), np.uint8),
                    "action": rng.normal(size=(length, 2)).astype(np.float32),
                    "label": [f"row {i}" for i in range(length)],
                }
            )
    return load_dataset(path, num_steps=2, frameskip=2)


# ---------------------------------------------------------------------- order


@given(st.integers(1, 5000), st.integers(0, 2**31), st.integers(0, 5), st.sampled_from(["full", "block", "none"]))
@settings(deadline=None)
def test_every_epoch_visits_every_window_once(size, seed, epoch, shuffle):
    order = WindowOrder(size, shuffle, seed, block=7, open_blocks=3)
    visited = order.windows(epoch, np.arange(size))
    assert sorted(visited.tolist()) == list(range(size))


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 9))
@settings(deadline=None)
def test_the_permutation_without_a_table_is_one(size, seed, epoch):
    assert sorted(feistel(np.arange(size), size, (seed, epoch)).tolist()) == list(range(size))


def test_the_permutation_without_a_table_looks_random():
    size = 4096
    values = feistel(np.arange(size), size, (1, 2))
    assert abs(np.corrcoef(values, np.arange(size))[0, 1]) < 0.06
    assert abs((np.diff(values) > 0).mean() - 0.5) < 0.05
    assert (values == np.arange(size)).sum() < 10
    assert (values == feistel(np.arange(size), size, (1, 3))).mean() < 0.01


def test_it_reaches_sizes_no_table_could_hold():
    size = 10**15
    values = feistel(np.arange(1000), size, (0, 0))
    assert len(set(values.tolist())) == 1000
    assert values.min() >= 0
    assert values.max() < size
    assert values.std() > size / 5


def test_blocks_stay_together_but_are_mixed():
    order = WindowOrder(1000, "block", 0, block=10, open_blocks=4)
    first = order.windows(0, np.arange(40))
    assert len({window // 10 for window in first.tolist()}) == 4
    assert (np.diff(first) != 1).mean() > 0.8


def test_positions_are_looked_up_in_any_order():
    for shuffle in ("full", "block"):
        order = WindowOrder(100, shuffle, 3, block=8, open_blocks=2)
        whole = order.windows(1, np.arange(100))
        some = np.array([99, 0, 50, 3])
        np.testing.assert_array_equal(order.windows(1, some), whole[some])


@given(
    st.integers(1, 60), st.integers(1, 8), st.integers(1, 4), st.booleans(), st.sampled_from(["full", "block", "none"])
)
@settings(deadline=None)
def test_ranks_share_what_one_process_would_see(size, batch, world, drop_last, shuffle):
    def sampler(rank, world_size, batch_size):
        return WindowBatchSampler(size, batch_size, shuffle, 5, drop_last, rank, world_size, block=4, open_blocks=2)

    try:
        ranks = [list(sampler(rank, world, batch)) for rank in range(world)]
    except ContractError:
        assert size < batch * world or (not drop_last and 0 < size % (batch * world) < world)
        return
    alone = list(sampler(0, 1, batch * world))
    assert len({len(batches) for batches in ranks}) == 1
    for together, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert sorted(together.tolist()) == sorted(np.concatenate(parts).tolist())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---------------------------------------------------------------------- loader


def numbers(batches):
    return [batch["action"].clone() for batch in batches]


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("copy", [False, True])
def test_batches_are_those_of_get_batch(dataset, prefetch, copy):
    with Loader(dataset, 4, seed=2, drop_last=False, prefetch=prefetch, copy=copy) as loader:
        sampler = WindowBatchSampler(dataset, 4, seed=2, drop_last=False)
        for _ in range(2):
            for batch, windows in zip(loader, sampler, strict=True):
                expected = dataset.get_batch(windows)
                assert batch.keys() == expected.keys()
                assert torch.equal(batch["pixels"], expected["pixels"])
                assert torch.equal(batch["action"].nan_to_num(9), expected["action"].nan_to_num(9))
                assert batch["label"] == expected["label"]


def test_epochs_differ_and_repeat_with_the_seed(dataset):
    loader = Loader(dataset, 5, seed=1)
    first, second = numbers(loader), numbers(loader)
    assert loader.epoch == 2
    assert len(first) == len(loader)
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    loader.set_epoch(0)
    assert all(a.equal(b) for a, b in zip(numbers(loader), numbers(Loader(dataset, 5, seed=1)), strict=True))


@given(st.integers(0, 12), st.integers(0, 3))
@settings(deadline=None, max_examples=15)
def test_an_interrupted_run_continues_exactly(dataset, stop, prefetch):
    def endless(loader):
        while True:
            yield from loader

    whole = [batch["action"].clone() for batch in itertools.islice(endless(Loader(dataset, 3, seed=4)), 14)]
    first = Loader(dataset, 3, seed=4, prefetch=prefetch)
    begun = [batch["action"].clone() for batch in itertools.islice(endless(first), stop)]
    second = Loader(dataset, 3, seed=4, prefetch=2)
    second.load_state_dict(first.state_dict())
    rest = [batch["action"].clone() for batch in itertools.islice(endless(second), 14 - stop)]
    for a, b in zip(whole, begun + rest, strict=True):
        assert torch.equal(a.nan_to_num(9), b.nan_to_num(9))


def test_memory_is_used_again_and_bounded(dataset):
    loader = Loader(dataset, 4, prefetch=2)
    places = {batch["pixels"].data_ptr() for _ in range(3) for batch in loader}
    assert len(places) <= 4
    assert (
        0
        < loader.buffer_bytes
        <= 4
        * sum(v.numel() * v.element_size() for v in dataset.get_batch(range(4)).values() if isinstance(v, torch.Tensor))
    )


def test_a_chosen_part_is_visited(dataset):
    chosen = dataset.windows_of([1])
    loader = Loader(dataset, 2, windows=chosen, shuffle=False)
    expected = dataset.get_batch(chosen)["action"]
    found = torch.cat(numbers(loader))
    assert torch.equal(found.nan_to_num(9), expected[: len(found)].nan_to_num(9))


def test_any_batch_of_any_epoch_can_be_the_next_one(dataset):
    loader = Loader(dataset, 3, seed=5)
    epochs = [numbers(loader) for _ in range(3)]
    for epoch, step in ((1, 2), (0, 0), (2, len(loader) - 1)):
        loader.seek(epoch, step)
        assert torch.equal(numbers(loader)[0].nan_to_num(9), epochs[epoch][step].nan_to_num(9))
    with pytest.raises(ContractError, match="step=99"):
        loader.seek(0, 99)


def test_breaking_off_leaves_it_usable(dataset):
    loader = Loader(dataset, 3, seed=0)
    for _ in loader:
        break
    position = loader.state_dict()["position"]
    assert position == 3
    assert len(list(loader)) == len(loader) - 1


def test_an_error_of_the_dataset_reaches_the_consumer(dataset):
    def fail(item):
        raise LookupError("transform")

    import copy

    broken = copy.copy(dataset)
    broken.transform = fail
    with Loader(broken, 3) as loader, pytest.raises(LookupError, match="transform"):
        next(iter(loader))


def test_two_iterations_at_once_are_refused(dataset):
    loader = Loader(dataset, 3)
    running = iter(loader)
    next(running)
    with pytest.raises(RuntimeError, match="iterated already"):
        next(iter(loader))
    with pytest.raises(RuntimeError, match="during an iteration"):
        loader.load_state_dict(loader.state_dict())


def test_torch_data_loader_takes_the_sampler(dataset):
    sampler = WindowBatchSampler(dataset, 4, seed=3)
    loaded = torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=None)
    for a, b in zip(loaded, Loader(dataset, 4, seed=3), strict=True):
        assert torch.equal(a["pixels"], b["pixels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 10_000}, "do not fill"),
        ({"shuffle": "blocks"}, "shuffle='blocks'"),
        ({"prefetch": -1}, "prefetch=-1"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
        ({"windows": np.array([], np.int64)}, "no window"),
    ],
)
def test_bad_arguments_are_named(dataset, arguments, message):
    with pytest.raises(ContractError, match=message):
        Loader(dataset, **{"batch_size": 2, **arguments})


def test_a_state_of_another_order_is_refused(dataset):
    with pytest.raises(ContractError, match="seed 1 instead of 0"):
        Loader(dataset, 2).load_state_dict(Loader(dataset, 2, seed=1).state_dict())
