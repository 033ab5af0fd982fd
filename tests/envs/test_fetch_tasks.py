"""Fetch: physics of the package, restoring, factors that place things, and the scripted controllers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics")

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.envs.gymnasium_robotics import ExpertPolicy
from stable_worldmodel.errors import ContractError


def make(task: str, **kwargs: Any) -> Any:
    return gym.make(f"swm/Fetch{task}-v3", disable_env_checker=True, **kwargs).unwrapped


TASKS = ("Reach", "Push", "Slide", "PickAndPlace")


@pytest.mark.parametrize("kind", ["", "Dense", "Dict"])
@pytest.mark.parametrize("task", TASKS)
def test_default_episodes_are_the_packages_to_the_last_bit(task: str, kind: str) -> None:
    ours = make(f"{task}{kind}")
    theirs = gym.make(f"Fetch{task}{kind.replace('Dict', '')}-v4", disable_env_checker=True).unwrapped
    ours.reset(seed=3, options={"variation": ["all"]})  # leaves no trace
    _, info = ours.reset(seed=5, options={"variation": []})
    expected, _ = theirs.reset(seed=5)
    np.testing.assert_array_equal(info["goal_state"], expected["desired_goal"])
    generator = np.random.default_rng(0)
    for _ in range(200):
        action = generator.uniform(-1, 1, 4)
        observation, reward, *_ = ours.step(action)
        expected, wanted, *_ = theirs.step(action)
        np.testing.assert_array_equal(ours._fetch.data.qpos, theirs.data.qpos)
        np.testing.assert_array_equal(ours._fetch.data.qvel, theirs.data.qvel)
        if kind == "Dict":
            assert observation.keys() == expected.keys()
            for key, value in expected.items():
                np.testing.assert_array_equal(observation[key], value)
        else:
            np.testing.assert_array_equal(observation[:-3], expected["observation"].astype(np.float32))
        assert reward == wanted


@pytest.mark.parametrize("task", ["Reach", "PickAndPlace"])
def test_a_restored_row_goes_on_as_it_was_recorded(task: str) -> None:
    env, other = make(task, render_mode="rgb_array", resolution=32), make(task, render_mode="rgb_array", resolution=32)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 4))
    rows = [env.step(action)[4] for action in actions]
    goal = {f"goal_{key}": value for key, value in rows[15].items()}
    other.reset(seed=9, options=other.reset_options_from_dataset(rows[5], goal))
    for action, row in zip(actions[6:], rows[6:], strict=True):
        info = other.step(action)[4]
        np.testing.assert_array_equal(info["qpos"], row["qpos"])
        np.testing.assert_array_equal(info["proprio"], row["proprio"])


def test_the_arm_starts_where_its_factor_says() -> None:
    env = make("PickAndPlace")
    wanted = np.array([1.28, 0.85])
    _, info = env.reset(seed=0, options={"variation_values": {"agent.start_position": wanted}})
    np.testing.assert_allclose(info["proprio"][:2], wanted, atol=0.01)
    _, info = env.reset(seed=0, options={"variation": []})
    np.testing.assert_allclose(info["proprio"][:2], env._nominal[:2], atol=0.01)


def test_mass_and_inertia_of_the_block_follow() -> None:
    env = make("Push")
    env.reset(seed=0, options={"variation": []})
    body = env._fetch.model.body("object0").id
    inertia = env._fetch.model.body_inertia[body].copy()
    env.reset(seed=0, options={"variation_values": {"block.mass": [4.0]}})
    assert env._fetch.model.body_mass[body] == pytest.approx(4.0)
    np.testing.assert_allclose(env._fetch.model.body_inertia[body], 2 * inertia)


def test_episodes_have_the_packages_length() -> None:
    env = make("Reach")
    env.reset(seed=0)
    assert [env.step(np.zeros(4))[3] for _ in range(50)] == [False] * 49 + [True]


@pytest.mark.parametrize("task", ["Reach", "PickAndPlace", "Slide"])
def test_running_ahead_tells_what_will_happen_and_changes_nothing(task: str) -> None:
    env, other = make(task), make(task)
    actions = np.random.default_rng(1).uniform(-1, 1, (3, 6, 4))
    for e in (env, other):
        e.reset(seed=2)
        e.step(actions[0, 0])
    achieved = env.run_ahead(actions)
    for action, place in zip(actions[1], achieved[1], strict=True):
        info, same = env.step(action)[4], other.step(action)[4]
        for key in ("qpos", "qvel", "proprio"):
            np.testing.assert_array_equal(info[key], same[key])
        np.testing.assert_array_equal(env._seen["achieved_goal"], place)


@pytest.mark.parametrize("task", ["Reach", "Push"])
def test_matched_pictures_look_like_full_ones(task: str) -> None:
    for side in (64, 224):
        pictures = []
        for quality in ("full", "matched"):
            env = make(task, render_mode="rgb_array", resolution=side, quality=quality)
            env.reset(seed=0, options={"variation": []})
            pictures.append(env.render().astype(float))
        assert np.abs(pictures[0] - pictures[1]).mean() <= 2.0


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("Reach", 8), ("PickAndPlace", 7), ("Push", 7), ("Slide", 6)])
def test_controllers_solve_their_tasks(task: str, least: int) -> None:
    env = make(task)
    policy = ExpertPolicy(seed=0)
    policy.set_env(env)
    solved = 0
    for seed in range(8):
        _, info = env.reset(seed=seed)
        for step in range(50):
            info = env.step(policy.get_action({**info, "step_idx": step}))[4]
        solved += info["is_success"]
    assert solved >= least


def test_rewards_can_be_computed_for_other_goals() -> None:
    env = make("ReachDict")
    observation, _ = env.reset(seed=0)
    assert env.compute_reward(observation["achieved_goal"], observation["achieved_goal"], {}) == 0.0
    with pytest.raises(ContractError, match="goal_state"):
        env.reset(options={"goal_state": [0.0]})
