"""Jobs for the tests of executors: functions of a module, as executors ask for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from stable_worldmodel.errors import ContractError


def square(number: int) -> int:
    return number * number


def process(_: object) -> int:
    return os.getpid()


def fail_at(job: dict) -> int:
    """Raise for the number `bad`; others note that they ran."""
    if job["number"] == job["bad"]:
        raise ContractError(f"number {job['bad']} is bad")
    time.sleep(job.get("seconds", 0))
    Path(job["folder"], f"ran-{job['number']}").touch()
    return job["number"]


class Unpicklable(Exception):
    def __init__(self, one: int, two: int):
        super().__init__("two arguments")


def fail_strangely(_: object) -> None:
    raise Unpicklable(1, 2)


def return_strangely(_: object) -> object:
    return (number for number in range(3))


def note(job: dict) -> int:
    """Count the runs of a job, and say where it runs."""
    folder, number = Path(job["folder"]), job["number"]
    runs = len(list(folder.glob(f"run-{number}-*")))
    (folder / f"run-{number}-{runs}").touch()
    (folder / f".pid-{number}").write_text(str(os.getpid()))
    (folder / f".pid-{number}").rename(folder / f"pid-{number}-{runs}")
    return runs + 1


def die(job: dict) -> int:
    """Kill the worker in the first `deaths` runs."""
    runs = note(job)
    if runs <= job["deaths"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return runs


def wait(job: dict) -> int:
    """Run until a file appears."""
    runs = note(job)
    while not Path(job["folder"], "go").exists():
        time.sleep(0.02)
    return runs
