"""One writer at a time: a lock file beside the dataset, which also holds where several machines share the disk.

`<name>.lock` is created by its owner alone (O_EXCL), names the owner, and is locked with `flock` as long as the owner
lives. Within one machine `flock` decides: the kernel drops the lock of a process that died, and the file is taken over
at once. Some network file systems keep `flock` to each machine, or have none; so the owner also touches the file every
`HEARTBEAT` seconds, and what another machine owns is taken over only after `STALE` seconds without a sign of life, by
the clock of the file system. An owner that was suspended for so long finds that out before it writes again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import socket
import threading
import time
import uuid
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no flock; there the heartbeat decides
    fcntl = None  # type: ignore[assignment]

HEARTBEAT = 10.0  # seconds
STALE = 60.0  # seconds
SETTLE = 1.0  # seconds in which two that take over the same lock see each other
LENGTH = 511  # bytes of a name, padded with spaces
PATIENCE = 0.2  # seconds: who only looks whether a dataset is locked holds `flock` for microseconds

_NO_LOCKS = (
    errno.ENOLCK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EBADF,
)  # the last one: NFS, open for reading only


class DatasetLockedError(RuntimeError):
    """Another writer holds the dataset."""


def try_lock(fd: int) -> bool:
    """Lock an open file for this process, exclusively; False when another one holds it."""
    return _flock(fd) is not False


def _flock(fd: int) -> bool | None:
    """Like `try_lock`; None where the system or the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def lock_path(dataset: Path) -> Path:
    """Where the lock file of `dataset` lies."""
    return dataset.with_name(dataset.name + ".lock")


def is_locked(dataset: Path) -> bool:
    """Whether a live writer holds `dataset`."""
    return holder(dataset) is not None


def holder(dataset: Path) -> str | None:
    """Who holds `dataset`, in words; None when nobody does."""
    path = lock_path(dataset)
    try:
        try:
            fd = os.open(path, os.O_RDWR)  # NFS locks exclusively only what is open for writing
        except PermissionError:
            fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return _live_owner(path, fd, _flock(fd))
    finally:
        os.close(fd)


def mark_dead(dataset: Path) -> None:
    """Leave the lock file of a writer that died: the next one repairs what it opens."""
    path = lock_path(dataset)
    path.write_text(json.dumps({"boot": _boot_id()}) + "\n")
    os.utime(path, (0, 0))


