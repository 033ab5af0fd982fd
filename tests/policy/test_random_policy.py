import gymnasium as gym
import numpy as np
import pytest
from pool_stub import PoolStub, box_pool

from stable_worldmodel.policy import RandomPolicy


def attached(num_envs=3, seed=None, pool=None):
    policy = RandomPolicy(seed=seed)
    policy.set_env(pool or box_pool(num_envs))
    return policy


def episode(policy, slot, seed, steps=130):
    policy.reset([slot], [seed])
    return np.stack([policy.get_action({})[slot] for _ in range(steps)])


def test_actions_are_of_the_batched_space():
    for space in (gym.spaces.Box(-2, 1, (3,)), gym.spaces.Discrete(4), gym.spaces.MultiDiscrete([2, 3])):
        pool = PoolStub(space, 5)
        policy = attached(pool=pool)
        assert policy.get_action({}) in pool.action_space
        policy.reset(range(5), range(5))
        actions = policy.get_action({})
        assert actions in pool.action_space
        assert actions.dtype == pool.action_space.dtype


def test_an_episodes_actions_do_not_depend_on_slot_or_neighbours():
    expected = episode(attached(1, seed=5), 0, seed=77)
    crowded = attached(4, seed=5)
    crowded.reset([0, 1, 3], [1, 2, 77])
    for _ in range(3):
        crowded.get_action({})
    np.testing.assert_array_equal(episode(crowded, 2, seed=77), expected)


def test_policy_seed_and_episode_seed_both_matter():
    runs = [episode(attached(1, seed=p), 0, seed=e, steps=1).tolist() for p, e in [(0, 1), (1, 0), (0, 0), (1, 1)]]
    assert len({str(run) for run in runs}) == 4
    assert episode(attached(1), 0, seed=1, steps=1).tolist() == runs[0]  # no seed counts as 0


def test_a_stream_does_not_repeat_its_first_block():
    actions = episode(attached(1, seed=0), 0, seed=0, steps=200)
    assert len(np.unique(actions, axis=0)) == 200


def test_seeded_policies_repeat_and_do_not_share_a_generator():
    pool = box_pool(3)
    first, second = attached(seed=1, pool=pool), attached(seed=1, pool=pool)
    for _ in range(3):
        np.testing.assert_array_equal(first.get_action({}), second.get_action({}))
    first.set_seed(1)
    assert first.seed == 1
    np.testing.assert_array_equal(first.get_action({}), attached(seed=1).get_action({}))


def test_unseeded_policy_follows_the_pools_space():
    pool = box_pool(3)
    pool.action_space.seed(9)
    expected = pool.action_space.sample()
    pool.action_space.seed(9)
    np.testing.assert_array_equal(attached(pool=pool).get_action({}), expected)


def test_envs_without_episode_seed_draw_from_the_batched_space():
    policy, plain = attached(seed=3), attached(seed=3)
    policy.reset([0, 1, 2], [0, 1, 2])
    policy.get_action({})
    policy.reset([0, 2], None)
    actions, expected = policy.get_action({}), plain.get_action({})
    np.testing.assert_array_equal(actions[[0, 2]], expected[[0, 2]])
    assert not np.array_equal(actions[1], expected[1])


def test_an_env_must_be_attached_first():
    with pytest.raises(RuntimeError, match="set_env"):
        RandomPolicy().get_action({})
