"""Handing jobs to workers, one at a time, whatever the workers are."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

from stable_worldmodel.cluster.executors.jobs import JobLost, received
from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two calls of `tick`
RETRIES = 3


class Lost(NamedTuple):
    """What came of a job instead of an answer."""

    reason: str


class Crew(Protocol):
    """Workers of one kind; numbers are those of jobs."""

    @property
    def room(self) -> int:
        """How many jobs can be given now."""
        ...

    def give(self, number: int, job: Any, again: bool) -> None:
        """Have a worker begin. `again` if the job was lost before."""
        ...

    def collect(self, seconds: float) -> list[tuple[int, bytes | Lost]]:
        """The jobs that ended; waits for one at most that long."""
        ...

    def close(self) -> None:
        """End the workers and what they run."""
        ...


def hand_out(crew: Crew, jobs: Sequence[Any], retries: int, tick: Callable[[], None] | None = None) -> Iterator[Any]:
    """Yield the results of all jobs as they come, and close the crew; see `protocols.Executor`.

    A lost job goes again, at most `retries` times, then it is a JobLost.
    """
    waiting, running = deque(range(len(jobs))), 0
    lost: Counter[int] = Counter()
    error: Exception | None = None
    beaten = time.monotonic()
    with closing(crew):
        while running or (waiting and error is None):
            while waiting and error is None and crew.room > 0:
                number = waiting.popleft()
                crew.give(number, jobs[number], lost[number] > 0)
                running += 1
            for number, found in crew.collect(PAUSE):
                running -= 1
                if isinstance(found, Lost):
                    lost[number] += 1
                    logger.info("job %d of %d was lost: %s", number, len(jobs), found.reason)
                    if lost[number] > retries:
                        error = error or _given_up(number, lost[number], found)
                    waiting.append(number)
                    continue
                try:
                    value = received(found)
                except Exception as failure:
                    error = error or failure
                    continue
                yield value
            if tick is not None and time.monotonic() - beaten >= PAUSE:
                beaten = time.monotonic()
                tick()
    if error is not None:
        raise error


def check_counts(minimum: int, workers: int | None, retries: int) -> None:
    """ContractError unless both are whole numbers, `workers` or None >= minimum and `retries` >= 0."""
    for name, value, least in (("workers", workers, minimum), ("retries", retries, 0)):
        if name == "workers" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ContractError(f"{name}={value!r}: expected an integer >= {least}")


def _given_up(number: int, times: int, last: Lost) -> JobLost:
    return JobLost(f"job {number} was lost {times} times with its worker; the last time: {last.reason}")
