import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.solver.noise import Noise, stream_ids

CPU = torch.device("cpu")


def source(*keys, seed=7, dtype=torch.float32, iterations=1):
    return Noise(stream_ids(seed, np.array(keys)), CPU, dtype, iterations)


def draw(*keys, seed=7, shape=(11,), iteration=0):
    return source(*keys, seed=seed).normal(iteration, shape)


def test_rows_do_not_depend_on_the_rows_beside_them():
    together = draw([1, 0], [2, 0], [3, 5], shape=(3, 37))
    assert torch.equal(together[1:2], draw([2, 0], shape=(3, 37)))


@settings(max_examples=30, deadline=None)
@given(
    keys=st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 10**6)), min_size=1, max_size=5),
    iterations=st.integers(1, 9),
    shape=st.lists(st.integers(1, 60), min_size=1, max_size=3).map(tuple),
)
def test_numbers_do_not_depend_on_how_far_ahead_they_are_drawn(keys, iterations, shape):
    ahead = source(*keys, iterations=iterations)
    for iteration in range(iterations):
        expected = torch.cat([draw(key, shape=shape, iteration=iteration) for key in keys])
        assert torch.equal(ahead.normal(iteration, shape), expected)
        assert torch.equal(ahead.normal(torch.tensor(iteration), shape), expected)


def test_iterations_may_be_asked_for_in_any_order_and_shape():
    noise = source([1, 2], iterations=10)
    third = noise.normal(3, (4, 5)).clone()
    noise.normal(0, (4, 5)), noise.normal(3, (6, 5))
    assert torch.equal(noise.normal(3, (4, 5)), third)


def test_solver_seed_iteration_and_both_parts_of_the_key_matter():
    drawn = [draw([1, 2]), draw([1, 2], seed=8), draw([2, 1]), draw([1, 3]), draw([-1, 2]), draw([1 + 2**32, 2])]
    drawn += [draw([1, 2], iteration=1), draw([0, 2]), draw([1, 0]), draw([0, 0])]
    assert len({str(row.tolist()) for row in drawn}) == len(drawn)


@pytest.mark.parametrize("other", [[0, 1], [1, 0], [2**33, 0]])
def test_numbers_are_standard_normal_and_streams_uncorrelated(other):
    z = draw([0, 0], other, shape=(400_000,)).double()
    assert z.mean().abs() < 5e-3
    assert (z.std() - 1).abs() < 5e-3
    assert (z.pow(4).mean() - 3).abs() < 5e-2
    assert (z[0] * z[1]).mean().abs() < 6e-3
    assert (z[0, 1:] * z[0, :-1]).mean().abs() < 6e-3  # neighbours
    half = z.shape[1] // 2
    assert (z[0, :half] * z[0, half:]).mean().abs() < 8e-3  # the two numbers of one word
    tail = z.abs() > 4.0
    assert 1e-5 < tail.double().mean() < 2e-4  # 6.3e-5 for a normal


def test_iterations_are_uncorrelated():
    noise = source([3, 3])
    first, second = (noise.normal(i, (300_000,)).double() for i in (0, 1))
    assert (first * second).mean().abs() < 6e-3


def test_uniform_numbers_lie_inside_the_unit_interval():
    u = source([0, 0]).uniform(0, (200_000,))
    assert u.min() > 0.0
    assert u.max() < 1.0
    counts = torch.histc(u, 20, 0.0, 1.0) / len(u[0])
    assert (counts - 0.05).abs().max() < 3e-3


def test_dtype_follows_the_plan():
    noise = source([3, 0], dtype=torch.float64)
    assert noise.normal(0, (2,)).dtype == noise.uniform(0, (2,)).dtype == torch.float64
