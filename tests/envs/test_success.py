"""What Gymnasium's envs call success, checked in the envs themselves where they are installed."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import parse_env_id
from toy_envs import CoinEnv, FailingTermination, WalkEnv

from stable_worldmodel.envs.success import REACHED, RULES, SURVIVED, WON, SuccessRule, solved, success_rule
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World
from stable_worldmodel.wrappers import SuccessWrapper, add_success

BUILT_IN = {
    id: spec
    for id, spec in gym.registry.items()
    if str(spec.entry_point).startswith("gymnasium.envs.") and spec.namespace is None and "GymV" not in id
}


def play(env, act, seed=0, limit=1000):
    """One episode: the is_success flags from reset to end, the rewards, and the last two flags."""
    observation, info = env.reset(seed=seed)
    flags, rewards = [info["is_success"]], []
    for _ in range(limit):
        observation, reward, terminated, truncated, info = env.step(act(observation))
        flags.append(info["is_success"])
        rewards.append(reward)
        if terminated or truncated:
            break
    assert not any(flags[:-1])
    assert all(isinstance(flag, bool) for flag in flags)
    return flags[-1], rewards, terminated, truncated


def make(id, **arguments):
    return add_success(gym.make(id, disable_env_checker=True, **arguments), id)


def route(env, start):
    """Actions of a shortest path from state `start` of a toy-text env to a rewarded or goal transition."""
    table, came_from, queue = env.unwrapped.P, {start: None}, deque([start])
    while queue:
        state = queue.popleft()
        for action in table[state]:
            _, after, reward, terminated = table[state][action][0]
            if terminated and (reward > 0 or "Cliff" in env.spec.id):
                actions = [action]
                while came_from[state] is not None:
                    state, action = came_from[state]
                    actions.append(action)
                return actions[::-1]
            if not terminated and after not in came_from:
                came_from[after] = (state, action)
                queue.append(after)
    raise AssertionError("no way to the goal")


class TestTable:
    def test_every_env_of_gymnasium_has_an_entry_and_every_entry_an_env(self):
        assert {parse_env_id(id)[1] for id in BUILT_IN} <= RULES.keys()
        assert RULES.keys() <= {parse_env_id(id)[1] for id in BUILT_IN}

    def test_thresholds_are_those_registered(self):
        rules = {name: rule for name, rule in RULES.items() if rule is not None and np.isfinite(rule.min_return)}
        assert rules.keys() == {"BipedalWalker", "BipedalWalkerHardcore", "HalfCheetah", "Swimmer", "Reacher"}
        for id, spec in BUILT_IN.items():
            name = parse_env_id(id)[1]
            if name in rules and spec.max_episode_steps is not None:  # other versions only say that they are gone
                assert rules[name].min_return == spec.reward_threshold

    @pytest.mark.parametrize(
        ("env_id", "rule"),
        [
            ("CartPole-v0", SURVIVED),
            ("CartPole-v1", SURVIVED),
            ("CartPole", SURVIVED),
            ("gymnasium.envs:CartPole-v1", SURVIVED),
            ("MountainCarContinuous-v0", REACHED),
            ("FrozenLake8x8-v1", WON),
            ("Reacher-v5", solved(-3.75)),
            ("Pendulum-v1", None),
            ("swm/TwoRoom-v1", None),
            ("phys2d/CartPole-v1", None),
            ("Unheard-v0", None),
        ],
    )
    def test_ids_are_looked_up_without_version(self, env_id, rule):
        assert success_rule(env_id) == rule


class TestSuccessRule:
    @pytest.mark.parametrize(
        ("rule", "reward", "terminated", "truncated", "total", "expected"),
        [
            (SURVIVED, 1, False, True, 9, True),
            (SURVIVED, 1, True, False, 9, False),
            (SURVIVED, 1, True, True, 9, False),
            (SURVIVED, 1, False, False, 9, False),
            (REACHED, -1, True, False, -9, True),
            (REACHED, -1, True, True, -9, True),
            (REACHED, -1, False, True, -9, False),
            (WON, 1, True, False, 1, True),
            (WON, 0, True, False, 1, False),
            (WON, 1, False, True, 1, False),
            (WON, 1, False, False, 1, False),
            (solved(5), 0, False, True, 5, True),
            (solved(5), 0, True, False, 6, True),
            (solved(5), 0, False, True, 4.9, False),
            (solved(-5), -1, False, False, -1, False),  # more will follow
            (RULES["CarRacing"], -100, True, False, 800, False),
            (RULES["CarRacing"], 3, True, False, 800, True),
            (RULES["CarRacing"], 3, False, True, 950, False),
            (RULES["LunarLander"], 100, True, False, 150, True),
            (RULES["LunarLander"], -100, True, False, 250, False),
            (RULES["BipedalWalker"], 0.2, True, False, 301, True),
            (RULES["BipedalWalker"], -100, True, False, 180, False),
            (RULES["Hopper"], 3, False, True, 3000, True),
            (RULES["Hopper"], 3, True, False, 3000, False),
        ],
    )
    def test_only_the_end_of_an_episode_can_be_a_success(self, rule, reward, terminated, truncated, total, expected):
        assert rule(reward, terminated, truncated, total) is expected


class TestClassicControl:
    def test_cart_pole_succeeds_by_standing_and_fails_by_falling(self):
        def balance(state):
            return int(state[2] + 0.5 * state[3] + 0.05 * state[0] + 0.1 * state[1] > 0)

        success, rewards, terminated, truncated = play(make("CartPole-v1"), balance)
        assert (success, terminated, truncated, len(rewards)) == (True, False, True, 500)
        success, _, terminated, _ = play(make("CartPole-v1"), lambda state: 1)
        assert (success, terminated) == (False, True)

    @pytest.mark.parametrize(
        ("id", "push"),
        [
            ("MountainCar-v0", lambda state: 2 if state[1] >= 0 else 0),
            ("MountainCarContinuous-v0", lambda state: np.array([1.0 if state[1] >= 0 else -1.0], np.float32)),
        ],
    )
    def test_mountain_cars_succeed_on_the_hill(self, id, push):
        success, _, terminated, _ = play(make(id), push)
        assert (success, terminated) == (True, True)
        idle = 1 if id == "MountainCar-v0" else np.zeros(1, np.float32)
        success, _, terminated, truncated = play(make(id), lambda state: idle)
        assert (success, terminated, truncated) == (False, False, True)

    def test_acrobot_succeeds_above_the_line(self):
        success, _, terminated, _ = play(make("Acrobot-v1"), lambda state: 2 if state[4] < 0 else 0, limit=500)
        assert (success, terminated) == (True, True)
        success, _, _, truncated = play(make("Acrobot-v1"), lambda state: 1)
        assert (success, truncated) == (False, True)

    def test_pendulum_has_no_notion_of_success(self):
        env = gym.make("Pendulum-v1")
        assert add_success(env, "Pendulum-v1") is env
        assert "is_success" not in env.reset(seed=0)[1]


class TestToyText:
    @pytest.mark.parametrize("id", ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "Taxi-v4"])
    def test_the_shortest_way_to_the_goal_is_a_success(self, id):
        env = make(id, **({"is_slippery": False} if "Lake" in id else {}))
        start, _ = env.reset(seed=0)
        actions = iter(route(env, start))
        success, _, terminated, _ = play(env, lambda state: next(actions))
        assert (success, terminated) == (True, True)

    def test_a_hole_in_the_ice_terminates_without_success(self):
        success, _, terminated, _ = play(make("FrozenLake-v1", is_slippery=False), iter_of(2, 1))
        assert (success, terminated) == (False, True)

    def test_the_cliff_does_not_terminate(self):
        success, rewards, terminated, _ = play(make("CliffWalking-v1"), lambda state: 1, limit=3)
        assert (success, rewards, terminated) == (False, [-100, -100, -100], False)

    def test_on_slippery_ground_only_the_goal_terminates(self):
        rng = np.random.default_rng(0)
        env = make("CliffWalkingSlippery-v1")
        success, _, terminated, _ = play(env, lambda state: int(rng.integers(4)), limit=100_000)
        assert success is terminated is True
        assert env.unwrapped.s == 47

    def test_taxi_out_of_time_is_no_success(self):
        success, rewards, terminated, truncated = play(make("Taxi-v4"), lambda state: 0)
        assert (success, terminated, truncated, len(rewards)) == (False, False, True, 200)

    def test_blackjack_is_won_by_a_positive_reward(self):
        env = make("Blackjack-v1")
        results = [play(env, lambda hand: int(hand[0] < 17), seed) for seed in range(100)]
        assert {np.sign(rewards[-1]) for _, rewards, _, _ in results} == {-1, 0, 1}
        assert all(success is bool(rewards[-1] > 0) for success, rewards, _, _ in results)


def iter_of(*actions):
    rest = iter(actions)
    return lambda state: next(rest)


class TestSuccessWrapper:
    def test_an_env_that_reports_success_itself_is_believed(self):
        class Reports(WalkEnv):
            def _observe(self):
                observation, info = super()._observe()
                return observation, {**info, "success": np.bool_(self.t > 0)}

        env = SuccessWrapper(Reports("rgb_array"), SURVIVED)
        assert "is_success" not in env.reset(seed=0)[1]
        assert "is_success" not in env.step(np.zeros(1))[4]

    def test_a_report_that_starts_with_the_first_step_wins(self):
        lucky = SuccessWrapper(CoinEnv(), SuccessRule(min_return=1e9))
        assert any(play(lucky, lambda state: 0, seed, limit=20)[0] for seed in range(8))
        assert play(SuccessWrapper(FailingTermination(), REACHED), lambda state: 0)[0] is False

    def test_returns_do_not_leak_into_the_next_episode(self):
        env = SuccessWrapper(WalkEnv("rgb_array", max_length=1), solved(1.5))
        assert [play(env, lambda state: np.zeros(1, np.float32), seed)[0] for seed in range(3)] == [False] * 3

    def test_the_id_is_that_of_the_env_unless_given(self):
        assert isinstance(add_success(gym.make("CartPole-v1")), SuccessWrapper)
        assert isinstance(add_success(WalkEnv(), "CartPole-v1"), SuccessWrapper)
        for env in (WalkEnv(), gym.make("toy/Walk-v0")):
            assert add_success(env) is env

    def test_world_scores_cart_pole_by_survival(self):
        with World(
            "CartPole-v1", 3, add_pixels=False, goal_conditioned=False, max_episode_steps=15, pre_wrappers=[add_success]
        ) as world:
            world.set_policy(RandomPolicy(seed=0))
            results = world.evaluate(episodes=20, seed=0, eval_keys=["terminated", "truncated"])
        survived = results["truncated"] & ~results["terminated"]
        np.testing.assert_array_equal(results["episode_successes"], survived)
        assert 0 < survived.sum() < 20
