"""What a report shows, as plain values. It knows neither how they were made nor how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stable_worldmodel.utils.statistics import wilson_interval


@dataclass(frozen=True)
class Comparison:
    """Success of one policy. `rate`, `low` and `high` are percent; the interval is Wilson's at 95 %."""

    policy: str
    successes: int
    total: int
    rate: float
    low: float
    high: float

    @classmethod
    def from_counts(cls, policy: str, successes: int, total: int) -> Comparison:
        """Rate and interval of `successes` out of `total` trials. Raises ValueError unless 0 <= successes <= total."""
        low, high = wilson_interval(successes, total)
        return cls(policy, successes, total, 100 * successes / total, 100 * low, 100 * high)


@dataclass(frozen=True)
class Video:
    """One rollout to show. `path` is an mp4 (H.264) file, which is copied into the report."""

    path: Path
    label: str
    success: bool
    caption: str = ""


@dataclass(frozen=True)
class DatasetCard:
    """The data the run learned from. `steps` counts env steps, `size` is bytes on disk."""

    name: str
    episodes: int
    steps: int
    size: int


@dataclass(frozen=True)
class RunReport:
    """Everything one report shows, in the order in which it shows it."""

    title: str
    comparisons: Sequence[Comparison]
    protocol: str  # how success was measured: pairs, goal offset, budget, held-out split
    # One row per logged step, with `step` or `epoch` and metrics such as `train/loss` and `val/loss`, which share a
    # plot. A metric may be absent from a row; names without a slash are not plotted.
    history: Sequence[Mapping[str, float]]
    videos: Sequence[Video]
    dataset: DatasetCard
    timings: Mapping[str, float]  # stage -> seconds
    command: str  # repeats the run
    seeds: Mapping[str, int]
    config: Mapping[str, Any]  # may be nested
    versions: Mapping[str, str]
    git_revision: str | None
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
