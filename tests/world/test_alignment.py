"""Row t of a stored episode is what was seen at t and the action taken there, in every format that can be written."""

import gymnasium as gym
import numpy as np
import pytest

from stable_worldmodel.data import load_dataset
from stable_worldmodel.data.registry import FORMATS, Format
from stable_worldmodel.policy import BasePolicy
from stable_worldmodel.world import World

WRITABLE = [name for name, format in FORMATS.items() if format.open_writer.__func__ is not Format.open_writer.__func__]
SHADES = 40  # between the frames of two steps, far more than any codec changes


class CountingEnv(gym.Env):
    """Step t observes t, pays 10 t and shows a frame of shade 40 t. Episode s ends after 2 + s % 3 steps."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Box(-100, 100, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, 2 + seed % 3
        return np.zeros(1, np.float32), {"goal": np.full((32, 32, 3), 250, np.uint8)}

    def step(self, action):
        self.t += 1
        info = {"goal": np.full((32, 32, 3), 250, np.uint8)}
        return np.full(1, self.t, np.float32), 10.0 * self.t, self.t == self.length, False, info

    def render(self):
        return np.full((32, 32, 3), SHADES * self.t, np.uint8)


class Announcing(BasePolicy):
    """Takes the action (t, -t) at time t."""

    def get_action(self, obs, **kwargs):
        t = obs["step_idx"][:, 0].astype(np.float32)
        return np.stack([t, -t], axis=1)


@pytest.mark.parametrize("name", WRITABLE)
def test_rows_hold_what_was_seen_and_done_then(tmp_path, name):
    gym.register("toy/Counting-v0", entry_point=CountingEnv)
    try:
        with World("toy/Counting-v0", 2, (32, 32)) as world:
            world.set_policy(Announcing())
            world.collect(tmp_path / "data", 3, seed=0, format=name, progress=False)
    finally:
        gym.registry.pop("toy/Counting-v0")
    dataset = load_dataset(tmp_path / "data")
    assert dataset.lengths.tolist() == [3, 4, 5]
    for episode, rows in enumerate(dataset.lengths):
        stored = dataset.read_rows(episode, 0, rows)
        t = np.arange(rows)
        np.testing.assert_array_equal(stored["observation"][:, 0], t)
        np.testing.assert_array_equal(stored["step_idx"].ravel(), t)
        np.testing.assert_array_equal(stored["action"][:-1], np.stack([t, -t], 1)[:-1])
        assert np.isnan(stored["action"][-1]).all()
        assert np.isnan(stored["reward"].ravel()[0])
        np.testing.assert_array_equal(stored["reward"].ravel()[1:], 10.0 * t[1:])
        np.testing.assert_array_equal(stored["terminated"].ravel(), t == rows - 1)
        frames = stored["pixels"].astype(int)
        assert (abs(frames - SHADES * t[:, None, None, None]) < SHADES / 4).all()
        assert (abs(stored["goal"].astype(int) - 250) < 5).all()
        assert set(stored["seed"].ravel().tolist()) == {episode}
