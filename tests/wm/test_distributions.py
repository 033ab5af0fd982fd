"""Squashed numbers, two-hot regression and squashed Gaussians equal their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.wm.distributions import (
    PercentileScale,
    TwoHot,
    categorical_kl,
    gaussian_log_prob,
    squashed_gaussian,
    symexp,
    symlog,
)

TDMPC2 = TwoHot(101, -10.0, 10.0, squash=True)
DREAMER = TwoHot(255, -20.0, 20.0, squash=False)
BOTH = pytest.mark.parametrize("twohot", [TDMPC2, DREAMER], ids=["symlog", "raw"])


@given(st.floats(-1e4, 1e4))
@settings(max_examples=50, deadline=None)
def test_symexp_undoes_symlog(x):
    x = torch.tensor(x, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_symlog_is_odd_and_logarithmic():
    torch.testing.assert_close(symlog(torch.tensor([math.e - 1, 1 - math.e, 0.0])), torch.tensor([1.0, -1.0, 0.0]))


@BOTH
@given(x=st.floats(-2e4, 2e4))
@settings(max_examples=50, deadline=None)
def test_the_mean_of_a_two_hot_target_is_the_number(twohot, x):
    x = torch.tensor([x], dtype=torch.float32)
    p = twohot.encode(x)
    assert (p > 0).sum() <= 2
    torch.testing.assert_close(p.sum(), torch.tensor(1.0))
    # As accurate as float32 sums over bins of that size are.
    torch.testing.assert_close(twohot.decode((p + 1e-30).log()), x, rtol=2e-3, atol=2e-3)


@BOTH
def test_loss_is_the_cross_entropy_with_the_two_hot_target(twohot):
    rng = torch.Generator().manual_seed(0)
    x, logits = 10 * torch.randn(7, 3, generator=rng), torch.randn(7, 3, len(twohot.centres), generator=rng)
    expected = -(twohot.encode(x) * logits.log_softmax(dim=-1)).sum(dim=-1)
    torch.testing.assert_close(twohot.loss(logits, x), expected)


@BOTH
def test_numbers_beyond_the_bins_count_as_the_last_bin(twohot):
    p = twohot.encode(torch.tensor([-1e12, 1e12]))
    assert p[0, 0] == 1
    assert p[1, -1] == 1


@BOTH
def test_uniform_logits_mean_exactly_zero(twohot):
    assert twohot.decode(torch.zeros(len(twohot.centres))).item() == pytest.approx(0, abs=1e-6)


def test_categorical_kl_is_that_of_torch():
    rng = torch.Generator().manual_seed(0)
    p, q = (torch.randn(5, 3, 4, generator=rng).log_softmax(-1) for _ in range(2))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    ).sum(dim=-1)
    torch.testing.assert_close(categorical_kl(p, q), expected)
    torch.testing.assert_close(categorical_kl(p, p), torch.zeros(5))


def test_gaussian_density_is_that_of_torch():
    rng = torch.Generator().manual_seed(0)
    x, mean, log_std = (torch.randn(5, 3, generator=rng) for _ in range(3))
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(x).sum(dim=-1)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_std), expected)


def test_squashed_density_is_that_of_the_transformed_normal():
    mean, log_std = torch.tensor([[0.3, -1.0]]), torch.tensor([[-0.5, 0.2]])
    action, log_p = squashed_gaussian(mean, log_std, torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(mean, log_std.exp())
    transformed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(log_p, transformed.log_prob(action).sum(dim=-1), rtol=1e-3, atol=1e-4)
    assert action.abs().max() < 1


def test_far_means_keep_a_finite_density():
    _, log_p = squashed_gaussian(torch.tensor([[50.0]]), torch.zeros(1, 1), torch.Generator().manual_seed(0))
    assert torch.isfinite(log_p).all()


def test_scale_moves_to_the_range_and_never_below_its_floor():
    scale = PercentileScale(rate=0.5)
    x = torch.linspace(0, 100, 1001)
    scale.update(x)
    assert scale.value.item() == pytest.approx(0.5 * 1 + 0.5 * 90)
    for _ in range(20):
        scale.update(torch.zeros(10))
    assert scale().item() == 1.0
