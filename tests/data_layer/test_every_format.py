"""What holds for a dataset of any format that can be written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from episode_factory import make_goal_episode

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.registry import FORMATS, Format

WRITABLE = [name for name, fmt in FORMATS.items() if fmt.open_writer.__func__ is not Format.open_writer.__func__]


@pytest.fixture(scope="module", params=WRITABLE)
def path(request, tmp_path_factory):
    target = tmp_path_factory.mktemp("formats") / request.param
    with open_writer(target, format=request.param) as writer:
        writer.write_episodes(make_goal_episode(k, side=24) for k in range(6))
    return target


def assert_equal_batches(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if isinstance(values, torch.Tensor):
            assert found[name].dtype == values.dtype, name
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        else:
            assert found[name] == values


@pytest.mark.parametrize("cache", ["none", "decoded"])
def test_threads_that_read_at_the_same_time_read_the_same(path, cache):
    dataset = load_dataset(path, num_steps=2, frameskip=2, cache=cache)
    reference = load_dataset(path, num_steps=2, frameskip=2, cache="none")
    rng = np.random.default_rng(0)
    chosen = [rng.integers(0, len(dataset), 8) for _ in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for windows, batch in zip(chosen, pool.map(dataset.get_batch, chosen), strict=True):
            assert_equal_batches(batch, reference.get_batch(windows))


def test_loader_and_torch_data_loader_give_the_same_batches(path):
    dataset = load_dataset(path, num_steps=2, frameskip=2)
    with Loader(dataset, 8, seed=1) as loader:
        for batch, windows in zip(loader, Loader(dataset, 8, seed=1).sampler, strict=True):
            assert_equal_batches(batch, dataset.get_batch(windows))
