"""Locks where several machines share a disk: what another one owns is left alone while it gives signs of life."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from stable_worldmodel.data import DatasetLockedError, load_dataset, lock, open_writer
from stable_worldmodel.data.lock import STALE, WriterLock, holder, is_locked, lock_path

ELSEWHERE = {"pid": 7, "host": "node17", "boot": "another kernel", "token": "theirs"}
ROW = {"action": [0.0]}


def owned_by(dataset, age, **owner):
    path = lock_path(dataset)
    path.write_text(json.dumps({**ELSEWHERE, **owner}) + "\n")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.05)


def test_the_lock_of_another_machine_is_respected_while_it_gives_signs_of_life(tmp_path):
    dataset = tmp_path / "d.h5"
    path = owned_by(dataset, STALE / 2)
    before = path.read_text()
    assert is_locked(dataset)
    assert "node17" in holder(dataset)
    with pytest.raises(DatasetLockedError, match=r'"pid": 7, "host": "node17".*last sign of life 30 s ago'):
        open_writer(dataset)
    assert path.read_text() == before
    assert [found.name for found in tmp_path.iterdir()] == ["d.h5.lock"]


def test_the_lock_of_another_machine_is_taken_over_when_it_is_silent(tmp_path):
    dataset = tmp_path / "d.h5"
    owned_by(dataset, STALE + 5)
    assert not is_locked(dataset)
    with open_writer(dataset) as writer:
        writer.write_episode(ROW)
        assert json.loads(lock_path(dataset).read_text())["pid"] == os.getpid()
    assert load_dataset(dataset).num_episodes == 1
    assert not lock_path(dataset).exists()


def test_on_this_machine_the_kernel_tells_who_is_dead(tmp_path):
    dataset = tmp_path / "d.h5"
    owned_by(dataset, 0, boot=lock._boot_id())
    assert not is_locked(dataset)
    with open_writer(dataset) as writer:
        assert is_locked(dataset)
        with pytest.raises(DatasetLockedError, match=f'"pid": {os.getpid()}'):
            open_writer(dataset)
        writer.write_episode(ROW)


def test_without_locks_of_the_file_system_signs_of_life_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_flock", lambda fd: None)
    dataset = tmp_path / "d.h5"
    with WriterLock(dataset):
        assert is_locked(dataset)
        with pytest.raises(DatasetLockedError):
            WriterLock(dataset)
        os.utime(lock_path(dataset), (time.time() - STALE - 1,) * 2)
        assert not is_locked(dataset)
    owned_by(dataset, STALE + 5, boot=lock._boot_id())
    WriterLock(dataset).release()
    assert not lock_path(dataset).exists()


def test_of_many_that_want_a_lock_one_gets_it(tmp_path, monkeypatch):
    """Also where nothing but the exclusive creation of the file keeps them apart."""
    monkeypatch.setattr(lock, "_flock", lambda fd: None)
    for round in range(20):
        outcomes, ready = [], threading.Barrier(6)

        def take(dataset=tmp_path / f"{round}.h5", outcomes=outcomes, ready=ready):
            ready.wait()
            try:
                outcomes.append(WriterLock(dataset))
            except DatasetLockedError:
                outcomes.append(None)

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = [outcome for outcome in outcomes if outcome is not None]
        assert len(outcomes) == 6
        assert len(held) == 1
        held[0].release()


@pytest.mark.parametrize("flock", [True, None])
def test_a_lock_file_without_a_name_belongs_to_who_just_created_it(tmp_path, monkeypatch, flock):
    monkeypatch.setattr(lock, "_flock", lambda fd: flock)
    dataset = tmp_path / "d.h5"
    lock_path(dataset).touch()
    with pytest.raises(DatasetLockedError, match="not named yet"):
        WriterLock(dataset)
    assert lock_path(dataset).read_bytes() == b""
    os.utime(lock_path(dataset), (time.time() - STALE - 1,) * 2)
    WriterLock(dataset).release()
    assert not lock_path(dataset).exists()


def test_who_creates_the_file_holds_it_only_with_the_lock_of_the_kernel(tmp_path, monkeypatch):
    """Somebody who looks whether the dataset is locked, or takes it, may come between creation and `flock`."""
    real, answers = lock._flock, [False, False]
    monkeypatch.setattr(lock, "_flock", lambda fd: answers.pop() if answers else real(fd))
    held = WriterLock(tmp_path / "d.h5")
    other = os.open(held.path, os.O_RDWR)
    assert not answers
    assert real(other) is False
    os.close(other)
    held.release()
    monkeypatch.setattr(lock, "_flock", lambda fd: False)
    with pytest.raises(DatasetLockedError):
        WriterLock(tmp_path / "d.h5")


def test_two_that_take_over_at_the_same_time_see_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.5)
    dataset = tmp_path / "d.h5"
    owned_by(dataset, STALE + 5)
    rival = threading.Timer(0.2, lambda: owned_by(dataset, 0, host="node18"))
    rival.start()
    with pytest.raises(DatasetLockedError, match="at the same time"):
        WriterLock(dataset)
    rival.join()
    assert json.loads(lock_path(dataset).read_text())["host"] == "node18"


def test_an_owner_that_was_suspended_writes_no_more(tmp_path):
    dataset = tmp_path / "d.h5"
    with open_writer(dataset) as writer:
        writer.write_episode(ROW)
        owned_by(dataset, 0)  # another machine took over meanwhile
        writer._lock._seen -= STALE
        with pytest.raises(DatasetLockedError, match="taken over"):
            writer.write_episode(ROW)
    assert lock_path(dataset).exists()  # it is not ours to remove
    assert load_dataset(dataset).num_episodes == 1


def test_signs_of_life_are_given_and_survive_a_move_of_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    held = WriterLock(tmp_path / "a" / "d.h5")
    os.utime(held.path, (0, 0))
    held.beat()
    assert time.time() - held.path.stat().st_mtime < STALE
    (tmp_path / "a").rename(tmp_path / "b")
    held._seen -= STALE
    held.check()
    held.release()
    other = WriterLock(tmp_path / "b" / "e.h5")
    other.path.unlink()
    other._seen -= STALE
    with pytest.raises(DatasetLockedError):
        other.check()
    other.release()


def test_signs_of_life_end_with_the_lock(tmp_path):
    """The thread that gives them, for all locks of a process, must not stumble over one that is being released."""
    locks, done, errors = [WriterLock(tmp_path / f"{k}.h5") for k in range(200)], threading.Event(), []

    def beat():
        try:
            while not done.is_set():
                for held in locks:
                    held.beat()
        except BaseException as error:
            errors.append(error)

    beating = threading.Thread(target=beat)
    beating.start()
    for held in locks:
        time.sleep(0.001)  # somewhere in a sign of life
        held.release()
    done.set()
    beating.join()
    assert errors == []
    assert not any(held.path.exists() for held in locks)


@pytest.mark.parametrize("named", [True, False])
def test_a_lock_file_has_a_name_from_its_first_moment_on(tmp_path, monkeypatch, named):
    """Else a writer that is killed there would keep others away for a minute."""
    seen, real = [], {name: getattr(os, name) for name in ("write", "pwrite", "link", "ftruncate")}
    dataset = tmp_path / "d.h5"
    if named:
        lock.mark_dead(dataset)

    def watched(name):
        def call(*arguments, **options):
            result = real[name](*arguments, **options)
            if lock_path(dataset).exists():
                seen.append(json.loads(lock_path(dataset).read_text()))
            return result

        return call

    for name in real:
        monkeypatch.setattr(os, name, watched(name))
    WriterLock(dataset).release()
    assert seen
    assert all("boot" in owner for owner in seen)
    assert [file.name for file in tmp_path.iterdir()] == []


def test_file_systems_without_nameless_files_have_locks_too(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_create_at_once", lambda path, content: False)
    with WriterLock(tmp_path / "d.h5") as held:
        assert json.loads(held.path.read_text())["token"] == held._token
        with pytest.raises(DatasetLockedError):
            WriterLock(tmp_path / "d.h5")
    monkeypatch.setattr(os, "write", lambda fd, content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        WriterLock(tmp_path / "d.h5")
    assert not lock_path(tmp_path / "d.h5").exists()
