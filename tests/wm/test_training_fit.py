"""The training loop takes every model that learns from images and actions alone."""

import numpy as np
import pytest
import torch

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.train import TrainConfig, train
from stable_worldmodel.wm import load_checkpoint
from stable_worldmodel.wm.registry import preset_config

SIZE = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("data") / "squares.h5", np.random.default_rng(0)
    with open_writer(path) as writer:
        for _ in range(8):
            action = rng.uniform(-1, 1, size=(13, 2)).astype(np.float32)
            corner = np.clip(12 + np.cumsum(2 * action, axis=0), 0, 24).astype(int)
            pixels = np.zeros((13, SIZE, SIZE, 3), np.uint8)
            for frame, (x, y) in zip(pixels, corner, strict=True):
                frame[y : y + 8, x : x + 8] = 255
            action[-1] = np.nan
            writer.write_episode({"pixels": pixels, "action": action})
    return load_dataset(path, num_steps=4, frameskip=2)


@pytest.mark.parametrize("name", ["dummy", "frame", "lewm", "pldm", "prejepa"])
def test_a_run_ends_with_a_checkpoint_of_the_model(name, dataset, tmp_path):
    config = TrainConfig(
        model=preset_config(name, "debug"),
        num_steps=4,
        frameskip=2,
        epochs=1,
        max_steps=3,
        batch_size=4,
        precision="fp32",
        device="cpu",
        val_fraction=0.25,
        val_batches=1,
        log_every=1,
        loggers=("jsonl",),
    )
    result = train(config, dataset, tmp_path / name)
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.model.config.model_type == name
    assert checkpoint.model.config.action_dim == 4
    assert np.isfinite([row["train/loss"] for row in result.history]).all()
    info = {"pixels": torch.zeros(1, 1, 3, SIZE, SIZE, dtype=torch.uint8)}
    assert checkpoint.model.rollout(info, torch.zeros(1, 2, 3, 4))["predicted_emb"].shape[:3] == (1, 2, 4)
