"""Work handed to other threads, and files that reach the disk together."""

import os
import threading

import pytest

from stable_worldmodel.data.formats.shared.disk import SYNC_THREADS, sync
from stable_worldmodel.data.formats.shared.threads import in_background, num_threads


def test_background_work_happens_elsewhere_and_gives_its_result():
    began = threading.Event()

    def work():
        began.set()
        return threading.get_ident()

    result = in_background(work)
    assert began.wait(10)
    assert result() != threading.get_ident()


def test_background_work_that_found_no_thread_is_done_by_who_needs_it():
    release = threading.Event()
    busy = [in_background(lambda: release.wait(30)) for _ in range(num_threads())]
    try:
        assert in_background(threading.get_ident)() == threading.get_ident()
    finally:
        release.set()
    assert all(wait() for wait in busy)


def test_background_failure_is_raised_where_the_result_is_needed():
    began = threading.Event()

    def fail():
        began.set()
        raise ValueError("no")

    result = in_background(fail)
    began.wait(10)
    with pytest.raises(ValueError, match="no"):
        result()


@pytest.mark.parametrize("count", [1, 2, 3 * SYNC_THREADS])
def test_every_file_is_synchronised_and_the_directory(tmp_path, monkeypatch, count):
    files = [tmp_path / str(i) for i in range(count - 1)]
    for file in files:
        file.touch()
    reached = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), reached.append(os.fstat(fd).st_ino)))
    sync([*files, tmp_path])
    assert sorted(reached) == sorted(path.stat().st_ino for path in [*files, tmp_path])


@pytest.mark.parametrize("count", [0, 5])
def test_a_file_that_cannot_be_synchronised_is_not_passed_over(tmp_path, count):
    files = [tmp_path / str(i) for i in range(count)]
    for file in files:
        file.touch()
    with pytest.raises(FileNotFoundError):
        sync([*files, tmp_path / "missing"])
