"""Intervals and tests for reported numbers. SciPy is imported when the first one is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stable_worldmodel.errors import ContractError

# Part of the definition of a bootstrap interval: the same values always give the same bounds.
_BOOTSTRAP_SEED = 0
_RESAMPLES = 9999
_BATCH = 1_000_000  # values drawn at once, which bounds the memory of a resample


@dataclass(frozen=True)
class Estimate:
    """A mean over n values and its interval. The bounds are NaN where nothing can be said about the spread."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:.4g} (no interval, n = {self.n})"
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success probability, as two fractions in [0, 1] (Wilson, JASA 1927).

    Raises ValueError when `total` < 1 or `successes` is not within 0..total.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(total)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of independent `values` (n,) with its BCa bootstrap interval (Efron, JASA 1987), the same at every call.

    If all values are equal the interval has no width: the bootstrap knows nothing beyond the sample. One value, or one
    that is not finite, gives NaN bounds. Below some 20 values the interval is too narrow.

    Raises ContractError for no values, values that are not one-dimensional, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or len(data) == 0:
        raise ContractError(f"values have shape {data.shape}: expected (n,) with n >= 1")
    with np.errstate(all="ignore"):
        mean, spread = float(data.mean()), float(np.ptp(data))
    if len(data) == 1 or not math.isfinite(mean) or not math.isfinite(spread):
        return Estimate(mean, math.nan, math.nan, len(data))
    if spread == 0.0:
        value = float(data[0])
        return Estimate(value, value, value, len(data))
    # On the unit interval the third powers of BCa neither overflow nor vanish.
    low, high = _bca_interval((data - data.min()) / spread, confidence)
    bounds = np.clip(data.min() + spread * np.array([low, high]), data.min(), data.max())
    return Estimate(mean, min(float(bounds[0]), mean), max(float(bounds[1]), mean), len(data))


def _bca_interval(data: np.ndarray, confidence: float) -> tuple[float, float]:
    from scipy.stats import bootstrap

    interval = bootstrap(
        (data,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH // len(data)),
        confidence_level=confidence,
        method="BCa",
        random_state=np.random.default_rng(_BOOTSTRAP_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def mcnemar_test(only_a: int, only_b: int) -> float:
    """Two-sided p-value of McNemar's exact test (Psychometrika 1947), from the pairs in which one side succeeds."""
    from scipy.stats import binomtest

    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(int(only_a), int(only_a + only_b), 0.5).pvalue)


def paired_difference_interval(only_a: int, only_b: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of the difference of two paired probabilities, as fractions in [-1, 1].

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998): all differences that the score test does not reject.

    Args:
        only_a, only_b: pairs in which only one side succeeds.
        total: all pairs.

    Raises ContractError unless only_a + only_b <= total, total >= 1 and 0 < confidence < 1.
    """
    _check_confidence(confidence)
    if total < 1 or only_a < 0 or only_b < 0 or only_a + only_b > total:
        raise ContractError(
            f"only_a={only_a}, only_b={only_b}, total={total}: expected 0 <= only_a + only_b <= total, total >= 1"
        )
    observed = (only_a - only_b) / total
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2

    def rejected(difference: float) -> bool:
        # The probability of `only_b`, most likely under this difference, solves a quadratic equation.
        b = (2 * total - only_a + only_b) * difference - only_a - only_b
        c = -only_b * difference * (1 - difference)
        chance = (math.sqrt(max(b * b - 8 * total * c, 0.0)) - b) / (4 * total)
        variance = 2 * chance + difference * (1 - difference)
        return total * (observed - difference) ** 2 > z2 * variance

    return _last_accepted(observed, -1.0, rejected), _last_accepted(observed, 1.0, rejected)


def _last_accepted(inside: float, end: float, rejected: Callable[[float], bool]) -> float:
    """Where between `inside`, which is accepted, and `end` the rejection begins."""
    if not rejected(end):
        return end
    outside = end
    for _ in range(60):
        middle = (inside + outside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ContractError(f"confidence={confidence}: expected in (0, 1), such as 0.95")
