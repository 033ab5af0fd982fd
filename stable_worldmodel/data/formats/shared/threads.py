"""One pool of threads per process for work that releases the GIL: decoding, encoding, reading files."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count

MOST_THREADS = 8


def in_threads(work: Callable[[int, int], None], size: int, block: int) -> None:
    """Call `work(start, stop)` for the blocks of range(size), spread over the cores; the calling thread takes part.

    The first exception stops the handing out of blocks and is raised when the running ones have ended.
    """
    blocks = -(-size // block)
    helpers = min(num_threads(), blocks) - 1
    numbers = count()  # next() of it is atomic
    stopped = False

    def run() -> None:
        nonlocal stopped
        try:
            while not stopped and (i := next(numbers)) < blocks:
                work(i * block, min((i + 1) * block, size))
        except BaseException:
            stopped = True
            raise

    if helpers <= 0:
        run()
        return
    jobs = [_pool(os.getpid()).submit(run) for _ in range(helpers)]
    try:
        run()
    finally:
        # Waiting for a helper that never started would be a deadlock when helpers call this function themselves.
        started = [job for job in jobs if not job.cancel()]
        for job in started:
            job.exception()
    for job in started:
        job.result()


def num_threads() -> int:
    """Threads that work at the same time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


@lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked child has another pid and gets its own."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="swm-frames")
