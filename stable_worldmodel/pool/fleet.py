"""The workers of a process pool: asked together, watched, and replaced when they are lost."""

from __future__ import annotations

import select
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.pool.handle import WorkerHandle, WorkerLost
from stable_worldmodel.pool.spaces import EnvSpaces
from stable_worldmodel.pool.worker import Reply

BUILD_PATIENCE = 120.0  # seconds, if the timeout is shorter: imports and compilers take their time


class Request(NamedTuple):
    """What one worker is asked to do."""

    method: str
    arguments: tuple = ()
    descriptors: tuple[int, ...] = ()
    resets: Collection[int] = ()  # envs of the pool that it resets: what they did before is of no interest
    may_raise: bool = False  # an exception is an answer for the caller, not a fault of the env


class Fleet:
    """W worker processes.

    Args:
        factories: one pickled list of env factories per worker.
        timeout: seconds without a call of an env after which a worker counts as hanging; None waits forever.
        max_restarts: how often a worker may fail on the same request before `give_up` is called.
        revive: brings the envs of a new worker to where those of the lost one were: `revive(w, request, cause)`,
            where `request` is about to be asked again and `cause` is None after an interruption.
        give_up: raises the error of a worker that keeps failing: `give_up(w, cause, failures)`.
        heartbeat: a number that changes with every env that worker w calls.
    """

    def __init__(
        self,
        factories: Sequence[bytes],
        timeout: float | None,
        max_restarts: int,
        revive: Callable[[int, Request, WorkerLost | None], None],
        give_up: Callable[[int, WorkerLost, int], None],
        heartbeat: Callable[[int], int],
    ):
        self._factories = factories
        self._timeout = timeout
        self._max_restarts = max_restarts
        self._revive, self._give_up, self._heartbeat = revive, give_up, heartbeat
        self._workers: list[WorkerHandle] = []
        self._unsure: set[int] = set()  # workers that may or may not have done what they were asked
        self._finalizer = weakref.finalize(self, _end, self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def start(self) -> list[list[EnvSpaces]]:
        """Start the processes and build all envs, in all workers at the same time; the spaces per worker."""
        for _ in self._factories:
            self._workers.append(WorkerHandle())
        for worker, factories in zip(self._workers, self._factories, strict=True):
            worker.send("build", factories)
        return [worker.receive() for worker in self._workers]

    def restart(self, w: int) -> None:
        """Replace worker w by a new process with newly built envs."""
        self._workers[w].kill()
        self._workers[w] = WorkerHandle()
        self._workers[w].send("build", self._factories[w])
        self._answer_of(w, None if self._timeout is None else max(self._timeout, BUILD_PATIENCE))

    def ask(self, w: int, method: str, *arguments: Any, descriptors: Sequence[int] = ()) -> Any:
        """One request to one worker, without a second try: WorkerLost if it fails."""
        self._workers[w].send(method, *arguments, descriptors=descriptors)
        return self._answer_of(w, self._timeout)

    def _answer_of(self, w: int, timeout: float | None) -> Any:
        replies, lost = self._gather({w}, timeout)
        if lost:
            raise lost[w]
        return replies[w]

    def run(self, requests: dict[int, Request]) -> dict[int, Reply]:
        """Have all requests done at the same time. A worker that fails is replaced, revived and asked again."""
        failures: Counter[int] = Counter()
        done: dict[int, Reply] = {}
        broken: dict[int, WorkerLost | None] = dict.fromkeys(self._unsure & requests.keys())
        self._unsure |= requests.keys()
        while requests:
            lost = self._repair(broken, requests)
            for w in requests.keys() - lost.keys():
                self._workers[w].send(requests[w].method, *requests[w].arguments, descriptors=requests[w].descriptors)
            replies, failed = self._gather(requests.keys() - lost.keys(), self._timeout)
            lost.update(failed)
            done.update(replies)
            self._unsure -= replies.keys()
            for w, cause in lost.items():
                self._raise_answer(w, cause, requests[w])
                failures[w] += 1
                if failures[w] > self._max_restarts:
                    self._give_up(w, cause, failures[w])
            broken = dict(lost)
            requests = {w: requests[w] for w in lost}
        return done

    def _repair(self, broken: dict[int, WorkerLost | None], requests: dict[int, Request]) -> dict[int, WorkerLost]:
        """Replace broken workers; those that were lost again on the way."""
        lost = {}
        for w, cause in broken.items():
            try:
                self.restart(w)
                self._revive(w, requests[w], cause)
            except WorkerLost as again:
                lost[w] = again
        return lost

    def _raise_answer(self, w: int, cause: WorkerLost, request: Request) -> None:
        """Raise exceptions that trying again cannot change: of a method the caller named, or a broken contract."""
        if cause.error is not None and (request.may_raise or isinstance(cause.error, (ContractError, MissingKeyError))):
            self._unsure.discard(w)
            raise cause.error from cause

    def _gather(self, numbers: Collection[int], timeout: float | None) -> tuple[dict[int, Any], dict[int, WorkerLost]]:
        """One answer of each worker: those received, and those that will never be."""
        replies: dict[int, Any] = {}
        lost: dict[int, WorkerLost] = {}
        waiting = {self._workers[w].fileno(): w for w in numbers}
        poll = select.poll()
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN)
        interval = None if timeout is None else 1000 * min(1.0, timeout / 4)
        silence = _Silence(self._heartbeat)
        while waiting:
            events = poll.poll(interval)
            for descriptor, _ in events:
                w = waiting.pop(descriptor)
                poll.unregister(descriptor)
                try:
                    replies[w] = self._workers[w].receive()
                except WorkerLost as cause:
                    lost[w] = cause
            if events or timeout is None:
                continue
            for descriptor, w in list(waiting.items()):
                if silence.of(w) >= timeout:
                    lost[w] = self._workers[w].hung(timeout)
                    poll.unregister(descriptor)
                    del waiting[descriptor]
        return replies, lost

    def stop(self, **kwargs: Any) -> list[BaseException]:
        """Have all envs closed and end all processes; the errors of closing."""
        errors = [worker.stop(**kwargs) for w, worker in enumerate(self._workers) if w not in self._unsure]
        self._finalizer()
        del self._revive, self._give_up, self._heartbeat  # they refer to the pool, which can now be forgotten
        return [error for error in errors if error is not None]


class _Silence:
    """For how many seconds a worker's heartbeat has not changed, as far as it was looked at."""

    def __init__(self, heartbeat: Callable[[int], int]):
        self._heartbeat = heartbeat
        self._begin = time.monotonic()
        self._heard: dict[int, tuple[int, float]] = {}

    def of(self, w: int) -> float:
        beat, now = self._heartbeat(w), time.monotonic()
        last, since = self._heard.setdefault(w, (beat, self._begin))
        if last != beat:
            self._heard[w] = (beat, now)
            return 0.0
        return now - since


def _end(workers: list[WorkerHandle]) -> None:
    """End all processes without asking; also when the pool is forgotten, or the interpreter exits."""
    for worker in workers:
        worker.kill()
    workers.clear()
