"""What a report shows, as plain values. It knows neither how they were made nor how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.statistics import wilson_interval

VIDEO_LIMIT = 20_000_000  # bytes of video in one report, before encoding as text


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
class Evaluation:
    """The episodes of one evaluation.

    Attributes:
        name: of the policy or checkpoint.
        successes: bool per episode.
        caption: what was run, in a line.
        metrics: (name, mean, interval, episodes) as texts.
        seeds: per episode, -1 where there is none.
        videos: those there are, in the order of the episodes; as many as fit are embedded.
        plan_seconds: duration of each solve.
        plan_costs: best cost of each solve by iteration, (solves, iterations).
    """

    name: str
    successes: Sequence[bool]
    caption: str = ""
    metrics: Sequence[tuple[str, str, str, str]] = ()
    seeds: Sequence[int] | None = None
    videos: Sequence[Video] = ()
    plan_seconds: Sequence[float] = ()
    plan_costs: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class DatasetCard:
    """The data behind a run. `steps` counts env steps, `size` is bytes on disk; None where it is not known."""

    name: str
    episodes: int
    steps: int
    size: int | None = None
    format: str | None = None
    columns: Sequence[tuple[str, str]] = ()  # name, and dtype with the shape of one row
    env: str | None = None
    policy: str | None = None


@dataclass(frozen=True)
class Cell:
    """Success under one factor of variation, over all seeds of it."""

    comparison: Comparison
    seeds: int


@dataclass(frozen=True)
class HeatMap:
    """Success by factor (rows) and checkpoint (columns); a cell is None where nothing was run."""

    env: str
    checkpoints: Sequence[str]
    factors: Sequence[str]
    cells: Mapping[tuple[str, str], Cell]  # by (factor, checkpoint)


@dataclass(frozen=True)
class RunReport:
    """Everything one report shows, in the order in which it shows it. A part that is empty is left out."""

    title: str
    comparisons: Sequence[Comparison] = ()
    protocol: str = ""  # how success was measured: pairs, goal offset, budget, held-out split
    contrasts: Sequence[str] = ()  # paired differences in words, or why there are none
    evaluations: Sequence[Evaluation] = ()
    heat_maps: Sequence[HeatMap] = ()
    # One row per logged step, with `step` or `epoch` and metrics such as `train/loss` and `val/loss`, which share a
    # plot. A metric may be absent from a row; names without a slash are not plotted.
    history: Sequence[Mapping[str, float]] = ()
    dataset: DatasetCard | None = None
    timings: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds
    command: str = ""  # repeats the run
    seeds: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # may be nested
    versions: Mapping[str, str] = field(default_factory=dict)
    git_revision: str | None = None
    machine: str = ""  # platform and number of processors
    video_limit: int = VIDEO_LIMIT  # bytes of video that may be embedded
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def __post_init__(self) -> None:
        if self.video_limit < 0:
            raise ContractError(f"video_limit={self.video_limit}: expected bytes >= 0")
