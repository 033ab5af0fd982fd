"""Ctrl-C at a safe place.

Python raises KeyboardInterrupt between any two bytecodes. Inside a destructor or a weak-reference callback it is
printed and lost, and the run goes on; inside a library's callback it can leave that library's state half changed. A
long loop therefore notes the first Ctrl-C and raises where nothing is half done. A second one is raised at once, for
a loop that hangs.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


class InterruptGuard:
    """A context manager that holds back the first Ctrl-C until `check()`, or the end of the block, raises it.

    Does nothing outside the main thread, where Python delivers no signals, or where the caller handles SIGINT already.
    """

    def __init__(self) -> None:
        self._requested = False
        self._installed = False

    def __enter__(self) -> InterruptGuard:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False
        if kind is None:
            self.check()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._requested:
            signal.default_int_handler(signum, frame)
        self._requested = True

    def check(self, *_: object) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed. Takes and ignores arguments, so it can be an observer."""
        if self._requested:
            self._requested = False
            raise KeyboardInterrupt
