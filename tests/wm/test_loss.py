"""SIGReg measures how far a batch is from a standard normal; the other terms equal their formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.loss import (
    REFERENCE_BATCH,
    ExpectileLoss,
    PLDMLoss,
    SIGReg,
    TemporalStraighteningLoss,
    VCReg,
    expectile_loss,
    weighted_sum,
)


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


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.0])
def test_a_shifted_normal_has_the_closed_form_value(shift):
    # One dimension, so that every direction sees the shift: err(t) = exp(-t^2) |exp(i t shift) - 1|^2.
    t = torch.linspace(-3, 3, 20001, dtype=torch.float64)
    error = torch.exp(-t.square()) * 2 * (1 - torch.cos(t * shift))
    expected = REFERENCE_BATCH * torch.trapezoid(error * torch.exp(-t.square() / 2), t)
    # Quantiles of the normal instead of a sample: no noise is left.
    z = torch.special.ndtri((torch.arange(8192, dtype=torch.float64) + 0.5) / 8192).float()
    assert value((z + shift)[None, :, None]).item() == pytest.approx(expected.item(), rel=0.01)


def test_an_exact_normal_scores_zero():
    z = torch.special.ndtri((torch.arange(8192, dtype=torch.float64) + 0.5) / 8192).float()
    assert value(z[None, :, None]).item() == pytest.approx(0.0, abs=1e-3)


# -- VICReg -----------------------------------------------------------------------------------------------------------


def covariance_terms(samples):
    """std and cov of samples (N, D), as the paper writes them."""
    c = torch.cov(samples.mT)
    d = len(c)
    std = torch.relu(1 - torch.sqrt(c.diagonal() + 1e-4)).mean()
    return std, (c.square().sum() - c.diagonal().square().sum()) / (d * d - d)


def test_batch_terms_are_those_of_the_covariance_at_each_step():
    z = 0.5 * normal(16, 3, 5)
    std, cov = (torch.stack(terms).mean() for terms in zip(*(covariance_terms(z[:, t]) for t in range(3)), strict=True))
    found = VCReg()(z)
    torch.testing.assert_close(found["std"], std)
    torch.testing.assert_close(found["cov"], cov)


def test_time_terms_are_those_of_each_clip_around_its_own_mean():
    z = 0.5 * normal(4, 7, 5) + 10 * normal(4, 1, 5, seed=1)
    std, cov = (torch.stack(terms).mean() for terms in zip(*(covariance_terms(clip) for clip in z), strict=True))
    found = VCReg()(z)
    torch.testing.assert_close(found["std_t"], std, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["cov_t"], cov, atol=1e-5, rtol=1e-3)


def test_plain_batches_have_the_terms_of_one_step():
    z = normal(16, 5)
    flat, clips = VCReg()(z), VCReg()(z[:, None])
    assert flat.keys() == {"std", "cov"}
    torch.testing.assert_close(flat, {name: clips[name] for name in flat})


def test_other_shapes_are_refused():
    with pytest.raises(ContractError, match=r"expected \(B, T, D\) or \(B, D\)"):
        VCReg()(torch.zeros(2, 2, 2, 2))


def test_uncorrelated_unit_dimensions_have_no_cost():
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert VCReg()(z)["std"] == 0
    assert VCReg()(z)["cov"] == 0


def test_gradient_pushes_almost_constant_embeddings_apart():
    z = (1e-3 * normal(16, 4)).requires_grad_()
    VCReg()(z)["std"].backward()
    assert z.grad is not None
    assert (z.grad * z).sum() < 0


def test_pldm_terms_have_the_published_weights():
    terms = PLDMLoss()(normal(8, 4, 6))
    weights = {name: weight for name, (weight, _) in terms.items()}
    assert weights == {"std": 18.0, "cov": 12.0, "std_t": 0.7, "cov_t": 0.0, "temp_align": 0.2}


def test_pldm_alignment_is_the_squared_step():
    z = normal(8, 4, 6)
    torch.testing.assert_close(PLDMLoss()(z)["temp_align"][1], z.diff(dim=1).square().mean())


def test_first_only_looks_at_the_first_frame():
    z = normal(8, 4, 6)
    terms = PLDMLoss(first_only=True)(z)
    torch.testing.assert_close(terms["std"][1], VCReg()(z[:, 0])["std"])
    torch.testing.assert_close(terms["std_t"][1], VCReg()(z)["std_t"])


def test_pldm_needs_no_memory_quadratic_in_the_batch():
    # 50,000 x 50,000 floats would be 10 GB.
    z = normal(50_000, 2, 3).requires_grad_()
    weighted_sum(PLDMLoss()(z))[0].backward()
    assert z.grad is not None


def test_straight_paths_cost_minus_one_and_turns_more():
    line = torch.arange(5.0)[None, :, None] * torch.tensor([1.0, 2.0])
    assert TemporalStraighteningLoss()(line).item() == pytest.approx(-1)
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    assert TemporalStraighteningLoss()(corner).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ContractError, match="at least 3"):
        TemporalStraighteningLoss()(corner[:, :2])


# -- expectiles and sums ----------------------------------------------------------------------------------------------


def test_expectile_loss_weighs_the_two_sides():
    target, predicted = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 3.0])
    torch.testing.assert_close(expectile_loss(target, predicted, 0.9), torch.tensor([0.9 * 1, 0.1 * 4]))
    assert ExpectileLoss(0.9)(predicted, target).item() == pytest.approx((0.9 + 0.4) / 2)


@given(st.floats(0.05, 0.95))
@settings(max_examples=10, deadline=None)
def test_the_expectile_of_two_points_minimises_the_loss(expectile):
    # Of 0 and 1: (1 - e) * m = e * (1 - m), so m = e.
    m = torch.tensor(expectile, dtype=torch.float64, requires_grad=True)
    expectile_loss(torch.tensor([0.0, 1.0], dtype=torch.float64), m, expectile).sum().backward()
    assert m.grad is not None
    assert m.grad.item() == pytest.approx(0, abs=1e-6)


def test_half_is_the_mean_squared_error_halved():
    a, b = normal(10), normal(10, seed=1)
    torch.testing.assert_close(expectile_loss(a, b, 0.5), 0.5 * (a - b).square())


def test_terms_without_weight_are_reported_and_not_added():
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    loss, metrics = weighted_sum({"a": (0.5, a), "b": (0.0, b)})
    loss.backward()
    assert (loss, metrics["loss"], metrics["b"]) == (1.0, 1.0, 3.0)
    assert (a.grad, b.grad) == (0.5, None)
    with pytest.raises(ContractError, match="weight 0"):
        weighted_sum({"b": (0.0, b)})
