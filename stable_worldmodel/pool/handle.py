"""One worker process, as the parent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from stable_worldmodel.pool.worker import Failure

# What the child runs. The search path comes first: everything else is found through it.
_BOOT = """
import faulthandler, json, sys
from multiprocessing.connection import Connection
pipe, lifeline, crash_report = map(int, sys.argv[1:4])
faulthandler.enable(crash_report)
faulthandler.register({signal}, crash_report)
connection = Connection(pipe)
sys.path[:] = json.loads(connection.recv_bytes())
from {module} import serve
serve(connection, lifeline)
"""
_TELL_STACK = signal.SIGUSR1  # makes the child write where it is to its crash report


class WorkerLost(Exception):
    """A worker died, hangs, or an env in it raised.

    Args:
        reason: in a few words.
        trace: the worker's own traceback, as far as there is one.
        env: the worker's number of the env it was busy with, None if unknown.
        error: the exception raised in the worker, if there was one.
    """

    def __init__(self, reason: str, trace: str = "", env: int | None = None, error: BaseException | None = None):
        super().__init__(reason)
        self.reason = reason
        self.trace = trace
        self.env = env
        self.error = error


class WorkerHandle:
    """Starts a fresh interpreter and talks to it. The process ends with `kill`, or when this process ends."""

    serves = "stable_worldmodel.pool.worker"  # the module whose `serve` runs there

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        # Never written to: the worker dies when our end closes. Each has its own, as the kernel notifies one process.
        lifeline, self._lifeline = os.pipe()
        self._crash_report = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill
        inherited = (theirs.fileno(), lifeline, self._crash_report.fileno())
        # The workers are the parallelism: numerical libraries and Mesa's software renderer get one thread each.
        environment = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0", **os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(signal=int(_TELL_STACK), module=self.serves), *map(str, inherited)],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal reaches the parent only
        )
        theirs.close()
        os.close(lifeline)
        self._connection = Connection(ours.detach())
        self._connection.send_bytes(json.dumps([str(Path(path).absolute()) for path in sys.path]).encode())

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, method: str, *arguments: Any, descriptors: Sequence[int] = ()) -> None:
        """Ask for `method(*arguments)`. A worker that is gone is noticed by `receive`."""
        message = pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)
        with contextlib.suppress(OSError):
            self._connection.send_bytes(message)
            for descriptor in descriptors:
                send_handle(self._connection, descriptor, self.pid)

    def receive(self) -> Any:
        """The answer to the oldest request; blocks. WorkerLost if there will be none, or if it is an exception."""
        try:
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(answer, Failure):
            raise WorkerLost("raised an exception", answer.trace, answer.env, answer.error)
        return answer

    def ask(self, method: str, *arguments: Any, descriptors: Sequence[int] = (), timeout: float | None = None) -> Any:
        """`send`, then `receive`. WorkerLost when no answer came in `timeout` seconds."""
        self.send(method, *arguments, descriptors=descriptors)
        if not self.ready(timeout):
            raise self.hung(timeout or 0.0)
        return self.receive()

    def ready(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout is None else 1000 * timeout))

    def _death(self) -> WorkerLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        status = self._process.poll()
        how = f"was killed by {signal.Signals(-status).name}" if status and status < 0 else f"ended, status {status}"
        return WorkerLost(f"worker {self.pid} {how}", self._read_crash_report())

    def hung(self, seconds: float) -> WorkerLost:
        """What to report for a worker that has been silent: where it hangs."""
        before = os.fstat(self._crash_report.fileno()).st_size
        with contextlib.suppress(OSError):
            os.kill(self.pid, _TELL_STACK)
        deadline = time.monotonic() + 1.0
        while os.fstat(self._crash_report.fileno()).st_size == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return WorkerLost(f"worker {self.pid} hung for {seconds:.3g} s", self._read_crash_report())

    def _read_crash_report(self) -> str:
        self._crash_report.seek(0)
        return self._crash_report.read().decode(errors="replace")

    def stop(self, patience: float = 5.0, **close_arguments: Any) -> BaseException | None:
        """Have the envs closed, then end the process; the error of closing them is returned, not raised."""
        try:
            self.ask("close", close_arguments, timeout=patience)
        except WorkerLost as lost:
            return lost.error
        finally:
            self.kill()
        return None

    def kill(self) -> None:
        """End the process now. A second call does nothing."""
        if self._connection.closed:
            return
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._crash_report.close()
        os.close(self._lifeline)