class WriterLock:
    """Holds `<name>.lock` from construction to `release`.

    The lock of a dead owner is taken over. Raises DatasetLockedError, which names the owner, when it is alive.
    """

    def __init__(self, dataset: Path) -> None:
        self.path = lock_path(dataset)
        self._token = uuid.uuid4().hex
        self._lost = False
        self._open = threading.Lock()  # held by whoever uses or closes the file
        self._fd: int | None = self._acquire()
        self._seen = time.time()  # not `monotonic`, which stands still while a machine sleeps
        _HELD.add(self)
        _start_heartbeat()

    def _acquire(self) -> int:
        me = {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot_id(), "token": self._token}
        content = json.dumps(me).encode().ljust(LENGTH) + b"\n"
        patient_until = time.monotonic() + PATIENCE
        while True:
            self._create(content)
            try:
                fd = os.open(self.path, os.O_RDWR)
            except FileNotFoundError:  # its owner released it meanwhile
                continue
            try:
                locked = _flock(fd)
                if locked is False and time.monotonic() < patient_until:
                    os.close(fd)
                    time.sleep(PATIENCE / 20)
                    continue
                # A releasing owner unlinks the file: what we locked may no longer be what the name means.
                if locked is not False and not self._is_named(fd):
                    os.close(fd)
                    continue
                owner = _owner_in(fd)
                if locked is False or owner.get("token") != self._token:
                    self._take_over(fd, locked, owner, content)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def _create(self, content: bytes) -> None:
        """Create the file with the owner in it, unless it is there. Closing it shows it to other machines."""
        with contextlib.suppress(FileExistsError):
            if _create_at_once(self.path, content):
                return
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(fd, content)
            except BaseException:
                self.path.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)

    def _is_named(self, fd: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(fd), self.path.stat())
        return False

    def _take_over(self, fd: int, locked: bool | None, owner: dict[str, Any], content: bytes) -> None:
        """Write our name into a file that is there already; DatasetLockedError if its owner lives."""
        live = _live_owner(self.path, fd, locked)
        if live is not None:
            raise DatasetLockedError(
                f"{self.path}: another writer ({live}) holds this dataset; close it, or write to another path"
            )
        os.pwrite(fd, content, 0)  # over the other name as a whole, so that a file is never without one
        os.ftruncate(fd, len(content))
        os.utime(fd)  # makes network file systems send what was written
        if locked is None or owner.get("boot") != _boot_id():
            time.sleep(SETTLE)  # somebody on a third machine may have had the same idea
            if _read_owner(self.path).get("token") != self._token:
                raise DatasetLockedError(f"{self.path}: another writer took over this dataset at the same time")

    def check(self) -> None:
        """Raise DatasetLockedError when somebody took over the dataset while this process was suspended."""
        if time.time() - self._seen > STALE / 2:
            self.beat()
        if self._lost:
            raise DatasetLockedError(
                f"{self.path}: taken over by another writer after {STALE:.0f} s without a sign of life of this one"
            )

    def beat(self) -> None:
        """Give a sign of life, if the lock is still ours."""
        with self._open, contextlib.suppress(OSError):  # of a network that is down for a while
            if self._fd is None or self._lost:
                return
            found = _read_owner(self.path) if self.path.exists() else {}
            gone = not found and os.fstat(self._fd).st_nlink > 0  # moved away with its folder
            self._lost = not gone and found.get("token") != self._token
            if not self._lost:
                os.utime(self._fd)
                self._seen = time.time()

    def release(self) -> None:
        """Remove the lock file. Does nothing the second time."""
        if self._fd is None:
            return
        with contextlib.suppress(DatasetLockedError):
            self.check()
            self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close the file without releasing what another process holds through it."""
        with self._open:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _create_at_once(path: Path, content: bytes) -> bool:
    """Give a nameless file with this content its name; False where a system or file system knows no such files.

    A process that is killed meanwhile leaves nothing behind. FileExistsError if the name is taken.
    """
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        fd = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o644)
    except OSError:
        return False
    try:
        os.write(fd, content)
        # With `src_dir_fd`, which an absolute path ignores, Python asks the system to follow the link in /proc.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
    except FileExistsError:
        raise
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


# -- owners ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _boot_id() -> str:
    """What tells one running kernel from another."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{uuid.getnode():x}"


def _owner_in(fd: int) -> dict[str, Any]:
    os.lseek(fd, 0, os.SEEK_SET)
    with contextlib.suppress(ValueError):
        found = json.loads(os.read(fd, 4096) or b"{}")
        if isinstance(found, dict):
            return found
    return {}


def _read_owner(path: Path) -> dict[str, Any]:
    """Open the file anew: that is when network file systems look at what others wrote."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return _owner_in(fd)
    finally:
        os.close(fd)


def _live_owner(path: Path, fd: int, locked: bool | None) -> str | None:
    """Describe the owner of an open lock file, if it is alive. `locked`: what `_flock` said."""
    owner = _owner_in(fd)  # nobody, between the creation of the file and the writing of the name
    name = json.dumps({key: owner[key] for key in ("pid", "host") if key in owner}) if owner else "not named yet"
    if locked is False:
        return name
    if locked and owner and owner.get("boot", _boot_id()) == _boot_id():
        return None
    age = _now_at(path) - os.fstat(fd).st_mtime
    return f"{name}, last sign of life {max(age, 0):.0f} s ago" if age < STALE else None


def _now_at(path: Path) -> float:
    """The time by the clock that dates the files beside `path`."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:  # nothing can be written here
        return time.time()
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)
        probe.unlink(missing_ok=True)


# -- signs of life -----------------------------------------------------------------------------------------------------

_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()
_beating: threading.Thread | None = None
_starting = threading.Lock()


def _start_heartbeat() -> None:
    """One thread for all locks of this process."""
    global _beating
    with _starting:
        if _beating is None:
            _beating = threading.Thread(target=_beat_for_ever, name="swm-locks", daemon=True)
            _beating.start()


def _beat_for_ever() -> None:
    while True:
        time.sleep(HEARTBEAT)
        for lock in list(_HELD):
            lock.beat()


def _forget_inherited_locks() -> None:
    """A forked child must not keep its dead parent's lock alive. It has no other threads than the one that forked."""
    global _beating, _starting
    _beating, _starting = None, threading.Lock()
    for lock in list(_HELD):
        lock._open = threading.Lock()  # which a thread of the parent may have held
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_locks)
