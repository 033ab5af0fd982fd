"""Compound actions as one array."""

import gymnasium as gym
import numpy as np
import pytest

import stable_worldmodel as swm
from stable_worldmodel.data import load_dataset
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.wrappers import FlattenActionWrapper, flatten_actions


class Echo(gym.Env):
    """Observes the action it was given."""

    observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space
        self.taken = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.taken = action
        return np.zeros(1, np.float32), 0.0, False, False, {}


def box(*shape):
    return gym.spaces.Box(-1, 1, shape, np.float32)


def test_an_array_is_taken_apart():
    space = gym.spaces.Dict({"arm": box(2, 2), "legs": gym.spaces.Tuple([box(1), box(3)])})
    env = flatten_actions(Echo(space))
    assert env.action_space == gym.spaces.Box(-1, 1, (8,), np.float32)
    env.reset()
    env.step(np.arange(8, dtype=np.float32))
    np.testing.assert_array_equal(env.unwrapped.taken["arm"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(env.unwrapped.taken["legs"][0], [4])
    np.testing.assert_array_equal(env.unwrapped.taken["legs"][1], [5, 6, 7])


@pytest.mark.parametrize("space", [box(3), gym.spaces.Discrete(4), gym.spaces.Dict({"key": gym.spaces.Discrete(2)})])
def test_other_spaces_stay(space):
    env = Echo(space)
    assert flatten_actions(env) is env


def test_a_world_plays_an_env_with_compound_actions(tmp_path):
    with swm.World("swm/ImagePositioning-v1", 2, (32, 32), max_episode_steps=4) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(tmp_path / "d.h5", 2, seed=0, progress=False)
        width = world.single_action_space.shape[0]
    assert load_dataset(tmp_path / "d.h5").get_dim("action") == width == 11
    assert isinstance(FlattenActionWrapper(Echo(gym.spaces.Dict({"a": box(2)}))).action_space, gym.spaces.Box)
