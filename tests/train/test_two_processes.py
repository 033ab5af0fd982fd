"""Two processes that share every batch train what one does, and another number of them goes on where it stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_data import write_squares

from stable_worldmodel.train import TrainConfig

# Trains until the state after step 4 is there.
VICTIM = """
import os, signal, sys
import stable_worldmodel.train.loop as loop
from stable_worldmodel.train.compose import compose_run
from stable_worldmodel.train.run import execute

def save_and_die(run, model, optimizer, state, average, save=loop.save_state):
    save(run, model, optimizer, state, average)
    if state.step >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

loop.save_state = save_and_die
execute(compose_run(sys.argv[1:]))
"""


def words(path, out, model, **values):
    given = {"data": path, "out": out, "preset": "debug", "batch_size": 64, "max_steps": 6, "epochs": 9, "log_every": 1}
    given |= {"frameskip": 2, "loggers": "[jsonl]", "model.image_size": 16, "model.patch_size": 8, **values}
    return [f"model={model}", *(f"{key}={value}" for key, value in given.items())]


def launch(processes, arguments):
    """Train in that many processes and return the rows of the log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, "-m", "stable_worldmodel.train", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    out = next(word.partition("=")[2] for word in arguments if word.startswith("out="))
    return [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()], done


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("ddp") / "squares.h5", (25,) * 12)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lewm", "pldm"])
def test_two_processes_with_half_a_batch_train_like_one(path, tmp_path, model):
    assert TrainConfig.preset("debug", model).model.dropout == 0  # which differs between processes
    one, _ = launch(1, words(path, tmp_path / "one", model))
    two, done = launch(2, words(path, tmp_path / "two", model))
    assert [row["step"] for row in two] == [row["step"] for row in one] == list(range(1, 7))
    # The first loss differs by rounding, which the first updates of Adam amplify.
    np.testing.assert_allclose(two[0]["train/loss"], one[0]["train/loss"], rtol=1e-5)
    for name in ("train/loss", "train/pred"):
        np.testing.assert_allclose([row[name] for row in two], [row[name] for row in one], rtol=5e-3)
    np.testing.assert_allclose(two[-1]["val/loss"], one[-1]["val/loss"], rtol=5e-3)
    assert done.stdout.count("checkpoint:") == 1  # the first process speaks for all
    assert len([*(tmp_path / "two" / "state").iterdir()]) == 1


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(path, tmp_path):
    whole, _ = launch(1, words(path, tmp_path / "whole", "lewm"))
    arguments = words(path, tmp_path / "parts", "lewm", save_every=2)
    killed = subprocess.run([sys.executable, "-c", VICTIM, *arguments], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rest, _ = launch(2, arguments)
    np.testing.assert_allclose([row["train/loss"] for row in rest], [row["train/loss"] for row in whole], rtol=5e-3)
