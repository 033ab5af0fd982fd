"""What a run may be told beyond its sizes: averaging, accumulation, saving in between, compiling, protocol, loggers."""

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from training_data import config_of, losses, open_windows, write_squares

from stable_worldmodel.errors import ContractError, MissingDependencyError
from stable_worldmodel.train import train
from stable_worldmodel.train.protocol import EvalProtocol
from stable_worldmodel.wm import checkpoint_info, load_checkpoint


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    env = {"env": {"id": "swm/TwoRoom-v1", "arguments": {"bounded": True}, "wrappers": {}}}
    return write_squares(tmp_path_factory.mktemp("options") / "squares.h5", metadata=env)


def run(path, out, config, *args, **kwargs):
    return train(config, open_windows(path, config), out, *args, **kwargs)


def weights(result):
    return load_checkpoint(result.checkpoint).model.state_dict()


class Stop(Exception):
    pass


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_step(self, step, total, metrics):
        if step == self.step:
            raise Stop


# -- averaged weights -------------------------------------------------------------------------------------------------


def test_the_checkpoint_holds_the_averaged_weights_and_says_so(path, tmp_path):
    plain = run(path, tmp_path / "plain", config_of("lewm"))
    averaged = run(path, tmp_path / "averaged", config_of("lewm", ema=0.9))
    assert losses(plain.history) == losses(averaged.history)
    assert plain.history[-1]["val/loss"] != averaged.history[-1]["val/loss"]
    name = "predictor.blocks.0.attention.out.weight"
    name = name if name in weights(plain) else next(iter(weights(plain)))
    assert not torch.equal(weights(plain)[name], weights(averaged)[name])
    assert checkpoint_info(averaged.checkpoint)["extra"]["averaged"] == {"decay": 0.9, "steps": 12}
    assert "averaged" not in checkpoint_info(plain.checkpoint)["extra"]


def test_averaging_with_hardly_any_memory_is_no_averaging(path, tmp_path):
    plain = run(path, tmp_path / "plain", config_of("dummy"))
    averaged = run(path, tmp_path / "averaged", config_of("dummy", ema=1e-6))
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(averaged)[name], tensor, rtol=1e-4, atol=1e-6)


# -- accumulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["dummy", "gcbc"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(path, tmp_path, model):
    whole = run(path, tmp_path / "whole", config_of(model))
    parts = run(path, tmp_path / "parts", config_of(model, accumulate=4))
    np.testing.assert_allclose(losses(parts.history), losses(whole.history), rtol=1e-4)
    np.testing.assert_allclose(
        [row["train/grad_norm"] for row in parts.history], [row["train/grad_norm"] for row in whole.history], rtol=1e-3
    )


# -- states within an epoch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["lewm", "gcivl", "tdmpc2", "dreamer"])
def test_a_run_stopped_within_an_epoch_goes_on_as_if_it_had_not(tmp_path, model):
    path = write_squares(tmp_path / "d.h5", (25,) * 12)
    values = {"ema": 0.9, "accumulate": 2, "save_every": 4, "max_steps": 10, "log_every": 2}
    if model == "tdmpc2":  # needs larger pictures than there are
        values["columns"] = ("proprio",)
    config = config_of(model, **values)
    expected = run(path, tmp_path / "whole", config)
    with pytest.raises(Stop):
        run(path, tmp_path / "parts", config, StopAt(7))
    assert [folder.name for folder in (tmp_path / "parts" / "state").iterdir()] == ["step_00000004"]
    result = run(path, tmp_path / "parts", config)
    assert losses(result.history) == losses(expected.history)
    assert all(torch.equal(tensor, weights(expected)[name]) for name, tensor in weights(result).items())


def test_what_changes_no_result_may_change_when_a_run_goes_on(path, tmp_path):
    config = config_of("dummy", save_every=3)
    with pytest.raises(Stop):
        run(path, tmp_path, config, StopAt(8))
    result = run(path, tmp_path, dataclasses.replace(config, save_every=None, loggers=("csv",)))
    assert result.history[-1]["step"] == 12
    with pytest.raises(ContractError, match=r"other values of config\.log_every"):
        run(path, tmp_path, dataclasses.replace(config, log_every=1))


