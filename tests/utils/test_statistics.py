"""Intervals and tests against published examples, SciPy, and their own definitions."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import bootstrap, multinomial, norm

from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.statistics import (
    Estimate,
    bootstrap_mean,
    mcnemar_test,
    paired_difference_interval,
    wilson_interval,
)

Z2 = norm.ppf(0.975) ** 2
# Paired tables of Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8, as
# (n12, n21, n): airway hyper-responsiveness (Bentur 2009) and complete response (Cavo 2012), before and after.
BENTUR, CAVO = (1, 7, 21), (6, 16, 161)


def paired_counts(most=40):
    return st.tuples(st.integers(0, most), st.integers(0, most), st.integers(0, most)).map(
        lambda t: (t[0], t[1], sum(t) + 1)
    )


class TestWilson:
    @pytest.mark.parametrize(
        ("successes", "total", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_matches_newcombe_1998(self, successes, total, low, high):
        """Statistics in Medicine 17, 857-872, table I, method 3."""
        assert wilson_interval(successes, total) == pytest.approx((low, high), abs=5e-5)

    @given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_its_limits_solve_the_score_equation(self, counts):
        successes, total = counts
        for p in wilson_interval(successes, total):
            assert (successes / total - p) ** 2 * total == pytest.approx(Z2 * p * (1 - p), abs=1e-6)


class TestMcNemar:
    def test_matches_the_published_examples(self):
        assert mcnemar_test(*BENTUR[:2]) == pytest.approx(0.0703, abs=5e-5)
        assert mcnemar_test(*CAVO[:2]) == pytest.approx(0.052479, abs=5e-7)

    @given(st.integers(0, 60), st.integers(0, 60))
    def test_is_the_sign_test_on_discordant_pairs(self, only_a, only_b):
        n, fewer = only_a + only_b, min(only_a, only_b)
        tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
        assert mcnemar_test(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))
        assert mcnemar_test(only_b, only_a) == pytest.approx(mcnemar_test(only_a, only_b))


class TestPairedDifference:
    def test_matches_the_published_examples(self):
        assert paired_difference_interval(*BENTUR) == pytest.approx((-0.517, -0.026), abs=5e-4)
        assert paired_difference_interval(*CAVO) == pytest.approx((-0.1240, -0.0054), abs=5e-5)

    @pytest.mark.parametrize(("only_a", "only_b", "total"), [BENTUR, CAVO, (12, 2, 50), (3, 0, 10), (0, 5, 9)])
    def test_its_limits_solve_the_score_equation(self, only_a, only_b, total):
        for limit in paired_difference_interval(only_a, only_b, total):
            chance = most_likely_chance(only_a, only_b, total, limit)
            variance = total * (2 * chance + limit * (1 - limit))
            assert (only_a - only_b - total * limit) ** 2 == pytest.approx(Z2 * variance, rel=1e-3)

    @pytest.mark.parametrize("total", [1, 10, 200])
    def test_without_discordant_pairs_it_is_known_in_closed_form(self, total):
        width = Z2 / (total + Z2)
        assert paired_difference_interval(0, 0, total) == pytest.approx((-width, width))

    @given(paired_counts())
    def test_contains_the_difference_and_mirrors_when_the_sides_swap(self, counts):
        only_a, only_b, total = counts
        low, high = paired_difference_interval(only_a, only_b, total)
        assert -1 <= low <= (only_a - only_b) / total <= high <= 1
        assert paired_difference_interval(only_b, only_a, total) == pytest.approx((-high, -low), abs=1e-12)

    @given(paired_counts(), st.floats(0.5, 0.94))
    def test_less_confidence_is_a_smaller_interval_inside(self, counts, confidence):
        low, high = paired_difference_interval(*counts)
        inner_low, inner_high = paired_difference_interval(*counts, confidence)
        assert low <= inner_low + 1e-9
        assert inner_high <= high + 1e-9

    @given(paired_counts())
    def test_excludes_zero_exactly_when_mcnemars_statistic_is_significant(self, counts):
        only_a, only_b, total = counts
        low, high = paired_difference_interval(only_a, only_b, total)
        statistic = (only_a - only_b) ** 2 / max(only_a + only_b, 1)
        assert (low > 0 or high < 0) == (statistic > Z2)

    def test_impossible_counts_are_refused(self):
        for counts in ((1, 1, 1), (-1, 0, 3), (0, 0, 0)):
            with pytest.raises(ContractError, match="total"):
                paired_difference_interval(*counts)
        with pytest.raises(ContractError, match="confidence"):
            paired_difference_interval(1, 1, 5, confidence=95)

    @pytest.mark.parametrize("total", [20, 50, 100])
    def test_covers_the_truth_as_often_as_it_says(self, total):
        """Exact, by summing over every possible table."""
        tables = [(a, b) for a in range(total + 1) for b in range(total + 1 - a)]
        intervals = np.array([paired_difference_interval(a, b, total) for a, b in tables])
        cells = np.array([(a, b, total - a - b) for a, b in tables])
        coverage = []
        for p_a, p_b in [(0.3, 0.2), (0.1, 0.1), (0.25, 0.05), (0.4, 0.1), (0.5, 0.4), (0.1, 0.0), (0.15, 0.1)]:
            covered = (intervals[:, 0] <= p_a - p_b + 1e-12) & (p_a - p_b - 1e-12 <= intervals[:, 1])
            coverage.append(multinomial.pmf(cells, total, [p_a, p_b, 1 - p_a - p_b])[covered].sum())
        assert min(coverage) > 0.935
        assert 0.94 < np.mean(coverage) < 0.97


def most_likely_chance(only_a, only_b, total, difference):
    """Probability of `only_b` that maximises the likelihood while that of `only_a` is larger by `difference`."""

    def negative_log_likelihood(q):
        terms = [(only_a, q + difference), (only_b, q), (total - only_a - only_b, 1 - 2 * q - difference)]
        return -sum(count * math.log(p) for count, p in terms if count)

    edges = max(0.0, -difference), (1 - difference) / 2
    margin = 1e-13 * (edges[1] - edges[0])
    bounds = edges[0] + margin, edges[1] - margin
    return minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x


class TestBootstrapMean:
    def test_agrees_with_scipy_up_to_the_noise_of_resampling(self):
        values = np.random.default_rng(3).exponential(size=60)
        found = bootstrap_mean(values)
        expected = bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, random_state=7).confidence_interval
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
        assert found.mean == values.mean()
        assert found.n == 60

    def test_is_the_same_at_every_call_and_leaves_the_global_generator_alone(self):
        values = np.arange(20.0) ** 2
        np.random.seed(5)  # noqa: NPY002
        first = bootstrap_mean(values)
        drawn = np.random.random()  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        assert drawn == np.random.random()  # noqa: NPY002
        assert bootstrap_mean(values.tolist()) == first

    @pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
    def test_units_do_not_matter(self, scale):
        values = np.random.default_rng(0).normal(size=30)
        small, large = bootstrap_mean(values), bootstrap_mean(scale * values)
        np.testing.assert_allclose([large.low, large.high], [scale * small.low, scale * small.high], rtol=1e-9)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=12))
    def test_bounds_enclose_the_mean_within_the_data_without_a_warning(self, values):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = bootstrap_mean(values)
        if len(values) == 1:
            assert math.isnan(found.low)
            assert math.isnan(found.high)
        else:
            assert min(values) <= found.low <= found.mean <= found.high <= max(values)

    @pytest.mark.parametrize("values", [[5.0], [1.0, np.nan], [1.0, np.inf], [np.inf, -np.inf], [1e308, -1e308]])
    def test_nothing_is_said_about_one_value_or_values_that_are_not_finite(self, values):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = bootstrap_mean(values)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert "no interval" in str(found)

    def test_equal_values_have_an_interval_without_width(self):
        assert bootstrap_mean([0.1] * 7) == Estimate(0.1, 0.1, 0.1, 7)

    def test_bad_arguments_are_refused(self):
        for values in ([], [[1.0, 2.0]]):
            with pytest.raises(ContractError, match="expected"):
                bootstrap_mean(values)
        with pytest.raises(ContractError, match="confidence"):
            bootstrap_mean([1.0, 2.0], confidence=1.0)

    def test_covers_the_mean_of_paired_differences_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        covered = 0
        for _ in range(400):
            difficulty = rng.exponential(size=50)
            a, b = difficulty + rng.normal(0.2, 0.5, 50), difficulty + rng.exponential(0.3, 50)
            found = bootstrap_mean(a - b)
            covered += found.low <= -0.1 <= found.high
        assert 0.92 <= covered / 400 <= 0.975
