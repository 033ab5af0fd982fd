"""A writer killed at each step of adding an episode and of closing: nothing is lost then, or when others go on.

The campaign kills at random times, where the steps of a fold have next to no chance.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import LOSSLESS, writable_formats
from episodes import faults, make_episode

from stable_worldmodel.data import load_dataset, open_writer, verify

# Episodes before, and those that the next writer adds: beyond its next fold, with as many files as there can be by then.
SIZES = {"hf_arrow": (50, 50)}


def add(path, name, stop):
    with open_writer(path, format=name, mode="append") as writer:
        for k in range(writer.num_episodes, stop):
            writer.write_episode(make_episode(k))


def continued(path, name, total, step):
    """Let a process add episodes that is killed at this step; returns the process and the last number it printed."""
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(path), name, str(total), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done, int(done.stdout.split()[-1]) if done.stdout.split() else 0


def wrong(path, name):
    dataset = load_dataset(path)
    return dataset.num_episodes, [
        fault
        for k in range(dataset.num_episodes)
        for fault in faults(dataset.read_rows(k, 0, int(dataset.lengths[k])), k, name in LOSSLESS)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", writable_formats())
def test_nothing_is_lost_at_any_step(tmp_path, name):
    first, more = SIZES.get(name, (3, 3))
    whole = tmp_path / "whole"
    add(whole, name, first)
    files = [*tmp_path.iterdir()]

    def copy(to):
        for file in files:
            new = to / file.name
            shutil.copytree(file, new) if file.is_dir() else shutil.copy2(file, new)
        return to / whole.name

    steps = 0
    for step in range(100):
        folder = tmp_path / f"step_{step}"
        folder.mkdir()
        path = copy(folder)
        done, said = continued(path, name, first + 1, step)
        if step == 0:
            assert done.returncode == 0, done.stderr
            steps = said
            assert steps >= 4
        else:
            assert done.returncode == -signal.SIGKILL, (step, done.stderr)
            stored, faulty = wrong(path, name)
            assert max(first, said) <= stored <= first + 1, step
            assert not faulty, step
        add(path, name, first + more)
        assert wrong(path, name) == (first + more, []), step
        assert verify(path, deep=True).ok, step
        shutil.rmtree(folder)
        if step == steps:
            break
    assert step == steps
