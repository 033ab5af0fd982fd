"""Telling a person how far a long run is. Code that works reports to a `Progress`; who watches decides how it looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class ProgressTask(Protocol):
    """One countable piece of work."""

    def advance(self, n: int = 1, *, steps: int = 0, **readings: float) -> None:
        """Count `n` more units done.

        `steps` counts the finer units among them (env steps of an episode, samples of a batch) and is shown as a rate.
        `readings` are latest values to show beside it (`loss=0.12`); they replace earlier ones of the same name.
        """
        ...


class Progress(Protocol):
    """Receives what a run is doing."""

    def stage(self, name: str) -> None:
        """A new part of the run begins."""
        ...

    def task(self, name: str, total: int, done: int = 0) -> ProgressTask:
        """Begin a task of `total` units, `done` of which an earlier run finished."""
        ...


class SilentProgress:
    """Shows nothing. It is its own task."""

    def stage(self, name: str) -> None:
        return

    def task(self, name: str, total: int, done: int = 0) -> SilentProgress:
        return self

    def advance(self, n: int = 1, *, steps: int = 0, **readings: float) -> None:
        return


@dataclass
class _Task:
    """A task's counters, and the line of text that both kinds of display show."""

    display: TerminalProgress
    name: str
    total: int
    done: int
    resumed: int
    started: float
    bar: tuple[Bars, TaskID] | None = None
    printed: float = 0.0  # when its last plain line was written
    steps: int = 0
    readings: dict[str, float] = field(default_factory=dict)

    def advance(self, n: int = 1, *, steps: int = 0, **readings: float) -> None:
        self.done += n
        self.steps += steps
        self.readings.update(readings)
        if n or steps or readings:
            self.display._show(self)

    def describe(self, now: float) -> str:
        """Count, rate, remaining time and readings: `120/500 · 1534 steps/s · 0:00:12 left · loss 0.0312`."""
        elapsed = max(now - self.started, 1e-9)
        parts = [f"{self.done}/{self.total}"]
        if self.steps:
            parts.append(f"{self.steps / elapsed:.0f} steps/s")
        if self.done >= self.total:
            parts.append(f"{_clock(elapsed)} taken")
        elif self.done > self.resumed:
            parts.append(f"{_clock((self.total - self.done) * elapsed / (self.done - self.resumed))} left")
        parts += [f"{name} {value:.4g}" for name, value in self.readings.items()]
        return " · ".join(parts)


class TerminalProgress:
    """Bars on stderr; where stderr is not a terminal, one plain line per task every `interval` seconds."""

    def __init__(self, stream: TextIO | None = None, interval: float = 10.0):
        from rich.console import Console

        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._interval = interval
        self._bars: Bars | None = None

    def __enter__(self) -> TerminalProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stage(self, name: str) -> None:
        self.close()
        self._console.print(name, style="bold", markup=False)

    def task(self, name: str, total: int, done: int = 0) -> _Task:
        now = time.monotonic()
        task = _Task(self, name, total, done, resumed=done, started=now, printed=now)
        if self._console.is_terminal:
            self._bars = self._bars or self._open_bars()
            task.bar = self._bars, self._bars.add_task(name, total=total, completed=done, text=f"{done}/{total}")
        return task

    def close(self) -> None:
        """Leave the terminal as it was; bars shown so far stay on screen."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _open_bars(self) -> Bars:
        from rich.progress import BarColumn, Progress, TextColumn

        bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            console=self._console,
            refresh_per_second=4,
        )
        bars.start()
        return bars

    def _show(self, task: _Task) -> None:
        now = time.monotonic()
        if task.bar is not None:
            bars, bar = task.bar
            bars.update(bar, completed=task.done, text=task.describe(now))
            return
        if task.done < task.total and now - task.printed < self._interval:
            return
        task.printed = now
        self._console.print(f"  {task.name}: {task.describe(now)}", markup=False, soft_wrap=True)


@contextmanager
def open_progress(progress: Progress | bool) -> Iterator[Progress]:
    """The display that a `progress=` argument means: True one on stderr, False none, an object itself."""
    if isinstance(progress, bool):
        if not progress:
            yield SilentProgress()
            return
        with TerminalProgress() as terminal:
            yield terminal
        return
    yield progress


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
