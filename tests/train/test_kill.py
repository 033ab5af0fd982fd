"""A run killed with SIGKILL, wherever that was, ends with the losses and the weights of one that was not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training_data import config_of, losses, open_windows, write_squares

from stable_worldmodel.train import train

# Kills itself at the n-th audit event of a kind, such as a rename, or after the n-th step.
VICTIM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from training_data import config_of, open_windows
from stable_worldmodel.train import train

kind, left = sys.argv[4], int(sys.argv[5])

def count():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

def audit(event, arguments):
    if event == kind and sys.argv[3] in str(arguments[0]):
        count()

class Steps:
    def on_step(self, step, total, metrics):
        if kind == "step":
            count()

sys.addaudithook(audit)
config = config_of("lewm", **eval(sys.argv[6]))
train(config, open_windows(sys.argv[2], config), sys.argv[3], Steps())
"""
VALUES = {"ema": 0.9, "accumulate": 2, "save_every": 3, "max_steps": 16, "log_every": 3}
CONFIG = config_of("lewm", **VALUES)
# run.json is renamed first, then each state, and at the end the two files of the checkpoint.
POINTS = [
    ("step", 1),
    ("step", 7),
    ("os.rename", 1),
    ("os.rename", 2),
    ("os.rename", 4),
    ("shutil.rmtree", 3),
    ("shutil.rmtree", 4),
    ("os.rename", 9),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Data, and what an uninterrupted run on it gives."""
    folder = tmp_path_factory.mktemp("kill")
    path = write_squares(folder / "d.h5")
    return path, train(CONFIG, open_windows(path, CONFIG), folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), POINTS)
def test_a_killed_run_ends_like_one_that_was_not(whole, tmp_path, kind, number):
    path, expected = whole
    out = tmp_path / "run"
    arguments = [str(Path(__file__).parent), str(path), str(out), kind, str(number), repr(VALUES)]
    done = subprocess.run([sys.executable, "-c", VICTIM, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    result = train(CONFIG, open_windows(path, CONFIG), out)
    assert losses(result.history) == losses(expected.history)
    assert [row.get("val/loss") for row in result.history] == [row.get("val/loss") for row in expected.history]
    weights = [run.checkpoint / "weights.safetensors" for run in (result, expected)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
