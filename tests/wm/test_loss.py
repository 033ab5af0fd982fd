"""SIGReg measures how far a batch is from a standard normal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.wm.loss import REFERENCE_BATCH, SIGReg


def value(z, seed=0, directions=128):
    return SIGReg(directions=directions)(z, torch.Generator().manual_seed(seed + 1000))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def collapsed_value():
    """128 * integral over [-3, 3] of (1 - exp(-t^2/2))^2 exp(-t^2/2) dt, in closed form."""

    def gauss(a):
        return math.sqrt(math.pi / a) * math.erf(3 * math.sqrt(a))

    return REFERENCE_BATCH * (gauss(0.5) - 2 * gauss(1.0) + gauss(1.5))


def expected_normal_value(batch):
    """Of a standard normal sample: the variance of both means is (1 - exp(-t^2)) / batch in total."""

    def gauss(a):
        return math.sqrt(math.pi / a) * math.erf(3 * math.sqrt(a))

    return REFERENCE_BATCH / batch * (gauss(0.5) - gauss(1.5))


def test_embeddings_at_the_origin_have_the_closed_form_value():
    assert value(torch.zeros(2, 8, 4)).item() == pytest.approx(collapsed_value(), rel=2e-3)


def test_standard_normal_embeddings_have_the_closed_form_mean():
    assert value(normal(128, 64, 16)).item() == pytest.approx(expected_normal_value(64), rel=0.05)


def test_normal_embeddings_score_far_below_all_others():
    z = normal(2, 512, 8)
    score = value(z)
    for other in (torch.zeros_like(z), 3 * z, 0.2 * z, z + 2, z[:, :, :1].expand(-1, -1, 8)):
        assert value(other) > 5 * score


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_rotations_keep_the_value_in_expectation(seed):
    z = normal(1, 64, 6, seed=seed).square()
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=seed + 1))
    a, b = value(z, directions=2048), value(z @ rotation, directions=2048)
    torch.testing.assert_close(a, b, rtol=0.1, atol=0.0)


def test_moments_of_two_halves_average_to_those_of_the_whole_batch():
    sigreg, x = SIGReg(), normal(2, 128, 32)
    halves = [sigreg.moments(half) for half in x.chunk(2, dim=1)]
    shared = [torch.stack(parts).mean(dim=0) for parts in zip(*halves, strict=True)]
    torch.testing.assert_close(sigreg.statistic(*shared), sigreg.statistic(*sigreg.moments(x)))


def test_a_repeated_batch_keeps_its_value():
    z = normal(2, 16, 4)
    torch.testing.assert_close(value(torch.cat([z, z, z], dim=1)), value(z))


def test_equal_generators_draw_equal_directions():
    z = normal(2, 16, 4)
    assert value(z, seed=3) == value(z, seed=3)
    assert value(z, seed=3) != value(z, seed=4)


def test_statistic_is_float32_under_autocast():
    z = normal(2, 16, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert value(z) == value(z.float())
        assert value(z.bfloat16()).dtype == torch.float32


def test_gradient_spreads_collapsed_embeddings():
    z = (0.01 * normal(1, 64, 4)).requires_grad_()
    value(z).backward()
    assert z.grad is not None
    assert (z.grad * z).sum() < 0
