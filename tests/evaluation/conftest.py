"""A recording of TwoRoom and a small model that was, as far as its checkpoint says, trained on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stable_worldmodel.data import get_scaler, load_dataset
from stable_worldmodel.policy.named import make_policy
from stable_worldmodel.train.protocol import recorded_protocol
from stable_worldmodel.world import World

ENV = "swm/TwoRoom-v1"


@pytest.fixture(scope="session")
def rooms(tmp_path_factory) -> Path:
    """30 expert episodes at 32 px."""
    path = tmp_path_factory.mktemp("rooms") / "rooms.h5"
    with World(ENV, 8, (32, 32), max_episode_steps=60, verbose=0) as world:
        world.set_policy(make_policy("expert", ENV, seed=0))
        world.collect(path, 30, seed=0, progress=False)
    return path


@pytest.fixture(scope="session")
def checkpoint(rooms: Path, tmp_path_factory) -> Path:
    """An untrained LeWM with scaler, split and protocol."""
    import torch

    from stable_worldmodel.wm import LeWM, LeWMConfig, save_pretrained

    torch.manual_seed(0)
    dataset = load_dataset(rooms)
    protocol = replace(
        recorded_protocol(dataset),
        episodes=6,
        goal_offset=10,
        eval_budget=8,
        plan={"horizon": 2, "receding_horizon": 2, "action_block": 2},
        solver={"type": "cem", "num_samples": 8, "n_steps": 2, "topk": 4},
    )
    return save_pretrained(
        LeWM(LeWMConfig.preset("debug", image_size=32, action_dim=4)),
        tmp_path_factory.mktemp("run") / "checkpoint",
        scalers={"action": get_scaler("zscore").fit(dataset.get_col_data("action"))},
        split={"train": list(range(20)), "val": list(range(20, 30))},
        protocol=protocol.to_dict(),
    )
