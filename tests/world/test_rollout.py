"""An episode is a function of its seed: of nothing that ran beside it, before it or instead of it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_envs import CoinEnv

from stable_worldmodel.errors import ContractError, MissingKeyError, PolicyNotSetError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import Rollout, World
from stable_worldmodel.world.stepper import Stepper


def walk_world(num_envs, **kwargs):
    return World("toy/Walk-v0", num_envs, (8, 8), **kwargs)


def coin_world(num_envs, max_episode_steps=20):
    return World("toy/Coin-v0", num_envs, add_pixels=False, goal_conditioned=False, max_episode_steps=max_episode_steps)


def collected(num_envs, episodes, seed=0, policy_seed=1, **kwargs):
    """Episodes as dictionaries of arrays."""
    sink = []
    sink_writer = type("Sink", (), {"write_episode": staticmethod(sink.append)})
    with walk_world(num_envs, **kwargs) as world:
        world.set_policy(RandomPolicy(seed=policy_seed))
        world.collect(writer=sink_writer, episodes=episodes, seed=seed, progress=False)
    return sink


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            x, y = np.asarray(a[key]), np.asarray(b[key])
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=key)


@settings(max_examples=15, deadline=None)
@given(num_envs=st.integers(1, 9), episodes=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_episodes_are_identical_for_any_num_envs(num_envs, episodes, seed):
    assert_same(collected(num_envs, episodes, seed), collected(1, episodes, seed))


def test_an_episode_depends_on_its_number_only_through_its_seed():
    later = collected(2, 3, seed=14)
    assert_same(later, collected(4, 17, seed=0)[14:])


def test_nothing_that_ran_before_matters():
    with walk_world(3) as world:
        world.set_policy(RandomPolicy(seed=1))
        first = world.evaluate(episodes=7, seed=0)
        world.reset(seed=99)
        world.step()
        again = world.evaluate(episodes=7, seed=0)
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])


def test_rows_begin_with_the_reset_frame_and_end_with_the_terminal_one():
    (episode,) = collected(1, 1, seed=2)
    rows = len(episode["step_idx"])
    assert episode["step_idx"].tolist() == list(range(rows))
    assert episode["pixels"][:, 0, 0, 0].tolist() == list(range(1, rows + 1))  # the toy draws its step counter
    assert np.isnan(episode["action"][-1]).all()
    assert not np.isnan(episode["action"][:-1]).any()
    assert np.isnan(episode["reward"][0])
    assert episode["reward"][1:].tolist() == list(range(1, rows))
    assert episode["terminated"].tolist() == [False] * (rows - 1) + [True]
    assert set(episode["policy"]) == {"random"}
    assert set(episode["seed"].tolist()) == {2}
    assert "render_time" not in episode


def test_the_action_of_a_row_is_the_one_that_leads_to_the_next():
    (episode,) = collected(1, 1, seed=2, max_length=40)
    noise = np.diff(episode["state"][:, 0]) - episode["action"][:-1, 0]
    assert np.abs(noise).max() < 0.6  # six standard deviations of the toy's noise; a shifted column exceeds it
    assert np.abs(np.diff(episode["state"][:, 0])).max() > 0.6


def test_success_counts_each_started_episode_once_for_every_num_envs():
    episodes = 300
    lucky = []
    for seed in range(episodes):
        env = CoinEnv()
        env.reset(seed=seed)
        lucky.append(env.lucky)
    assert 0.4 < np.mean(lucky) < 0.6
    for num_envs in (1, 8, 50, 100):
        with coin_world(num_envs) as world:
            world.set_policy(RandomPolicy(seed=0))
            results = world.evaluate(episodes=episodes, seed=0)
        assert results["episode_successes"].tolist() == lucky
        assert results["seeds"].tolist() == list(range(episodes))


def test_terminating_is_no_success_when_the_env_says_so():
    with World("toy/Failing-v0", 2, add_pixels=False, goal_conditioned=False) as world:
        world.set_policy(RandomPolicy(seed=0))
        assert world.evaluate(episodes=5, seed=0)["success_rate"] == 0


def test_fewer_episodes_than_envs_run_only_those():
    with walk_world(6) as world:
        world.set_policy(RandomPolicy(seed=0))
        results = world.evaluate(episodes=2, seed=0)
    assert results["episode_count"] == len(results["episode_lengths"]) == 2


def test_finished_episodes_wait_for_older_ones_in_bounded_number():
    with coin_world(2, max_episode_steps=400) as world:
        world.set_policy(RandomPolicy(seed=0))
        rollout = Rollout(world._stepper, range(60), seed=0)
        held = []
        for episode in rollout:
            held.append(len(rollout._done))
            assert episode.index == len(held) - 1
    assert max(held) <= 4 * 2 + 2


def test_stopping_early_leaves_a_world_that_can_go_on():
    with walk_world(3) as world:
        world.set_policy(RandomPolicy(seed=1))
        first = [e.total_reward for e in itertools.islice(Rollout(world._stepper, range(9), seed=0), 2)]
        again = [e.total_reward for e in Rollout(world._stepper, range(9), seed=0)]
    assert first == again[:2]


def test_an_unseeded_run_reports_minus_one():
    with walk_world(2) as world:
        world.set_policy(RandomPolicy(seed=1))
        assert world.evaluate(episodes=3)["seeds"].tolist() == [-1, -1, -1]


def test_a_budget_ends_episodes_without_success():
    with coin_world(2, max_episode_steps=None) as world:
        world.set_policy(RandomPolicy(seed=0))
        episodes = list(Rollout(world._stepper, range(8), seed=0, max_steps=5))
    assert {e.length for e in episodes if not e.success} == {5}
    assert not any(e.truncated for e in episodes)


def test_eval_keys_return_the_last_info_and_missing_ones_fail_at_once():
    with walk_world(2) as world:
        world.set_policy(RandomPolicy(seed=1))
        results = world.evaluate(episodes=3, seed=0, eval_keys=["state", "label"])
        assert results["state"].shape == (3, 1)
        assert results["label"].dtype.kind == "U"
        with pytest.raises(MissingKeyError, match="nonsense"):
            world.evaluate(episodes=3, seed=0, eval_keys=["nonsense"])
        with pytest.raises(ContractError, match="fixed"):
            world.evaluate(episodes=3, seed=0, eval_keys=["seeds"])


def test_a_rollout_needs_a_policy_and_sane_arguments():
    with walk_world(2) as world:
        with pytest.raises(PolicyNotSetError):
            Rollout(Stepper(world.envs), range(2))
        world.set_policy(RandomPolicy(seed=1))
        with pytest.raises(ContractError, match="mode"):
            Rollout(world._stepper, range(2), mode="sometimes")
        with pytest.raises(ContractError, match="one episode per env"):
            Rollout(world._stepper, range(3), mode="wait")
        with pytest.raises(ContractError, match="max_steps"):
            Rollout(world._stepper, range(2), max_steps=0)
