"""A job on its way to a worker, and its result or error on the way back."""

from __future__ import annotations

import functools
import pickle
import time
import traceback
from typing import Any

import cloudpickle

PATIENCE = 120.0  # seconds a job that goes again waits for files that its lost worker may still hold


class JobLost(ChildProcessError):
    """Every worker that a job was given to was lost."""


class JobTraceback(Exception):
    """The traceback of a job's error in its worker, as the cause of that error here."""

    def __init__(self, text: str):
        super().__init__(text)

    def __str__(self) -> str:
        return f"in the worker:\n\n{self.args[0]}"


class JobError(RuntimeError):
    """An error of a job that cannot be sent as it is; has its type and message."""


def packed(value: Any) -> bytes:
    """As bytes for `answer`; functions and classes of `__main__` are sent whole."""
    return cloudpickle.dumps(value)


def answer(function: bytes, job: bytes, again: bool) -> bytes:
    """Run a packed job in a worker. Never raises an Exception: errors are part of the answer.

    `again` tells that the job was given to another worker before, which may need a moment to die.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return cloudpickle.dumps(("value", _loaded(function)(pickle.loads(job))))
        except Exception as error:
            if again and _is_locked(error) and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            return _failure(error)


def received(answered: bytes) -> Any:
    """The value of an answer; or raises the job's error, with the worker's traceback as its cause."""
    kind, *rest = pickle.loads(answered)
    if kind == "value":
        return rest[0]
    error, trace = rest
    raise error from JobTraceback(trace)


@functools.lru_cache(maxsize=4)
def _loaded(function: bytes) -> Any:
    return pickle.loads(function)


def _is_locked(error: Exception) -> bool:
    from stable_worldmodel.data import DatasetLockedError

    return isinstance(error, DatasetLockedError)


def _failure(error: Exception) -> bytes:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        sent = cloudpickle.dumps(("error", error, trace))
        pickle.loads(sent)
    except Exception:
        return pickle.dumps(("error", JobError(f"{type(error).__name__}: {error}"), trace))
    return sent
