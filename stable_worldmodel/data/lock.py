"""One writer at a time: an advisory lock file beside the dataset."""

from __future__ import annotations

import json
import os
import socket
import weakref
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows has no flock; there the lock file only informs
    fcntl = None  # type: ignore[assignment]


class DatasetLockedError(RuntimeError):
    """Another writer holds the dataset."""


def try_lock(fd: int) -> bool:
    """Lock an open file for this process, exclusively; False when another one holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_path(dataset: Path) -> Path:
    """Where the lock file of `dataset` lies."""
    return dataset.with_name(dataset.name + ".lock")


def is_locked(dataset: Path) -> bool:
    """Whether a live writer holds `dataset`."""
    path = lock_path(dataset)
    if not path.exists():
        return False
    with path.open("rb") as file:
        return not try_lock(file.fileno())


class WriterLock:
    """Holds `<name>.lock` from construction to `release`.

    The kernel drops the lock of a process that died, so a dead owner's lock file is simply taken over. The file
    names its owner for the error message. Raises DatasetLockedError when the owner is alive.
    """

    def __init__(self, dataset: Path) -> None:
        self.path = lock_path(dataset)
        self._fd: int | None = self._acquire()
        _HELD.add(self)

    def _acquire(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            if not try_lock(fd):
                owner = os.read(fd, 200).decode(errors="replace").strip() or "unknown"
                os.close(fd)
                raise DatasetLockedError(
                    f"{self.path}: another writer ({owner}) holds this dataset; close it, or write to another path"
                )
            # A releasing owner unlinks the file: what we locked may no longer be what the name means.
            if self.path.exists() and os.path.samestat(os.fstat(fd), self.path.stat()):
                break
            os.close(fd)
        os.ftruncate(fd, 0)
        os.write(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\n")
        return fd

    def release(self) -> None:
        """Remove the lock file. Does nothing the second time."""
        if self._fd is None:
            return
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close the file without releasing what another process holds through it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_inherited_locks() -> None:
    """A forked child must not keep its dead parent's lock alive."""
    for lock in list(_HELD):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_locks)
