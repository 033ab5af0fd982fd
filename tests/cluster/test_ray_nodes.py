"""Ray: sessions, silence, and a cluster of four nodes under fire."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stable_worldmodel.cluster.executors import open_executor
from stable_worldmodel.errors import ContractError

ray = pytest.importorskip("ray")

QUIET = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import job_functions as jobs
from stable_worldmodel.cluster.executors import open_executor

handler = signal.getsignal(signal.SIGTERM)
given = [{"folder": sys.argv[2], "number": n, "deaths": int(n == 1)} for n in range(3)]
assert sorted(open_executor("ray", workers=2)(jobs.die, given)) == [1, 1, 2]
import ray
assert not ray.is_initialized()
assert signal.getsignal(signal.SIGTERM) is handler
print("done")
"""


@pytest.mark.slow
def test_ray_is_started_for_the_jobs_and_says_nothing(tmp_path: Path) -> None:
    """Not even when a worker is lost."""
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", QUIET, here, str(tmp_path)], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert done.stderr == ""


@pytest.mark.slow
def test_a_ray_that_runs_already_is_used_and_stays(tmp_path: Path, monkeypatch) -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 27)
    try:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("STABLEWM_HOME", "/somewhere")
        found = list(open_executor("ray")(lambda _: (str(Path.cwd()), os.environ["STABLEWM_HOME"]), range(3)))
        assert found == [(str(tmp_path), "/somewhere")] * 3
        # More actors than there is room for: those that have it do the work.
        assert sorted(open_executor("ray", workers=6)(lambda number: number, range(9))) == list(range(9))
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ContractError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        list(open_executor("ray", address="127.0.0.1:1")(abs, [1]))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_collection_under_fire_is_the_sequential_one(tmp_path: Path) -> None:
    import ray_kills

    report = ray_kills.run(20, tmp_path / "kills")
    assert report["worker"] + report["node"] == 20
