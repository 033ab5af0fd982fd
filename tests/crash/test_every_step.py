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

# Episodes before, and those that come on top: beyond the next fold, with as many files as there can be by then.
SIZES = {"hf_arrow": (50, 50)}


def add(path, name, stop):
    with open_writer(path, format=name, mode="append") as writer:
        for k in range(writer.num_episodes, stop):
            writer.write_episode(make_episode(k))


def add_until_killed(path, name, stop, step):
    """Let a process add episodes that is killed at this step; returns how it ended and the last number it printed."""
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(path), name, str(stop), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, int((done.stdout.split() or [0])[-1]), done.stderr


def look(path, name):
    """The number of episodes and what is wrong with them."""
    dataset = load_dataset(path)
    return dataset.num_episodes, [
        fault
        for k in range(dataset.num_episodes)
        for fault in faults(dataset.read_rows(k, 0, int(dataset.lengths[k])), k, name in LOSSLESS)
    ]


def copied(files, folder):
    for file in files:
        new = folder / file.name
        shutil.copytree(file, new) if file.is_dir() else shutil.copy2(file, new)
    return folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize("name", writable_formats())
def test_nothing_is_lost_at_any_step(tmp_path_factory, name):
    before, more = SIZES.get(name, (3, 3))
    original = tmp_path_factory.mktemp("original")
    add(original / "data", name, before)
    files = [*original.iterdir()]
    ended, steps, error = add_until_killed(copied(files, tmp_path_factory.mktemp("whole")), name, before + 1, 0)
    assert ended == 0, error
    assert steps >= 4
    for step in range(1, steps + 1):
        path = copied(files, tmp_path_factory.mktemp("killed"))
        ended, said, error = add_until_killed(path, name, before + 1, step)
        assert ended == -signal.SIGKILL, (step, error)
        stored, wrong = look(path, name)
        assert max(before, said) <= stored <= before + 1, step
        assert not wrong, step
        add(path, name, before + more)
        assert look(path, name) == (before + more, []), step
        assert verify(path, deep=True).ok, step
        shutil.rmtree(path.parent)
