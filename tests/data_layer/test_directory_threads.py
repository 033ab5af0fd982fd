"""Work on several threads: all of it is done, and nothing runs on when the call is over."""

import signal
import threading
import time

import pytest

from stable_worldmodel.data.formats.shared import threads
from stable_worldmodel.data.formats.shared.threads import in_threads


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 4)
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("block", [1, 8])
def test_every_part_is_done_once(size, block):
    done = []
    in_threads(lambda start, stop: done.extend(range(start, stop)), size, block)
    assert sorted(done) == list(range(size))


def test_several_threads_take_part():
    met = threading.Barrier(4)
    in_threads(lambda start, stop: met.wait(10), 4, 1)


def test_helpers_may_use_helpers():
    done = []

    def outer(start, stop):
        in_threads(lambda a, b: done.extend((start, i) for i in range(a, b)), 20, 1)

    in_threads(outer, 20, 1)
    assert len(set(done)) == 400


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_the_first_error_is_raised_when_nothing_runs_any_more(where):
    caller = threading.get_ident()
    running, began = set(), threading.Barrier(4)

    def work(start, stop):
        running.add(start)
        if start < 4:
            began.wait(10)
        if (threading.get_ident() == caller) == (where == "caller"):
            running.discard(start)
            raise ZeroDivisionError
        time.sleep(0.05)
        running.discard(start)

    with pytest.raises(ZeroDivisionError):
        in_threads(work, 1000, 1)
    assert not running


@pytest.mark.parametrize("delay", [0.001, 0.02, 0.05])
def test_ctrl_c_waits_for_what_is_running(delay):
    running = []

    def work(start, stop):
        running.append(start)
        time.sleep(0.03)
        running.remove(start)

    def interrupted():
        threading.Timer(delay, signal.raise_signal, [signal.SIGINT]).start()
        in_threads(work, 1000, 1)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [start for start in running if start] in ([], running[:1])  # the caller's own was cut short
    time.sleep(0.05)
    assert len(running) <= 1
