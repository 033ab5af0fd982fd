"""A run of the toy walk: a dataset with two images per row, and an evaluation with videos."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_envs

import stable_worldmodel as swm
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.viewer import ViewerServer, open_viewer

EPISODES, SCORED = 30, 4


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy_envs.register()
    folder = tmp_path_factory.mktemp("viewer") / "walks"
    with swm.World("toy/Walk-v0", num_envs=2, image_shape=(16, 24), verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(folder / "dataset.h5", EPISODES, seed=0, progress=False)
        world.evaluate(SCORED, seed=0, video=folder / "videos" / "random").save(folder / "random.json")
    return folder


@pytest.fixture
def server(run: Path) -> Iterator[ViewerServer]:
    with open_viewer(run) as opened:
        thread = threading.Thread(target=opened.serve_forever, daemon=True)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()
