"""Online training: rounds, resuming, exploration."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stable_worldmodel.data import load_dataset
from stable_worldmodel.errors import ContractError
from stable_worldmodel.evaluation import Evaluation
from stable_worldmodel.online import OnlineConfig, train_online
from stable_worldmodel.train import TrainConfig
from stable_worldmodel.wm import checkpoint_info

ENV = "swm/PendulumControl-v1"


def config(kind: str = "tdmpc2", **changes) -> OnlineConfig:
    train = TrainConfig.preset("debug", kind)
    sizes = {"num_steps": 4} if kind == "tdmpc2" else {"num_steps": 8}
    train = replace(
        train, model=replace(train.model, images=[], inputs={"observation": 0}), frameskip=1, batch_size=8, **sizes
    )
    values = {
        "env_steps": 200,
        "seed_episodes": 3,
        "episodes_per_round": 2,
        "updates_per_step": 0.1,
        "max_episode_steps": 30,
        "eval_every": 2,
        "eval_episodes": 2,
        "history": 1 if kind == "tdmpc2" else 4,
    }
    return OnlineConfig(ENV, **{"train": train, **values, **changes})


@pytest.mark.parametrize("kind", ["tdmpc2", "dreamer"])
def test_a_run_leaves_a_checkpoint_a_dataset_and_its_history(kind: str, tmp_path: Path) -> None:
    result = train_online(config(kind), tmp_path)
    replay = load_dataset(result.replay)
    assert [row["episodes"] for row in result.history] == [3, 5, 7]
    assert replay.num_episodes == 7
    assert result.history[-1]["env_steps"] == 210 == int((replay.lengths - 1).sum())
    assert result.history[-1]["step"] == 21
    assert all(np.isfinite(row["train/loss"]) for row in result.history)
    assert ["eval/return" in row for row in result.history] == [True, False, True]
    # The checkpoint knows how it is evaluated, and its actor acts.
    scored = Evaluation.of(result.checkpoint, episodes=2).run()
    assert scored.protocol["policy"]["type"] == "actor"
    assert np.isfinite(scored["episode_returns"]).all()


def test_nothing_but_speed_depends_on_the_number_of_envs(tmp_path: Path) -> None:
    one = train_online(config(num_envs=1), tmp_path / "one")
    many = train_online(config(num_envs=4), tmp_path / "many")
    weights = [(run.checkpoint / "weights.safetensors").read_bytes() for run in (one, many)]
    assert weights[0] == weights[1]


def test_the_checkpoint_holds_the_averaged_weights_and_says_so(tmp_path: Path) -> None:
    plain = train_online(config(env_steps=90), tmp_path / "plain")
    averaged = train_online(config(env_steps=90, train=replace(config().train, ema=0.9)), tmp_path / "averaged")
    # What is played and learned from is the same.
    assert [row["train/loss"] for row in averaged.history] == [row["train/loss"] for row in plain.history]
    weights = [load_file(run.checkpoint / "weights.safetensors") for run in (plain, averaged)]
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    (state,) = (tmp_path / "averaged" / "state").iterdir()
    average = load_file(state / "average.safetensors")
    assert all(torch.equal(tensor, average[name]) for name, tensor in weights[1].items())
    assert checkpoint_info(averaged.checkpoint)["extra"]["averaged"] == {"decay": 0.9, "steps": 9}
    assert "averaged" not in checkpoint_info(plain.checkpoint)["extra"]


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    result = train_online(config(env_steps=90), tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    del run["online"]["train"]["features"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert train_online(config(env_steps=90), tmp_path).history == result.history


def test_random_episodes_come_first_and_then_the_actor(tmp_path: Path) -> None:
    replay = load_dataset(train_online(config(), tmp_path).replay)
    actions = [replay.read_rows(episode, 0, 30, ["action"])["action"] for episode in range(5)]
    assert all(np.abs(rows).max() <= 2 for rows in actions)  # the env's units
    assert all(rows.std() > 0.9 for rows in actions[:3])  # uniform in [-2, 2] has 1.15


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_online import config
from stable_worldmodel.online import loop
from pathlib import Path
count = 0
inner = loop.Learner.step
def step(self, *args):
    global count
    count += 1
    if count == {stop}:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self, *args)
loop.Learner.step = step
loop.train_online(config({kind!r}), Path({out!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "stop"), [("tdmpc2", 4), ("tdmpc2", 12), ("dreamer", 15)])
def test_a_killed_run_ends_as_if_nothing_had_happened(kind: str, stop: int, tmp_path: Path) -> None:
    whole = train_online(config(kind), tmp_path / "whole")
    out = tmp_path / "killed"
    script = SCRIPT.format(tests=str(Path(__file__).parent), stop=stop, kind=kind, out=str(out))
    assert subprocess.run([sys.executable, "-c", script], timeout=300, check=False).returncode == -9
    resumed = train_online(config(kind), out)
    names = [name for name in whole.history[0] if not name.startswith(("samples", "data_wait", "time"))]
    for mine, theirs in zip(resumed.history, whole.history, strict=True):
        assert {n: mine.get(n) for n in names} == {n: theirs.get(n) for n in names}
    weights = [(run.checkpoint / "weights.safetensors").read_bytes() for run in (whole, resumed)]
    assert weights[0] == weights[1]


def test_another_config_is_refused(tmp_path: Path) -> None:
    train_online(config(), tmp_path)
    with pytest.raises(ContractError, match="another config"):
        train_online(config(env_steps=300), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_steps": 0}, "env_steps=0"),
        ({"updates_per_step": 0}, "updates_per_step=0"),
        ({"history": 2}, "TD-MPC2 sees only the present"),
        ({"buffer_steps": 10}, "at least one episode"),
        ({"train": TrainConfig.preset("debug", "lewm")}, "does not act for rewards"),
    ],
)
def test_wrong_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        replace(config(), **changes)


def test_an_env_without_the_columns_is_named(tmp_path: Path) -> None:
    train = config().train
    wrong = replace(train, model=replace(train.model, inputs={"velocity": 0}))
    with pytest.raises(ContractError, match="velocity"):
        train_online(config(train=wrong), tmp_path)
