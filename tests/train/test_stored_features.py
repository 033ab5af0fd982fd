"""Training on stored features is training on the images they come from, and computes them once."""

import dataclasses
import multiprocessing
import time

import numpy as np
import pytest
import torch
from training_data import SIZE, config_of, losses, open_windows, write_squares

from stable_worldmodel.data import ConcatDataset
from stable_worldmodel.data.lock import WriterLock
from stable_worldmodel.errors import ContractError
from stable_worldmodel.train import train
from stable_worldmodel.train.features import content_key
from stable_worldmodel.wm import load_checkpoint
from stable_worldmodel.wm.backbones import ScratchViT

SMALL_VIT = {"patch_size": 8, "width": 16, "depth": 1, "heads": 2, "mlp_width": 32}


def config_with(model="prejepa", features="float32", **values):
    """A model whose frozen backbone is random."""
    config = config_of(model, features=features, **values)
    changes = {"backbone_options": SMALL_VIT, **({} if model == "prejepa" else {"frozen": True})}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, image_size=SIZE, **changes))


@pytest.fixture
def path(tmp_path):
    return write_squares(tmp_path / "squares.h5")


@pytest.fixture
def computed(monkeypatch):
    """How many frames went through the backbone, call by call."""
    frames, forward = [], ScratchViT._features

    def counting(self, images):
        frames.append(images.shape[0] * images.shape[1])
        return forward(self, images)

    monkeypatch.setattr(ScratchViT, "_features", counting)
    return frames


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("prejepa", {}),
        ("prejepa", {"columns": ("pixels", "proprio"), "accumulate": 2}),
        ("gcivl", {}),
        ("hilp", {"columns": ("pixels", "proprio")}),
    ],
)
def test_losses_and_weights_are_those_of_the_images_to_the_last_bit(path, tmp_path, model, values):
    direct = train(config_with(model, "none", **values), open_windows(path, config_with(model)), tmp_path / "direct")
    config = config_with(model, **values)
    stored = train(config, open_windows(path, config), tmp_path / "stored")
    assert losses(stored.history) == losses(direct.history)
    assert [row.get("val/loss") for row in stored.history] == [row.get("val/loss") for row in direct.history]
    weights = [load_checkpoint(result.checkpoint).model.state_dict() for result in (direct, stored)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_half_precision_takes_half_the_space_and_gives_nearly_the_same_losses(path, tmp_path):
    results, sizes = [], []
    for features in ("float32", "float16"):
        config = config_with(features=features)
        results.append(losses(train(config, open_windows(path, config), tmp_path / features).history))
        sizes.append(sum(file.stat().st_size for file in (tmp_path / "squares.h5.features").rglob("features.npy")))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3)
    assert results[1] != results[0]
    assert sizes[1] - sizes[0] == pytest.approx(sizes[0] / 2, rel=0.01)


def test_features_are_computed_by_the_first_run_alone(path, tmp_path, computed):
    config = config_with()
    rows = open_windows(path, config).num_rows
    train(config, open_windows(path, config), tmp_path / "first")
    assert rows <= sum(computed) < rows + config.batch_size * config.num_steps
    computed.clear()
    train(dataclasses.replace(config, learning_rate=1e-4), open_windows(path, config), tmp_path / "second")
    assert not computed


def test_a_computation_that_was_interrupted_goes_on(path, tmp_path, computed, monkeypatch):
    config = config_with()
    whole = ScratchViT._features

    def failing(self, images):
        if len(computed) == 3:
            raise KeyboardInterrupt
        return whole(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(ScratchViT, "_features", failing)
        with pytest.raises(KeyboardInterrupt):
            train(config, open_windows(path, config), tmp_path / "run")
    train(config, open_windows(path, config), tmp_path / "run")
    rows = open_windows(path, config).num_rows
    assert sum(computed) < rows + config.batch_size * config.num_steps


def test_other_data_and_other_backbones_have_features_of_their_own(path, tmp_path):
    for number, config in enumerate((config_with(), config_with(seed=1))):
        train(config, open_windows(path, config), tmp_path / str(number))
    assert len([*(tmp_path / "squares.h5.features").glob("*/features.json")]) == 2
    first = open_windows(path, config_with())
    assert content_key(first) == content_key(open_windows(path, config_with(num_steps=5)))
    other = write_squares(tmp_path / "other.h5", seed=1)
    assert content_key(first) != content_key(open_windows(other, config_with()))


def test_a_run_waits_for_another_that_computes_the_same(path, tmp_path):
    config = config_with(max_steps=2)
    train(config, open_windows(path, config), tmp_path / "first")
    (folder,) = (tmp_path / "squares.h5.features").glob("*/")
    held = multiprocessing.get_context("spawn").Event()
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(folder), held))
    process.start()
    assert held.wait(60)
    begin = time.monotonic()
    train(config, open_windows(path, config), tmp_path / "second")
    assert time.monotonic() - begin > 1
    process.join()


def _hold(folder, held):
    from pathlib import Path

    with WriterLock(Path(folder)):
        held.set()
        time.sleep(3)


def test_datasets_of_several_files_keep_their_features_in_the_data_folder(path, tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "home"))
    config = config_with(max_steps=2)
    dataset = ConcatDataset([open_windows(path, config), open_windows(path, config)])
    train(config, dataset, tmp_path / "run")
    assert [*(tmp_path / "home" / "features").glob("*/features.json")]


def test_what_cannot_be_stored_is_refused(path, tmp_path):
    config = config_of("lewm", features="float32")
    with pytest.raises(ContractError, match="expected a model with a frozen backbone, such as prejepa, found lewm"):
        train(config, open_windows(path, config), tmp_path / "run")
    trained = config_of("gcbc", features="float32")
    with pytest.raises(ContractError, match="expected a model with a frozen backbone"):
        train(trained, open_windows(path, trained), tmp_path / "run")
    dataset = open_windows(path, config_with())
    dataset.transform = dict
    with pytest.raises(ContractError, match="expected a dataset without transforms"):
        train(config_with(), dataset, tmp_path / "run")
    with pytest.raises(ContractError, match="features='bfloat16'"):
        config_of("prejepa", features="bfloat16")


def test_a_decoder_still_sees_the_images(path, tmp_path):
    config = config_with(max_steps=3)
    model = dataclasses.replace(config.model, decoder_weight=0.25, decoder_width=16)
    history = train(dataclasses.replace(config, model=model), open_windows(path, config), tmp_path / "run").history
    assert np.isfinite(history[-1]["train/decoder"])