def test_a_run_of_an_earlier_version_goes_on_with_what_it_did_then(path, tmp_path):
    config = config_of("dummy", save_every=3)
    with pytest.raises(Stop):
        run(path, tmp_path, config, StopAt(8))
    begun = json.loads((tmp_path / "run.json").read_text())
    del begun["config"]["to_end"]
    (tmp_path / "run.json").write_text(json.dumps(begun))
    with pytest.raises(ContractError, match=r"other values of config\.to_end"):
        run(path, tmp_path, dataclasses.replace(config, to_end=True))
    assert run(path, tmp_path, config).history[-1]["step"] == 12


# -- compiling --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(path, tmp_path):
    plain = run(path, tmp_path / "plain", config_of("dummy", max_steps=4, log_every=1))
    compiled = run(path, tmp_path / "compiled", config_of("dummy", max_steps=4, log_every=1, compile=True))
    np.testing.assert_allclose(losses(compiled.history), losses(plain.history), rtol=1e-3)
    assert weights(compiled).keys() == weights(plain).keys()


# -- what the checkpoint says -----------------------------------------------------------------------------------------


def test_a_checkpoint_says_how_it_is_evaluated(path, tmp_path):
    result = run(path, tmp_path, config_of("lewm", max_steps=2))
    info = checkpoint_info(result.checkpoint)
    assert info["split"] == {part: episodes.tolist() for part, episodes in result.split.items()}
    assert info["protocol"]["env"] == {"id": "swm/TwoRoom-v1", "arguments": {"bounded": True}}
    assert info["protocol"]["image_shape"] == [16, 16]
    assert (info["protocol"]["goal_offset"], info["protocol"]["eval_budget"]) == (25, 50)
    assert info["protocol"]["plan"]["action_block"] == 2
    assert "torch" in info["code"]["versions"]
    assert load_checkpoint(result.checkpoint).protocol == info["protocol"]


def test_bare_weights_say_nothing_about_themselves(tmp_path):
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(ContractError, match="holds weights and nothing else"):
        checkpoint_info(tmp_path)


def test_a_policy_is_evaluated_without_a_planner_and_a_protocol_can_be_given(path, tmp_path):
    policy = run(path, tmp_path / "policy", config_of("gcbc", max_steps=2))
    assert checkpoint_info(policy.checkpoint)["protocol"]["plan"] is None
    given = EvalProtocol(goal_offset=7, plan={"horizon": 2})
    chosen = run(path, tmp_path / "given", config_of("gcbc", max_steps=2), protocol=given)
    assert checkpoint_info(chosen.checkpoint)["protocol"] == json.loads(json.dumps(given.to_dict()))


# -- loggers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_logger_that_is_not_installed_names_the_extra(path, tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as if it could not be imported
    with pytest.raises(MissingDependencyError, match=r"stable-worldmodel\[loggers\]"):
        run(path, tmp_path, config_of("dummy", loggers=(name,)))


def test_wandb_runs_offline_and_goes_on_under_its_id(path, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = config_of("dummy", loggers=("wandb",), save_every=3)
    with pytest.raises(Stop):
        run(path, tmp_path, config, StopAt(8))
    run(path, tmp_path, config)
    ids = {folder.name.rpartition("-")[2] for folder in (tmp_path / "wandb").glob("offline-run-*")}
    assert len(ids) == 1


def test_trackio_keeps_the_rows_on_this_machine(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    run(path, tmp_path / "run", config_of("dummy", loggers=("trackio",)))
    assert [*(tmp_path / "trackio").glob("*.db")]


@pytest.mark.slow
def test_trackio_has_each_row_of_a_resumed_run_once(path, tmp_path):
    script = SCRIPT.format(path=str(path), out=str(tmp_path / "run"), tests=str(Path(__file__).parent))
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}  # read when it is imported
    pytest.importorskip("trackio")
    for _ in range(2):  # killed at step 8, then to the end
        subprocess.run([sys.executable, "-c", script], env=environment, timeout=300, check=False)
    (database,) = (tmp_path / "trackio").glob("*.db")
    with closing(sqlite3.connect(database)) as rows:
        steps = [step for (step,) in rows.execute("SELECT step FROM metrics ORDER BY step")]
    assert steps == [3, 6, 9, 12]


SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from training_data import config_of, open_windows
from stable_worldmodel.train import train
class Kill:
    def on_step(self, step, total, metrics):
        if step == 8:
            time.sleep(3)  # trackio writes in the background
            os.kill(os.getpid(), signal.SIGKILL)
out = Path({out!r})
config = config_of("dummy", loggers=("trackio",), save_every=6)
train(config, open_windows({path!r}, config), out, None if out.exists() else Kill())
"""
