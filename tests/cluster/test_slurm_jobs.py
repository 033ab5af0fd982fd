"""SLURM, through submitit's executor of this machine: the same path, without a queue."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import job_functions as jobs
import pytest

from stable_worldmodel.cluster.executors import open_executor
from stable_worldmodel.errors import ContractError

pytest.importorskip("submitit")


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_ends(tmp_path: Path) -> None:
    """SIGUSR2 is what SLURM sends before it takes a job's node away."""
    execute = open_executor("slurm", cluster="local", folder=tmp_path / "logs", retries=0)
    given = [{"folder": str(tmp_path), "number": n} for n in range(2)]

    def preempt() -> None:
        _until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        os.kill(int((tmp_path / "pid-0-0").read_text()), signal.SIGUSR2)
        _until((tmp_path / "pid-0-1").exists)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=preempt)
    thread.start()
    found = sorted(execute(jobs.wait, given))
    thread.join()
    assert found == [1, 2]  # the second run of one job; with retries=0 it was never lost
    logs = [path.name for path in (tmp_path / "logs").iterdir()]
    assert not [name for name in logs if name.endswith(".pkl")]


@pytest.mark.slow
def test_a_caller_that_stops_cancels_its_jobs(tmp_path: Path) -> None:
    given = [{"folder": str(tmp_path), "number": n, "deaths": 0} for n in range(1)]
    waiting = [{"folder": str(tmp_path), "number": 5}]
    execute = open_executor("slurm", cluster="local", folder=tmp_path / "logs", workers=2)
    stream = execute(lambda job: jobs.die(job) if "deaths" in job else jobs.wait(job), [*given, *waiting])
    assert next(stream) == 1
    _until((tmp_path / "pid-5-0").exists)
    pid = int((tmp_path / "pid-5-0").read_text())
    stream.close()
    _until(lambda: not Path(f"/proc/{pid}").exists())


def test_what_sbatch_is_told(tmp_path: Path, monkeypatch) -> None:
    """The script, as submitit writes it where there is a `sbatch`."""
    for name in ("srun", "sbatch", "sacct"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\ncp "$1" script.sh; echo Submitted batch job 17\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    options = {"partition": "gpu", "time": 90, "cpus": 4, "gpus": 1, "memory": 16, "setup": ("module load cuda",)}
    execute = open_executor("slurm", folder=tmp_path / "logs", workers=8, parameters={"account": "vision"}, **options)
    opened = execute.open()  # type: ignore[attr-defined]
    with opened.batch():
        for number in range(12):
            opened.submit(jobs.square, number)
    script = (tmp_path / "script.sh").read_text()
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --mem=16GB",
        "#SBATCH --account=vision",
        "#SBATCH --array=0-11%8",
        "#SBATCH --signal=USR2@90",
        "module load cuda",
    ):
        assert line in script, script


def test_without_sbatch_the_message_says_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    execute = open_executor("slurm", folder=tmp_path / "logs")
    with pytest.raises(ContractError, match="'cluster': 'local'"):
        list(execute(jobs.square, [1]))


def _until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
