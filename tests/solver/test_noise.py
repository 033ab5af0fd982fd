import numpy as np
import torch

from stable_worldmodel.solver import noise

LIKE = torch.zeros(())


def draw(*keys, seed=7, shape=(11,)):
    return noise.normal(noise.stream_seeds(seed, np.array(keys)), shape, LIKE)


def test_rows_do_not_depend_on_the_rows_beside_them():
    together = draw([1, 0], [2, 0], [3, 5], shape=(3, 37))
    assert torch.equal(together[1:2], draw([2, 0], shape=(3, 37)))


def test_solver_seed_and_both_parts_of_the_key_matter():
    drawn = [draw([1, 2]), draw([1, 2], seed=8), draw([2, 1]), draw([1, 3]), draw([-1, 2]), draw([1 + 2**32, 2])]
    assert len({str(row.tolist()) for row in drawn}) == len(drawn)


def test_a_longer_draw_continues_a_shorter_one():
    assert torch.equal(draw([1, 2], shape=(2, 64))[:, 0], draw([1, 2], shape=(4, 64))[:, 0])


def test_numbers_are_standard_normal_and_streams_uncorrelated():
    z = draw([0, 0], [0, 1], shape=(400_000,)).double()
    assert z.mean().abs() < 5e-3
    assert (z.std() - 1).abs() < 5e-3
    assert (z[0] * z[1]).mean().abs() < 6e-3


def test_dtype_follows_the_plan():
    assert noise.normal(np.array([3], np.uint64), (2,), LIKE.double()).dtype == torch.float64
