"""Collecting keeps in memory what is running, not what was recorded."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
sys.path.insert(0, {tests!r})
import toy_envs; toy_envs.register()
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World
with World("toy/Walk-v0", 4, (224, 224), max_episode_steps=5, max_length=10_000, backend={backend!r}) as world:
    world.set_policy(RandomPolicy(seed=0))
    world.collect({path!r}, {episodes}, seed=0, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kilobytes(path, episodes, backend):
    script = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parents[1]), path=str(path), episodes=episodes, backend=backend
    )
    # Large arrays are returned to the system when freed; otherwise what glibc keeps for itself varies by a tenth.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300, env=environment
    )
    path.unlink()
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sync", "process"])
def test_the_peak_does_not_grow_with_the_number_of_episodes(tmp_path, backend):
    few = peak_kilobytes(tmp_path / "few.h5", 20, backend)
    many = peak_kilobytes(tmp_path / "many.h5", 2000, backend)
    assert many <= 1.1 * few
