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


# The first process is told to stop, and both of them do.
PREEMPTED = """
import os, signal, sys
import stable_worldmodel.train.loop as loop
from stable_worldmodel.train.compose import compose_run
from stable_worldmodel.train.run import execute

def save_and_tell(run, model, optimizer, state, average, save=loop.save_state):
    save(run, model, optimizer, state, average)
    if state.step == 2:
        os.kill(os.getpid(), signal.SIGTERM)

loop.save_state = save_and_tell
execute(compose_run(sys.argv[1:]))
"""


# Without `--multi_gpu` accelerate starts one process only; the config keeps all of them on the CPU.
ACCELERATE = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"


def words(path, out, model, **values):
    given = {"data": path, "out": out, "preset": "debug", "batch_size": 64, "max_steps": 6, "epochs": 9, "log_every": 1}
    given |= {"frameskip": 2, "loggers": "[jsonl]", "model.image_size": 16, "model.patch_size": 8, **values}
    return [f"model={model}", *(f"{key}={value}" for key, value in given.items() if value is not None)]


def run_processes(processes, program):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run([*command, *program], capture_output=True, text=True, timeout=240, env=environment)


def launch(processes, arguments):
    """Train in that many processes and return the rows of the log."""
    done = run_processes(processes, ["-m", "stable_worldmodel.train", *arguments])
    assert done.returncode == 0, done.stderr
    out = next(word.partition("=")[2] for word in arguments if word.startswith("out="))
    return [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()], done


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("ddp") / "squares.h5", (25,) * 12)


# Without dropout, which differs between processes. Dreamer and TD-MPC2 see positions: their image sizes are others.
PLAIN = {
    "lewm": {},
    "pldm": {},
    "hilp": {"model.patch_size": None, "num_steps": 2, "frameskip": 1, "model.skills": "true"},
    "tdmpc2": {"columns": "[proprio]", "model.critic_dropout": 0.0, "model.image_size": 64, "model.patch_size": None},
    "dreamer": {"columns": "[proprio]", "model.patch_size": None, "num_steps": 6, "frameskip": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", PLAIN)
def test_two_processes_with_half_a_batch_train_like_one(path, tmp_path, model):
    assert not getattr(TrainConfig.preset("debug", model).model, "dropout", 0)
    one, _ = launch(1, words(path, tmp_path / "one", model, **PLAIN[model]))
    two, done = launch(2, words(path, tmp_path / "two", model, **PLAIN[model]))
    assert [row["step"] for row in two] == [row["step"] for row in one] == list(range(1, 7))
    # The first loss differs by rounding, which the first updates of Adam amplify.
    np.testing.assert_allclose(two[0]["train/loss"], one[0]["train/loss"], rtol=1e-5)
    for name in {"train/loss", "train/pred"} & one[0].keys():
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


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(path, tmp_path):
    whole, _ = launch(1, words(path, tmp_path / "whole", "lewm"))
    program, arguments = tmp_path / "program.py", words(path, tmp_path / "parts", "lewm", save_every=1)
    program.write_text(PREEMPTED)
    stopped = run_processes(2, [str(program), *arguments])
    assert stopped.returncode != 0
    assert stopped.stderr.count("exitcode  : 75") >= 1, stopped.stderr
    (state,) = (tmp_path / "parts" / "state").iterdir()
    assert json.loads((state / "state.json").read_text())["step"] == 3
    rest, _ = launch(1, arguments)
    assert [row["step"] for row in rest] == list(range(1, 7))
    np.testing.assert_allclose([row["train/loss"] for row in rest], [row["train/loss"] for row in whole], rtol=5e-3)


def accelerate(*arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", *ACCELERATE.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    program = ["-m", "stable_worldmodel.train", *arguments]
    return subprocess.run([*command, *program], capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["accelerate", "swm"])
def test_launchers(path, tmp_path, program):
    """`accelerate launch` and `swm train` under torchrun share every batch, too."""
    arguments = words(path, tmp_path / "run", "dummy", max_steps=2)
    arguments = [word for word in arguments if not word.startswith("model.patch")]
    if program == "swm":
        done = run_processes(2, ["-m", "stable_worldmodel.cli", "train", "dummy", *arguments[1:]])
    else:
        done = accelerate(*arguments, "device=cpu")
        refused = accelerate(*arguments, "device=cpu", "batch_size=63")
        assert "for 2 processes" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint:") == 1, done.stdout
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    alone, _ = launch(1, words(path, tmp_path / "alone", "dummy", max_steps=2)[:-1])
    np.testing.assert_allclose(rows[0]["train/loss"], alone[0]["train/loss"], rtol=1e-5)
