"""Intervals for reported numbers."""

from __future__ import annotations


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success probability, as two fractions in [0, 1] (Wilson, JASA 1927).

    Raises ValueError when `total` < 1 or `successes` is not within 0..total.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(total)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
