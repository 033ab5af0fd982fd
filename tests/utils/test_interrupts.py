"""The first Ctrl-C waits for a safe place, wherever Python was when it came; the second does not wait."""

import os
import signal
import threading

import pytest

from stable_worldmodel.utils.interrupts import InterruptGuard


@pytest.fixture(autouse=True)
def default_handler():
    """A shell may start background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_raised_by_check_and_only_once():
    with InterruptGuard() as guard:
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            guard.check()
        guard.check()


def test_one_inside_a_destructor_is_not_lost():
    class Closing:
        def __del__(self):
            press_ctrl_c()

    guard = InterruptGuard()
    with guard:
        Closing()
        with pytest.raises(KeyboardInterrupt):
            guard.check()


def test_it_is_raised_at_the_end_of_the_block_at_the_latest():
    with pytest.raises(KeyboardInterrupt), InterruptGuard():
        press_ctrl_c()


def test_the_second_is_raised_at_once():
    guard = InterruptGuard()
    with guard:
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            guard.check()


def interrupted_then_failing():
    with InterruptGuard():
        press_ctrl_c()
        raise ValueError("first")


def test_an_error_inside_is_not_replaced():
    with pytest.raises(ValueError, match="first"):
        interrupted_then_failing()


def test_the_handler_is_put_back_and_a_foreign_one_left_alone():
    with InterruptGuard():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    with InterruptGuard() as guard:
        press_ctrl_c()
        guard.check()
    assert heard == [1]


def test_other_threads_are_left_alone():
    failures = []

    def enter():
        try:
            with InterruptGuard() as guard:
                guard.check()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failures == []
