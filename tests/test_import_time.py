"""What must not be loaded before it is used. Checked by name, not by clock; `benchmarks/startup.py` has the times."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "pandas", "scipy", "matplotlib", "av", "pygame", "mujoco")

FIRST_FRAME = """
import stable_worldmodel as swm
world = swm.World("swm/TwoRoom-v1", num_envs=2, image_shape=(64, 64))
world.reset(seed=0)
assert world.infos["pixels"].shape == (2, 1, 64, 64, 3)
world.close()
"""

HELP = """
from stable_worldmodel.cli import app
app(["--help"], standalone_mode=False)
"""


@pytest.mark.parametrize(
    "code", ["import stable_worldmodel", FIRST_FRAME, HELP], ids=["import", "first frame", "swm --help"]
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    report = f"\nimport json, sys\nprint('\\n' + json.dumps(sorted(set({HEAVY}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
