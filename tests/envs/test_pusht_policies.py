"""The weak policy and the expert of PushT."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from stable_worldmodel.envs.pusht import ExpertPolicy, PushT, PushTDiscrete, WeakPolicy
from stable_worldmodel.errors import ContractError
from stable_worldmodel.world import World

STARTS = ["agent.start_position", "block.start_position", "block.angle"]


def successes(episodes: int, policy: ExpertPolicy, options: dict | None = None, **kwargs: Any) -> int:
    """How many of so many episodes end at the goal within 300 steps."""
    env = PushT(resolution=8, contact_marks=False, **kwargs)
    policy.set_env(env)
    count = 0
    for seed in range(episodes):
        _, info = env.reset(seed=seed, options=options)
        policy.reset([0], [seed])
        for _ in range(300):
            _, _, terminated, _, info = env.step(policy.get_action(info))
            if terminated:
                count += 1
                break
    return count


# ---------------------------------------------------------------------- expert
@pytest.mark.parametrize("kwargs", [{}, {"bounded": True}, {"relative": False}, {"compat": "public"}])
def test_expert_reaches_the_goal(kwargs) -> None:
    assert successes(6, ExpertPolicy(), **kwargs) >= 5


@pytest.mark.slow
def test_expert_solves_nine_in_ten() -> None:
    assert successes(100, ExpertPolicy(), bounded=True) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("shape", range(1, 8))
def test_expert_moves_every_shape(shape: int) -> None:
    options = {"variation": STARTS, "variation_values": {"block.shape": shape}}
    assert successes(10, ExpertPolicy(), options) >= 8


def test_expert_copes_with_noise() -> None:
    assert successes(5, ExpertPolicy(action_noise=0.2, action_repeat_prob=0.05)) >= 4


def test_expert_stays_in_the_picture() -> None:
    env = PushT(resolution=8)
    policy = ExpertPolicy()
    policy.set_env(env)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        for _ in range(40):
            _, _, _, _, info = env.step(policy.get_action(info))
            assert (np.abs(info["pos_agent"] - 256) <= 256).all()


def test_experts_episodes_do_not_depend_on_their_neighbours() -> None:
    def run(num_envs: int) -> list[np.ndarray]:
        written: list[Any] = []

        class Writer:
            def write_episode(self, episode: Any) -> None:
                written.append({key: np.array(value) for key, value in episode.items()})

            def write_episodes(self, episodes: Any) -> None:
                for episode in episodes:
                    self.write_episode(episode)

        with World("swm/PushT-v1", num_envs, image_shape=(8, 8), max_episode_steps=12, verbose=0) as world:
            world.set_policy(ExpertPolicy(action_noise=0.1, seed=1))
            world.collect(writer=Writer(), episodes=4, seed=10, progress=False)
        return [episode["action"] for episode in written]

    for alone, together in zip(run(1), run(3), strict=True):
        np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("kwargs", [{"action_noise": -1}, {"action_repeat_prob": 2}])
def test_expert_refuses_impossible_noise(kwargs) -> None:
    with pytest.raises(ContractError):
        ExpertPolicy(**kwargs)


# ---------------------------------------------------------------------- weak policy
def weak(env: PushT, steps: int = 60, seed: int = 3, **kwargs: Any) -> tuple[list[Any], list[dict]]:
    policy = WeakPolicy(**kwargs)
    policy.set_env(env)
    _, info = env.reset(seed=seed)
    policy.reset([0], [seed])
    actions, infos = [], [info]
    for _ in range(steps):
        actions.append(policy.get_action(info))
        info = env.step(actions[-1])[4]
        infos.append(info)
    return actions, infos


@pytest.mark.parametrize("distance", [100, 30])
def test_weak_policy_aims_near_the_block(distance: int) -> None:
    actions, infos = weak(PushT(resolution=8), dist_constraint=distance)
    close = 0
    for action, info in zip(actions, infos, strict=False):
        assert (action.dtype, action.shape) == (np.float32, (2,))
        away = np.abs(info["pos_agent"] + 100 * action - info["block_pose"][:2])
        if (np.abs(info["pos_agent"] - info["block_pose"][:2]) < 100 + distance).all():
            close += 1
            assert (away <= distance + 1e-3).all()
    assert close > 20
    assert sum(info["n_contacts"] for info in infos)


def test_weak_policy_follows_its_seed() -> None:
    first, again, other = (weak(PushT(resolution=8), 10, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_weak_policy_drives_bins() -> None:
    env = PushTDiscrete(resolution=8)
    actions, _ = weak(env, 20)
    assert all(env.action_space.contains(action.astype(np.int64)) for action in actions)
    policy = WeakPolicy()
    policy.set_env(env)
    assert policy.discrete


def test_weak_policy_drives_absolute_actions() -> None:
    actions, infos = weak(PushT(resolution=8, relative=False), 20)
    for action, info in zip(actions, infos, strict=False):
        assert ((action >= 0) & (action <= 512)).all()
        assert (np.abs(action - info["block_pose"][:2]) <= 100.001).all()


def test_policies_drive_a_world() -> None:
    for name in ("swm/PushT-v1", "swm/PushT-Discrete-v1"):
        for policy in (WeakPolicy(seed=0), ExpertPolicy(seed=0)):
            with World(name, 2, image_shape=(8, 8), max_episode_steps=5, verbose=0) as world:
                world.set_policy(policy)
                results = world.evaluate(episodes=2, seed=0)
            assert results["episode_count"] == 2


def test_other_envs_are_refused() -> None:
    with pytest.raises(ContractError, match="CartPole"):
        WeakPolicy().set_env(gym.make("CartPole-v1"))
    with pytest.raises(ContractError, match="dist_constraint"):
        WeakPolicy(dist_constraint=0)
