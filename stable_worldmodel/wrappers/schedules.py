"""Numbers that change with progress: how strong a visual change is, as a function of a step or episode count.

A schedule is any callable that maps progress x >= 0 to a number; these five are frozen dataclasses, so that they print,
compare and pickle. Write u = min(x / duration, 1) below.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from stable_worldmodel.errors import ContractError

Schedule = Callable[[float], float]
Strength = float | Schedule


class _Checked:
    """Every field a finite number, and those that divide x greater than 0; else ContractError."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            where = f"{type(self).__name__}({field.name}={value!r})"
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ContractError(f"{where}: expected a finite number")
            if field.name in ("duration", "time_constant", "period") and value <= 0:
                raise ContractError(f"{where}: expected a number > 0")


@dataclass(frozen=True)
class Constant(_Checked):
    """f(x) = value."""

    value: float

    def __call__(self, x: float) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(_Checked):
    """f(x) = start + (end - start) u, then `end`."""

    start: float
    end: float
    duration: float  # of the ramp, in the unit of x

    def __call__(self, x: float) -> float:
        return _mix(self.start, self.end, min(x / self.duration, 1.0))


@dataclass(frozen=True)
class Cosine(_Checked):
    """f(x) = start + (end - start) (1 - cos(pi u)) / 2: half a cosine wave from `start` to `end`, then `end`."""

    start: float
    end: float
    duration: float  # of the half wave, in the unit of x

    def __call__(self, x: float) -> float:
        return _mix(self.start, self.end, (1 - math.cos(math.pi * min(x / self.duration, 1.0))) / 2)


@dataclass(frozen=True)
class Exponential(_Checked):
    """f(x) = end + (start - end) exp(-x / time_constant): approaches `end`, which may be 0."""

    start: float
    end: float
    time_constant: float  # after it, 37 % of the way to `end` are left

    def __call__(self, x: float) -> float:
        return _mix(self.end, self.start, math.exp(-x / self.time_constant))


@dataclass(frozen=True)
class Sinusoidal(_Checked):
    """f(x) = low + (high - low) (1 - cos(2 pi (x / period + phase))) / 2: from `low` up to `high` and back."""

    low: float
    high: float
    period: float  # of a full wave, in the unit of x
    phase: float = 0.0  # in periods; 0.5 starts at `high`

    def __call__(self, x: float) -> float:
        return _mix(self.low, self.high, (1 - math.cos(2 * math.pi * (x / self.period + self.phase))) / 2)


def _mix(a: float, b: float, share: float) -> float:
    """From a (share = 0) to b (1); written so that rounding leaves neither end of the range."""
    return (1 - share) * a + share * b


constant, linear, cosine, exponential, sinusoidal = Constant, Linear, Cosine, Exponential, Sinusoidal
