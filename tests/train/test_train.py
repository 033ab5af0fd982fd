"""Training: equal calls give equal losses, also across an interruption, and bad input fails before work is lost."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.train import TrainConfig, train
from stable_worldmodel.wm import LeWMConfig, load_checkpoint

MODEL = LeWMConfig.preset(
    "tiny", image_size=16, patch_size=8, latent_dim=4, encoder_width=16, encoder_mlp=16, encoder_depth=1, dropout=0.1
)
CONFIG = TrainConfig(
    model=MODEL,
    num_steps=4,
    frameskip=2,
    epochs=2,
    max_steps=20,
    batch_size=8,
    learning_rate=1e-3,
    precision="fp32",
    device="cpu",
    val_fraction=0.25,
    val_batches=2,
    log_every=1,
    loggers=("jsonl", "csv"),
)


def write_episodes(path, episodes=12, rows=17, action_scale=1.0, leave_out=()):
    """Episodes of a bright square that the action moves."""
    rng = np.random.default_rng(0)
    with open_writer(path) as writer:
        for _ in range(episodes):
            action = rng.normal(size=(rows, 2)).astype(np.float32) * action_scale
            corner = np.clip(8 + np.cumsum(np.nan_to_num(action), axis=0) / action_scale, 0, 12).astype(int)
            pixels = np.zeros((rows, 16, 16, 3), np.uint8)
            for frame, (x, y) in zip(pixels, corner, strict=True):
                frame[y : y + 4, x : x + 4] = 255
            action[-1] = np.nan
            columns = {"pixels": pixels, "action": action}
            writer.write_episode({name: values for name, values in columns.items() if name not in leave_out})
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_episodes(tmp_path_factory.mktemp("data") / "squares.h5")


@pytest.fixture
def dataset(path):
    return load_dataset(path, num_steps=4, frameskip=2)


def losses(result):
    return [row["train/loss"] for row in result.history]


class Stop(Exception):
    pass


class StopAt:
    """A callback that interrupts the run."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step, total, metrics):
        if step == self.step:
            raise Stop


class Recorder:
    def __init__(self):
        self.calls = []

    def on_step(self, step, total, metrics):
        self.calls.append((step, total, dict(metrics)))


# -- results ----------------------------------------------------------------------------------------------------------


def test_loss_falls(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=8, max_steps=None)
    result = train(config, dataset, tmp_path)
    validation = [row["val/loss"] for row in result.history if "val/loss" in row]
    assert np.mean(losses(result)[-5:]) < 0.7 * losses(result)[0]
    assert validation[-1] < validation[0]


def test_equal_seeds_give_equal_losses(dataset, tmp_path):
    first, second = (losses(train(CONFIG, dataset, tmp_path / name)) for name in "ab")
    assert len(first) == 20
    assert first == second


def test_other_seeds_give_other_losses(dataset, tmp_path):
    other = dataclasses.replace(CONFIG, seed=1)
    assert losses(train(CONFIG, dataset, tmp_path / "a")) != losses(train(other, dataset, tmp_path / "b"))


def test_training_leaves_the_callers_random_state(dataset, tmp_path):
    before = torch.get_rng_state()
    train(dataclasses.replace(CONFIG, max_steps=1), dataset, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoint_loads_with_scaler_split_and_versions(dataset, tmp_path):
    result = train(CONFIG, dataset, tmp_path)
    loaded = load_checkpoint(result.checkpoint)
    assert loaded.model.config == dataclasses.replace(MODEL, action_dim=4)
    assert not loaded.model.training
    run = loaded.extra["run"]
    assert run["split"] == {name: episodes.tolist() for name, episodes in result.split.items()}
    assert run["config"]["frameskip"] == 2
    assert "torch" in run["versions"]
    assert json.loads((tmp_path / "run.json").read_text()) == run


def test_action_scaler_sees_training_episodes_only(dataset, tmp_path):
    result = train(dataclasses.replace(CONFIG, max_steps=1), dataset, tmp_path)
    actions = np.concatenate([dataset.read_rows(i, 0, 16, ["action"])["action"] for i in result.split["train"]])
    scaler = load_checkpoint(result.checkpoint).scalers["action"]
    np.testing.assert_allclose(scaler.mean[0], actions.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaler.std[0], actions.std(axis=0), rtol=1e-5)


def test_split_is_by_episode(dataset, tmp_path):
    split = train(dataclasses.replace(CONFIG, max_steps=1), dataset, tmp_path).split
    assert sorted([*split["train"], *split["val"]]) == list(range(12))
    assert len(split["val"]) == 3


def test_half_precision_trains(dataset, tmp_path):
    result = train(dataclasses.replace(CONFIG, precision="bf16"), dataset, tmp_path)
    assert np.isfinite(losses(result)).all()
    assert load_checkpoint(result.checkpoint).model.lift.weight.dtype.itemsize == 4


def test_precision_may_differ_between_runs_of_one_process(dataset, tmp_path):
    for precision in ("bf16", "fp32"):
        config = dataclasses.replace(CONFIG, precision=precision, max_steps=1)
        train(config, dataset, tmp_path / precision)


# -- resume -----------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_continues_with_the_losses_of_an_uninterrupted_one(dataset, tmp_path):
    expected = train(CONFIG, dataset, tmp_path / "whole")
    with pytest.raises(Stop):
        train(CONFIG, dataset, tmp_path / "parts", StopAt(15))
    result = train(CONFIG, dataset, tmp_path / "parts")
    assert losses(result) == losses(expected)
    assert (result.checkpoint / "weights.safetensors").read_bytes() == (
        expected.checkpoint / "weights.safetensors"
    ).read_bytes()


def test_resumed_logs_hold_every_step_once(dataset, tmp_path):
    with pytest.raises(Stop):
        train(CONFIG, dataset, tmp_path, StopAt(15))
    train(CONFIG, dataset, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))


