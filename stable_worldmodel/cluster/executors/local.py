"""Jobs in worker processes of this machine, or in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from stable_worldmodel.cluster.executors.crew import RETRIES, Lost, check_counts, hand_out
from stable_worldmodel.cluster.executors.jobs import packed
from stable_worldmodel.pool.handle import WorkerHandle, WorkerLost
from stable_worldmodel.pool.process import cpu_count


@dataclass(frozen=True)
class LocalExecutor:
    """Runs jobs on this machine.

    Workers are fresh interpreters, which do not import the caller's `__main__`, get one thread each for numerical
    libraries unless `OMP_NUM_THREADS` says more, and end with this process.
    """

    workers: int | None = None  # processes; None: one per core; 0: one job after the other in this process
    retries: int = RETRIES  # how often a job whose worker was killed goes again

    def __post_init__(self) -> None:
        check_counts(0, self.workers, self.retries)

    def __call__(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], tick: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        if self.workers == 0:
            return map(function, jobs)
        width = min(len(jobs), self.workers or cpu_count())
        return hand_out(_Processes(packed(function), width), jobs, self.retries, tick)


class JobHandle(WorkerHandle):
    """A worker process that runs jobs."""

    serves = "stable_worldmodel.cluster.executors.worker"


class _Processes:
    """A crew of processes, started when they are needed."""

    def __init__(self, function: bytes, width: int):
        self._function = function
        self._width = width
        self._idle: list[JobHandle] = []
        self._busy: dict[JobHandle, int] = {}

    @property
    def room(self) -> int:
        return self._width - len(self._busy)

    def give(self, number: int, job: Any, again: bool) -> None:
        message = packed(job)
        handle = self._idle.pop() if self._idle else JobHandle()
        self._busy[handle] = number
        handle.send("run", self._function, message, again)

    def collect(self, seconds: float) -> list[tuple[int, bytes | Lost]]:
        found: list[tuple[int, bytes | Lost]] = []
        ready: list[Any] = wait(list[Any](self._busy), seconds)
        for handle in ready:
            number = self._busy.pop(handle)
            try:
                found.append((number, handle.receive()))
                self._idle.append(handle)
            except WorkerLost as lost:
                handle.kill()
                found.append((number, Lost(f"{lost.reason}\n{lost.trace}".rstrip())))
        return found

    def close(self) -> None:
        for handle in (*self._idle, *self._busy):
            handle.kill()
        self._idle, self._busy = [], {}
