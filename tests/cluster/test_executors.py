"""What every executor promises, and what the local one does besides."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import job_functions as jobs
import pytest

from stable_worldmodel.cluster.executors import open_executor
from stable_worldmodel.cluster.executors.jobs import JobError, JobLost
from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Executor

KINDS = [
    pytest.param(("local", {"workers": 2}), id="local"),
    pytest.param(("ray", {"workers": 2}), id="ray", marks=pytest.mark.slow),
    pytest.param(("slurm", {"workers": 2, "cluster": "local"}), id="slurm", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def embedded() -> Iterator[None]:
    """Ray on this machine for all tests of this file."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 27)
    yield
    ray.shutdown()


@pytest.fixture(params=KINDS)
def executor(request, tmp_path: Path) -> Executor:
    name, options = request.param
    if name == "ray":
        request.getfixturevalue("embedded")
    if name == "slurm":
        pytest.importorskip("submitit")
        options = {**options, "folder": tmp_path / "logs"}
    return open_executor(name, **options)


def test_results_come_once_per_job(executor: Executor) -> None:
    assert isinstance(executor, Executor)
    assert sorted(executor(jobs.square, range(7))) == [n * n for n in range(7)]
    assert list(executor(jobs.square, [])) == []


def test_jobs_run_elsewhere(executor: Executor) -> None:
    assert os.getpid() not in set(executor(jobs.process, range(3)))


def test_a_job_whose_worker_is_killed_goes_again(executor: Executor, tmp_path: Path) -> None:
    given = [{"folder": str(tmp_path), "number": n, "deaths": 1 if n == 1 else 0} for n in range(4)]
    assert sorted(executor(jobs.die, given)) == [1, 1, 1, 2]
    assert len(list(tmp_path.glob("run-*"))) == 5


def test_an_error_has_its_type_and_the_traceback_of_the_worker(executor: Executor, tmp_path: Path) -> None:
    given = [{"folder": str(tmp_path), "number": n, "bad": 0, "seconds": 0.05} for n in range(300)]
    found: list[int] = []
    with pytest.raises(ContractError, match="number 0 is bad") as caught:
        found.extend(executor(jobs.fail_at, given))
    assert "in fail_at" in str(caught.value.__cause__)
    # Those that ran were waited for, those that did not start were given up.
    ran = {int(path.name.removeprefix("ran-")) for path in tmp_path.glob("ran-*")}
    assert set(found) == ran
    assert len(ran) < 299


def test_errors_and_values_that_cannot_be_sent_are_told(executor: Executor) -> None:
    with pytest.raises(JobError, match="Unpicklable: two arguments"):
        list(executor(jobs.fail_strangely, [0]))
    with pytest.raises(TypeError, match="pickle"):
        list(executor(jobs.return_strangely, [0]))


def test_functions_of_main_and_closures_are_sent(executor: Executor) -> None:
    factor = 3
    assert sorted(executor(lambda number: factor * number, [1, 2])) == [3, 6]


def test_tick_is_called_while_waiting(executor: Executor, tmp_path: Path) -> None:
    ticks = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 2:
            (tmp_path / "go").touch()

    assert list(executor(jobs.wait, [{"folder": str(tmp_path), "number": 0}], tick)) == [1]
    assert len(ticks) >= 2
    assert ticks[1] - ticks[0] > 0.9


@pytest.mark.parametrize("name", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_job_that_kills_every_worker_is_given_up(name: str, tmp_path: Path, request) -> None:
    if name == "ray":
        request.getfixturevalue("embedded")
    given = [{"folder": str(tmp_path), "number": 0, "deaths": 99}]
    with pytest.raises(JobLost, match="lost 2 times"):
        list(open_executor(name, workers=1, retries=1)(jobs.die, given))
    assert len(list(tmp_path.glob("run-*"))) == 2


def test_in_this_process() -> None:
    execute = open_executor("local", workers=0)
    assert list(execute(jobs.process, range(2))) == [os.getpid()] * 2
    with pytest.raises(jobs.Unpicklable):
        list(execute(jobs.fail_strangely, [0]))


def test_workers_end_with_a_caller_that_stops_early(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    given = [{"folder": str(tmp_path), "number": n} for n in range(6)]
    stream = open_executor("local", workers=2)(jobs.wait, given)
    next(stream)
    children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split()
    stream.close()
    left = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2
    assert len(left) <= len(children) - 2


def test_workers_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import job_functions as jobs
from stable_worldmodel.cluster.executors import open_executor
print(*open_executor("local", workers=2)(jobs.wait, [dict(folder={str(tmp_path)!r}, number=n) for n in range(2)]))
"""
    victim = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("run-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = subprocess.run(["pgrep", "-P", str(victim.pid)], capture_output=True, text=True).stdout.split()
    assert len(pids) == 2
    victim.kill()
    victim.wait()
    while any(_alive(int(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(int(pid)) for pid in pids)


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moon", {}, "cluster='moon': expected one of local, ray, slurm"),
        ("local", {"address": "x"}, "no options address: expected workers, retries"),
        ("local", {"workers": -1}, "workers=-1: expected an integer >= 0"),
        ("local", {"retries": 1.5}, "retries=1.5"),
        ("ray", {"workers": 0}, "workers=0: expected an integer >= 1"),
        ("ray", {"num_cpus": 0}, "not both of them 0"),
        ("slurm", {"cluster": "pbs"}, "cluster='pbs': expected one of slurm, local, debug"),
        ("slurm", {"time": 0}, "time=0"),
    ],
)
def test_bad_options_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        open_executor(name, **options)
