"""Jobs of a SLURM cluster, through submitit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stable_worldmodel.cluster.executors.crew import RETRIES, Lost, check_counts, hand_out
from stable_worldmodel.cluster.executors.jobs import answer, packed
from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.pool.process import cpu_count

CLUSTERS = ("slurm", "local", "debug")
ARRAY = 1000  # jobs in one array; clusters allow 1001 by default
_POLL = 0.05  # seconds between two looks at the jobs of this machine


@dataclass(frozen=True)
class SlurmExecutor:
    """Runs jobs as jobs of a SLURM cluster.

    They are submitted as arrays. A job that is preempted, or reaches its time limit, is requeued by submitit and begins
    again, so it goes on with what it left on disk; one that ends otherwise without an answer is submitted again. This
    process must live until the last one ended; started again, it submits what is missing.
    """

    workers: int | None = None  # jobs that run at a time; None: 256, or one per core with cluster='local'
    retries: int = RETRIES  # how often a job that was lost goes again
    folder: str | Path | None = None  # for logs, on a file system that all nodes see; None: below the data root
    partition: str | None = None
    time: int = 60  # minutes a job may take before it is requeued
    cpus: int = 1
    gpus: int = 0
    memory: float | None = None  # GB
    requeues: int = 20  # how often a job may reach its time limit
    setup: Sequence[str] = ()  # shell lines before a job, such as 'module load cuda'
    parameters: Mapping[str, Any] | None = None  # further ones of sbatch: {'account': 'vision', 'qos': 'low'}
    cluster: str = "slurm"  # 'local': processes of this machine, 'debug': this process, both by the same way

    def __post_init__(self) -> None:
        check_counts(1, self.workers, self.retries)
        if self.cluster not in CLUSTERS:
            raise ContractError(f"cluster={self.cluster!r}: expected one of {', '.join(CLUSTERS)}")
        for name, least in (("time", 1), ("cpus", 1), ("gpus", 0), ("requeues", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ContractError(f"{name}={value!r}: expected an integer >= {least}")
        require("submitit", "cluster")

    def __call__(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], tick: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        if not jobs:
            return iter(())
        return hand_out(_Queue(packed(function), len(jobs), self), jobs, self.retries, tick)

    @property
    def log_folder(self) -> Path:
        """Where submitit keeps scripts and logs. What belongs to jobs that ended well is deleted."""
        from stable_worldmodel.data import get_cache_dir

        return Path(self.folder) if self.folder is not None else get_cache_dir(sub_folder="jobs")

    def open(self) -> Any:
        """The executor of submitit."""
        import submitit

        try:
            opened = submitit.AutoExecutor(self.log_folder, cluster=self.cluster, slurm_max_num_timeout=self.requeues)
        except RuntimeError as error:
            raise ContractError(
                f"{error} Run this where sbatch is, or use cluster_options={{'cluster': 'local'}}"
            ) from error
        given: dict[str, Any] = {
            "name": "swm",
            "timeout_min": self.time,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory,
            "slurm_partition": self.partition,
            "slurm_array_parallelism": self.workers or 256,
            "slurm_setup": list(self.setup) or None,
            "slurm_additional_parameters": dict(self.parameters or {}) or None,
        }
        opened.update_parameters(**{name: value for name, value in given.items() if value is not None})
        return opened


@dataclass(frozen=True)
class Task:
    """A job as submitit runs it; on a preemption the same task is queued again."""

    function: bytes
    job: bytes
    again: bool
    search_path: tuple[str, ...]

    def __call__(self) -> bytes:
        sys.path.extend(path for path in self.search_path if path not in sys.path)
        return answer(self.function, self.job, self.again)

    def checkpoint(self) -> Any:
        """What submitit asks for when the job is to stop."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(replace(self, again=True))


class _Queue:
    """A crew whose workers are jobs of the cluster. What is given is submitted with the next `collect`."""

    def __init__(self, function: bytes, jobs: int, options: SlurmExecutor):
        self._function = function
        self._executor = options.open()
        self._array = options.cluster == "slurm"
        self._width = jobs if self._array else options.workers or cpu_count()
        self._search_path = tuple(str(Path(path).absolute()) for path in sys.path)
        self._given: list[tuple[int, Task]] = []
        self._running: dict[int, Any] = {}

    @property
    def room(self) -> int:
        return self._width - len(self._running) - len(self._given)

    def give(self, number: int, job: Any, again: bool) -> None:
        self._given.append((number, Task(self._function, packed(job), again, self._search_path)))

    def collect(self, seconds: float) -> list[tuple[int, bytes | Lost]]:
        self._submit()
        deadline = time.monotonic() + seconds
        while True:
            ended = [number for number, job in self._running.items() if job.done()]
            left = deadline - time.monotonic()
            if ended or left <= 0:
                return [(number, _outcome(self._running.pop(number))) for number in ended]
            time.sleep(left if self._array else min(left, _POLL))

    def close(self) -> None:
        for job in self._running.values():
            with suppress(OSError):
                job.cancel(check=False)
        self._running = {}

    def _submit(self) -> None:
        while self._given:
            part, self._given = self._given[:ARRAY], self._given[ARRAY:]
            with self._executor.batch():
                submitted = [self._executor.submit(task) for _, task in part]
            self._running |= {number: job for (number, _), job in zip(part, submitted, strict=True)}


def _outcome(job: Any) -> bytes | Lost:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        answered = job.result()
    except (UncompletedJobError, FailedJobError) as error:
        reason = str(error).splitlines()[0]
        return Lost(f"{reason} ... its logs are {job.paths.stdout} and {job.paths.stderr}")
    paths = job.paths
    for path in (paths.submitted_pickle, paths.result_pickle, paths.stdout, paths.stderr):
        path.unlink(missing_ok=True)
    return answered
