"""Recordings and runs for the tests of training."""

from __future__ import annotations

import numpy as np

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.train import TrainConfig

SIZE = 16


def write_squares(path, lengths=(17,) * 12, metadata=None, seed=0):
    """Episodes of a bright square that the action moves, with all the columns that any model reads.

    Row t has reward 10 * episode + t, NaN at first; every episode terminates.
    """
    rng = np.random.default_rng(seed)
    with open_writer(path, metadata=metadata) as writer:
        for episode, rows in enumerate(lengths):
            action = rng.uniform(-0.5, 0.5, size=(rows, 2)).astype(np.float32)
            place = np.clip(6 + np.cumsum(2 * action, axis=0), 0, SIZE - 4)
            pixels = np.zeros((rows, SIZE, SIZE, 3), np.uint8)
            for frame, (x, y) in zip(pixels, place.astype(int), strict=True):
                frame[y : y + 4, x : x + 4] = 255
            action[-1] = np.nan
            reward = 10.0 * episode + np.arange(rows)
            reward[0] = np.nan
            writer.write_episode(
                {
                    "pixels": pixels,
                    "action": action,
                    "proprio": place.astype(np.float32),
                    "reward": reward,
                    "terminated": np.arange(rows) == rows - 1,
                    "row": np.arange(rows, dtype=np.int64),
                    "episode": np.full(rows, episode),
                }
            )
    return path


def config_of(model, **values):
    """A run of a few steps on `write_squares`."""
    sizes = {"image_size": SIZE, "patch_size": 8} if model in ("lewm", "pldm") else {"image_size": SIZE}
    sizes = {} if model in ("tdmpc2",) else sizes
    from stable_worldmodel.wm.registry import preset_config

    defaults = {
        "frameskip": 2,
        "max_steps": 12,
        "epochs": 4,
        "log_every": 3,
        "val_fraction": 0.25,
        "loggers": ("jsonl",),
    }
    return TrainConfig.preset("debug", preset_config(model, "debug", **sizes), **{**defaults, **values})


def open_windows(path, config):
    return load_dataset(path, num_steps=config.num_steps, frameskip=config.frameskip)


def losses(history):
    return [row["train/loss"] for row in history]