def test_a_finished_run_is_not_repeated(dataset, tmp_path):
    first = train(CONFIG, dataset, tmp_path)
    recorder = Recorder()
    again = train(CONFIG, dataset, tmp_path, recorder)
    assert recorder.calls == []
    assert again.history == first.history


def test_a_folder_with_another_run_is_refused(dataset, tmp_path):
    train(dataclasses.replace(CONFIG, max_steps=1), dataset, tmp_path)
    with pytest.raises(ContractError, match=r"other values of config\.learning_rate"):
        train(dataclasses.replace(CONFIG, max_steps=1, learning_rate=0.1), dataset, tmp_path)


def test_the_state_of_an_unknown_run_is_refused(dataset, tmp_path):
    train(CONFIG, dataset, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ContractError, match=r"state of a run without run\.json"):
        train(CONFIG, dataset, tmp_path)


def test_a_run_that_failed_at_once_leaves_the_folder_free(dataset, tmp_path):
    with pytest.raises(ContractError):
        train(dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, image_size=32)), dataset, tmp_path)
    assert train(dataclasses.replace(CONFIG, max_steps=1), dataset, tmp_path).checkpoint.is_dir()


# -- what is reported -------------------------------------------------------------------------------------------------


def test_callback_hears_of_every_step(dataset, tmp_path):
    recorder = Recorder()
    result = train(dataclasses.replace(CONFIG, log_every=4), dataset, tmp_path, recorder)
    assert [step for step, _, _ in recorder.calls] == list(range(1, 21))
    assert {total for _, total, _ in recorder.calls} == {20}
    assert recorder.calls[0][2] == {}
    assert recorder.calls[-1][2] == result.history[-1]


def test_rows_hold_losses_and_speed(dataset, tmp_path):
    row = train(CONFIG, dataset, tmp_path).history[-1]
    assert {
        "step",
        "train/loss",
        "train/pred",
        "train/sigreg",
        "train/align",
        "val/pred",
        "learning_rate",
    } <= row.keys()
    assert row["samples_per_s"] > 0
    assert 0 <= row["data_wait"] <= 1


def test_csv_and_jsonl_hold_the_same_numbers(dataset, tmp_path):
    result = train(CONFIG, dataset, tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history
    with (tmp_path / "metrics.csv").open() as file:
        numbers = {(int(line["step"]), line["name"]): float(line["value"]) for line in csv.DictReader(file)}
    expected = {(row["step"], name): row[name] for row in result.history for name in row if name != "step"}
    assert numbers == expected


def test_tensorboard_gets_every_row(dataset, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(dataclasses.replace(CONFIG, max_steps=3, loggers=("tensorboard",)), dataset, tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["pixels", "action"])
def test_missing_column_is_named(tmp_path, column):
    dataset = load_dataset(write_episodes(tmp_path / "d.h5", leave_out=[column]), num_steps=4, frameskip=2)
    with pytest.raises(MissingKeyError, match=column):
        train(CONFIG, dataset, tmp_path / "run")


def test_windows_of_another_length_are_refused_with_the_remedy(path, tmp_path):
    with pytest.raises(ContractError, match=r"load_dataset\(path, num_steps=4, frameskip=2\)"):
        train(CONFIG, load_dataset(path, num_steps=3, frameskip=2), tmp_path)


def test_no_episode_of_sufficient_length_is_refused(tmp_path):
    with pytest.raises(ContractError, match="no window of 8 rows"):
        load_dataset(write_episodes(tmp_path / "d.h5", rows=5), num_steps=4, frameskip=2)


def test_images_of_another_size_are_refused(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, image_size=32))
    with pytest.raises(ContractError, match=r"3, 16, 16\).*3, 32, 32\)"):
        train(config, dataset, tmp_path)


def test_diverging_loss_stops_at_the_step_it_names(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30, clip_norm=1e30, warmup=0.0)
    with pytest.raises(ContractError, match=r"became (nan|inf) at step \d+; lower learning_rate"):
        train(config, dataset, tmp_path)


def test_unknown_logger_names_the_known_ones(dataset, tmp_path):
    with pytest.raises(ContractError, match=r"expected some of .*csv.*jsonl.*tensorboard"):
        train(dataclasses.replace(CONFIG, loggers=("carrier pigeon",)), dataset, tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"max_steps": 0}, {"val_fraction": 1.0}, {"precision": "fp8"}, {"batch_size": 0}]
)
def test_config_refuses_senseless_values(wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        dataclasses.replace(CONFIG, **wrong)
