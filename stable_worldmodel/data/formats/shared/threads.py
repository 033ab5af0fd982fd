"""One pool of threads per process for work that releases the GIL: decoding, encoding, reading files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import TypeVar

T = TypeVar("T")

MOST_THREADS = 8


def in_threads(work: Callable[[int, int], None], size: int, block: int) -> None:
    """Call `work(start, stop)` for the blocks of range(size), spread over the cores; the calling thread takes part.

    The first exception stops the handing out of blocks and is raised when the running ones have ended. So is Ctrl-C,
    whenever it comes: when this function is left, in whatever way, nothing is running any more.
    """
    blocks = -(-size // block)
    helpers = min(num_threads(), blocks) - 1
    numbers = count()  # next() of it is atomic
    stopped = False
    failures: list[BaseException] = []
    active = 0
    changed = threading.Condition()

    def run() -> None:
        nonlocal stopped
        try:
            while not stopped and (i := next(numbers)) < blocks:
                work(i * block, min((i + 1) * block, size))
        except BaseException:
            stopped = True
            raise

    def help_out() -> None:
        nonlocal active
        with changed:
            if stopped:  # all was done before it began
                return
            active += 1
        try:
            run()
        except BaseException as error:
            failures.append(error)
        finally:
            with changed:
                active -= 1
                changed.notify()

    if helpers <= 0:
        run()
        return
    try:
        for _ in range(helpers):
            _pool(os.getpid()).submit(help_out)
        run()
    finally:
        stopped = True
        # For those that have begun: helpers that call this function themselves would wait for each other otherwise.
        _wait(changed, lambda: active == 0)
    if failures:
        raise failures[0]


def in_background(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in another thread and return a function that gives its result.

    What has not begun by then is done by the caller of that function, so it never waits for a thread to become free.
    """
    future = _pool(os.getpid()).submit(work)
    return lambda: work() if future.cancel() else future.result()


def _wait(changed: threading.Condition, over: Callable[[], bool]) -> None:
    """Wait until `over()`. Ctrl-C is raised afterwards."""
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            with changed:
                changed.wait_for(over)
            break
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def num_threads() -> int:
    """Threads that work at the same time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


@lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked child has another pid and gets its own."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="swm-frames")
