"""Jobs in the actors of a Ray cluster, or of Ray on this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_worldmodel.cluster.executors.crew import RETRIES, Lost, check_counts, hand_out
from stable_worldmodel.cluster.executors.jobs import JobLost, answer, packed
from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.pool.process import cpu_count

# Set while Ray starts, unless the user says otherwise.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_STORE = 128 << 20  # bytes of the object store of a Ray that is started here; results are small


@dataclass(frozen=True)
class RayExecutor:
    """Runs jobs in Ray actors.

    Each worker is an actor that runs one job after the other. Ray restarts actors whose process or node was lost, on
    any node with room; their job goes to whoever is free first. Actors that wait for room ask the autoscaler for it,
    and get jobs once they have it. They work in this process's folder, if their machine has it, and with its
    `STABLEWM_...` variables. If Ray runs in this process already, it is used and left as it is; else it is started, or
    connected to, for as long as the jobs take.
    """

    workers: int | None = None  # actors; None: as many as the cluster has room for at the start
    retries: int = RETRIES  # how often a job whose worker was lost goes again
    address: str | None = None  # of a cluster; None: RAY_ADDRESS, without which Ray is started on this machine
    num_cpus: float = 1  # cores that an actor asks for
    num_gpus: float = 0
    runtime_env: Mapping[str, Any] | None = None  # of the actors; see Ray

    def __post_init__(self) -> None:
        check_counts(1, self.workers, self.retries)
        if self.num_cpus < 0 or self.num_gpus < 0 or not self.num_cpus + self.num_gpus:
            raise ContractError(
                f"num_cpus={self.num_cpus}, num_gpus={self.num_gpus}: expected numbers >= 0, not both of them 0"
            )
        require("ray", "cluster")

    def __call__(
        self, function: Callable[[Any], Any], jobs: Sequence[Any], tick: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        if not jobs:
            return
        with self._session():
            width = min(len(jobs), self.workers or self._room())
            yield from hand_out(_Actors(packed(function), width, self), jobs, self.retries, tick)

    def _room(self) -> int:
        """Actors for which the cluster has cores and GPUs now, at least 1."""
        import ray

        found = ray.cluster_resources()
        needs = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        return max(1, min(int(found.get(name, 0) // need) for name, need in needs.items() if need))

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Ray, for the time of the block; left as it is where somebody else began it."""
        import ray

        if ray.is_initialized():
            yield
            return
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "address": address}
        if address == "local":
            cores = max(cpu_count(), int(self.num_cpus * (self.workers or 1)))
            quiet |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _STORE}
        else:
            _check_reachable(address)
        with _own_signals(), _silence():
            try:
                with _environment(_QUIET):
                    ray.init(**quiet)
            except ConnectionError as error:
                raise ContractError(f"no Ray cluster at {address}: {error}") from error
            try:
                yield
            finally:
                ray.shutdown()


def _check_reachable(address: str) -> None:
    """ContractError if nobody listens at host:port, which Ray would try to reach for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():  # auto, or a name that Ray knows
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ContractError(f"no Ray cluster at {address}: {error}") from error


class _Worker:
    """What an actor is."""

    def __init__(self, function: bytes, search_path: list[str], variables: dict[str, str], folder: str | None):
        sys.path.extend(path for path in search_path if path not in sys.path)
        os.environ.update(variables)
        if folder is not None and Path(folder).is_dir():
            os.chdir(folder)
        self._function = function

    def ready(self) -> None:
        """Answers as soon as the actor has a place to live."""

    def run(self, job: bytes, again: bool) -> bytes:
        return answer(self._function, job, again)


class _Actors:
    """A crew of actors, all asked for at once."""

    def __init__(self, function: bytes, width: int, options: RayExecutor):
        import ray

        self._ray = ray
        # A job is not retried by Ray: it would wait for its own actor, even if that finds no room any more.
        given: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0}
        given |= {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
        if options.runtime_env is not None:
            given["runtime_env"] = dict(options.runtime_env)
        self._make = ray.remote(**given)(_Worker).remote
        variables = {name: value for name, value in os.environ.items() if name.startswith("STABLEWM_")}
        folder = None if options.runtime_env else str(Path.cwd())  # which may have a working_dir of its own
        self._arguments = function, [str(Path(path).absolute()) for path in sys.path], variables, folder
        self._retries = options.retries
        self._failures = 0  # of actors to start
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, int | None]] = {}  # reference -> actor, and job if it has one
        for _ in range(width):
            self._await(self._make(*self._arguments))

    @property
    def room(self) -> int:
        return len(self._idle)

    def give(self, number: int, job: Any, again: bool) -> None:
        message = packed(job)
        actor = self._idle.pop()
        self._running[actor.run.remote(message, again)] = actor, number

    def collect(self, seconds: float) -> list[tuple[int, bytes | Lost]]:
        self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [found for reference in ended if (found := self._collected(reference)) is not None]

    def close(self) -> None:
        for actor in (*self._idle, *(actor for actor, _ in self._running.values())):
            self._ray.kill(actor)
        self._idle, self._running = [], {}

    def _await(self, actor: Any) -> None:
        """Count on the actor from when it is ready."""
        self._running[actor.ready.options(max_task_retries=-1).remote()] = actor, None

    def _collected(self, reference: Any) -> tuple[int, bytes | Lost] | None:
        """The job that ended and how; None for an actor that is ready."""
        actor, number = self._running.pop(reference)
        try:
            value = self._ray.get(reference)
        except self._ray.exceptions.ActorUnavailableError as error:  # Ray restarts it
            self._await(actor)
            return None if number is None else (number, Lost(str(error)))
        except self._ray.exceptions.RayError as error:
            if number is None:
                self._count_failure(error)
            self._await(self._make(*self._arguments))
            return None if number is None else (number, Lost(str(error)))
        self._idle.append(actor)
        return None if number is None else (number, value)

    def _count_failure(self, error: Exception) -> None:
        """JobLost when actors could not be started too often."""
        self._failures += 1
        if self._failures > self._retries:
            raise JobLost(f"Ray could not start a worker: {error}") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that are set in the block unless they are already."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give back the handler of SIGTERM, which Ray replaces."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep Ray's messages about lost workers, which it prints to stdout, off the terminal; its log files have them."""
    import ray._private.worker as printing

    before = getattr(printing, "_worker_logs_enabled", None)
    if before is None:  # another version of Ray
        yield
        return
    printing._worker_logs_enabled = False
    try:
        yield
    finally:
        printing._worker_logs_enabled = before
