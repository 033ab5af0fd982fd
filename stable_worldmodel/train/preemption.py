"""Signals by which a batch system says that a run must end soon."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on


class Preempted(SystemExit):
    """A run saved its state and ends, because it was told to. The process exits with `EXIT_STATUS`."""

    def __init__(self) -> None:
        super().__init__(EXIT_STATUS)


class Preemption:
    """A context manager that takes note of SIGTERM and SIGUSR1, which would else end the process at once.

    Signals that somebody handles already are left alone, and all of them outside the main thread.
    """

    def __init__(self) -> None:
        self.signal: str | None = None  # the name of the last one that came
        self._before: dict[int, signal.Handlers] = {}

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, self._note)
                    self._before[number] = signal.SIG_DFL
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
