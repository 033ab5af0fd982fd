"""A run that a batch system ends saves what it has done, and goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_data import config_of, open_windows, write_squares

from stable_worldmodel.train import train
from stable_worldmodel.train.preemption import EXIT_STATUS, Preempted, Preemption


class SignalAt:
    """Sends this process a signal after a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_step(self, step, total, metrics):
        if step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("preemption") / "squares.h5")


def losses(rows):
    return [(row["step"], row["train/loss"], row.get("val/loss")) for row in rows]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_at_the_next_row_and_the_run_goes_on(path, tmp_path, number):
    config = config_of("dummy")
    whole = train(config, open_windows(path, config), tmp_path / "whole")
    with pytest.raises(Preempted) as stopped:
        train(config, open_windows(path, config), tmp_path / "run", SignalAt(4, number))
    assert stopped.value.code == EXIT_STATUS == 75
    (state,) = (tmp_path / "run" / "state").iterdir()
    assert json.loads((state / "state.json").read_text())["step"] == 6  # rows are 3 steps apart
    assert not (tmp_path / "run" / "checkpoint").exists()
    rest = train(config, open_windows(path, config), tmp_path / "run")
    assert losses(rest.history) == losses(whole.history)
    weights = [run.checkpoint / "weights.safetensors" for run in (rest, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_signal_at_the_end_does_not_matter(path, tmp_path):
    config = config_of("dummy")
    assert train(config, open_windows(path, config), tmp_path, SignalAt(11, signal.SIGTERM)).history[-1]["step"] == 12


def test_handlers_are_given_back_and_those_of_others_left():
    def other(number, frame):
        pass

    before = signal.signal(signal.SIGUSR1, other)
    try:
        with Preemption():
            assert signal.getsignal(signal.SIGUSR1) is other
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.slow
def test_the_command_exits_with_the_documented_status(path, tmp_path):
    out = tmp_path / "run"
    words = f"dummy data={path} out={out} preset=debug frameskip=2 batch_size=8 max_steps=5000 epochs=5000"
    words += " log_every=2 model.image_size=16"
    command = [sys.executable, "-m", "stable_worldmodel.cli", "train", *words.split(), "loggers=[jsonl]"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log = Path(out, "metrics.jsonl")
    deadline = time.monotonic() + 100
    while running.poll() is None and not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.terminate()
    _, said = running.communicate(timeout=60)
    assert running.returncode == EXIT_STATUS, said
    assert "the same command goes on" in said
    assert len([*(out / "state").iterdir()]) == 1
