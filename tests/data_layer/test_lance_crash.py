"""A Lance writer that is killed at any moment loses nothing that it had acknowledged."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(script, *arguments):
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=590)


@pytest.mark.parametrize(
    ("format", "scenario"),
    [("lance", "create"), ("lance_video", "append"), ("lance", "overwrite")],
)
def test_killed_at_some_steps(tmp_path, format, scenario):
    done = run("lance_kill_points.py", tmp_path, format, scenario, 25)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("format", ["lance", "lance_video"])
@pytest.mark.parametrize("scenario", ["create", "append", "overwrite"])
def test_killed_before_and_after_every_step(tmp_path, format, scenario):
    done = run("lance_kill_points.py", tmp_path, format, scenario, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 30
