"""Pictures of every 2-D env, of any size, are a much larger one averaged down."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import stable_worldmodel.envs  # noqa: F401  (registers the ids)

LARGE = 896
IDS = (
    "swm/PushT-v1",
    "swm/TwoRoom-v1",
    "swm/TwoRoom-v0",
    "swm/Piecewise-v0",
    "swm/SimplePointMaze-v0",
    "swm/SimpleNavigation-v0",
    "swm/VoidRun-v0",
)  # and not ImagePositioning, whose noise has pixels of its own


def picture(id: str, size: int, seed: int, variation: list[str]) -> np.ndarray:
    env: Any = gym.make(id, render_mode="rgb_array", disable_env_checker=True).unwrapped
    env.render_shape = (size, size)
    env.reset(seed=seed, options={"variation": variation})
    env.action_space.seed(seed)
    for _ in range(6):
        env.step(env.action_space.sample())
    return env.render()


@pytest.mark.parametrize("variation", [[], ["all"]], ids=["defaults", "all factors"])
@pytest.mark.parametrize("id", IDS)
def test_small_pictures_are_a_large_one_averaged(id: str, variation: list[str]) -> None:
    for seed in range(2):
        large = picture(id, LARGE, seed, variation).astype(np.float64)
        for size, tolerance in ((32, 2.5), (64, 2), (224, 0.5)):
            times = LARGE // size
            averaged = large.reshape(size, times, size, times, 3).mean(axis=(1, 3))
            error = np.abs(picture(id, size, seed, variation) - averaged).mean()
            assert error < tolerance, (size, seed)
