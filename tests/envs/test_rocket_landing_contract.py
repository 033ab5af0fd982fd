"""The rocket: the contract of all envs, what is the package's, and its pilot. The first flight takes half a minute."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import EnvContract, columns
from gymnasium.utils.env_checker import check_env

pytest.importorskip("PyFlyt", reason="needs PyFlyt: pip install 'stable-worldmodel[rocket]'")

from stable_worldmodel.envs.rocket_landing import ExpertPolicy, RocketLandingEnv
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.utils import flatten_dict

pytestmark = pytest.mark.slow


class TestRocketLanding(EnvContract):
    id = "swm/PFRocketLanding-v0"
    kwargs: ClassVar[dict[str, Any]] = {"ceiling": 60.0}  # the ground is in sight
    native_size = (480, 480)

    def make(self, size: tuple[int, int] | None = (96, 96)) -> Any:
        return super().make(size)

    def actions(self, env: Any, count: int = 15) -> list[Any]:
        return super().actions(env, count)

    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for known in (".*A Box observation space m.*infinity", ".*For Box action spaces, we recommend"):
                warnings.filterwarnings("ignore", message=known)
            check_env(self.make(), skip_render_check=False)

    def test_seeds_differ(self) -> None:
        """Starts are alike unless they are varied; the noise of the engine differs."""
        env = self.make()
        ends = {self.record(env, seed, frames=False)[-1]["state"].tobytes() for seed in range(4)}
        assert len(ends) == 4

    def test_sampled_goals_follow_the_seed_and_change_nothing(self) -> None:
        """There is one goal."""
        env = self.make()
        info = env.reset(seed=0)[1]
        np.testing.assert_array_equal(env.sample_goal(5), info["goal_state"])

    def test_a_restored_row_goes_on_nearly_as_it_was_recorded(self) -> None:
        env, other = self.make(), self.make()
        rows = self.record(env, seed=8, options={"variation": ["all"]})
        factors = {f"variation.{name}": value for name, value in flatten_dict(env.variation_space.value).items()}
        options = other.reset_options_from_dataset({**columns(rows[6]), **factors}, {})
        observation, info = other.reset(seed=99, options=options)
        np.testing.assert_allclose(observation, rows[6]["observation"], atol=1e-9)
        np.testing.assert_array_equal(other.render(), rows[6]["pixels"])
        for action, row in zip(self.actions(other)[6:], rows[7:], strict=True):
            observation, _, _, _, info = other.step(action)
            np.testing.assert_allclose(observation, row["observation"], atol=1e-4)
            np.testing.assert_array_equal(info["stream"], row["stream"])

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(MissingKeyError, match="state"):
            self.make().reset_options_from_dataset({}, {})


def test_default_physics_and_rewards_are_the_packages() -> None:
    from PyFlyt.gym_envs.rocket_envs.rocket_landing_env import RocketLandingEnv as Theirs

    ours, theirs = RocketLandingEnv(), Theirs()
    ours.reset(seed=1, options={"variation": ["all"]})  # leaves no trace
    observation, _ = ours.reset(seed=5, options={"accelerate_drop": False})
    expected, _ = theirs.reset(seed=ours._start["seed"], options={})
    np.testing.assert_array_equal(observation, expected)
    ours.action_space.seed(0)
    for _ in range(200):
        action = ours.action_space.sample()
        (observation, reward, terminated, _, _), (expected, wanted, over, _, _) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert reward == pytest.approx(wanted, abs=1e-9)
        assert terminated == over
        if over:
            break
    else:
        pytest.fail("no end was seen")


@pytest.mark.parametrize("options", [{}, {"randomize_drop": True}, {"variation": ["environment"]}])
def test_pilot_lands(options: dict) -> None:
    env = RocketLandingEnv()
    policy = ExpertPolicy(seed=0)
    policy.set_env(env)
    for seed in range(2):
        _, info = env.reset(seed=seed, options=options)
        terminated = truncated = False
        while not (terminated or truncated):
            _, reward, terminated, truncated, info = env.step(policy.get_action(info))
        assert terminated
        assert not truncated
        assert info["is_success"]
        assert reward > 7


def test_a_fall_is_no_success() -> None:
    env = RocketLandingEnv(ceiling=40.0)
    env.reset(seed=0)
    terminated = False
    while not terminated:
        _, _, terminated, truncated, info = env.step(np.zeros(7))
        assert not truncated
    assert info["fatal_collision"]
    assert not info["is_success"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"agent_hz": 7}, "120"), ({"angle_representation": "matrix"}, "euler"), ({"render_mode": "human"}, "rgb_array")],
)
def test_bad_arguments_are_refused(arguments: dict, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        RocketLandingEnv(**arguments)


def test_euler_angles_are_one_number_shorter() -> None:
    env = gym.make("swm/PFRocketLanding-v0", angle_representation="euler", disable_env_checker=True)
    assert env.reset(seed=0)[0].shape == env.observation_space.shape == (29,)


def test_bad_actions_and_states_are_refused() -> None:
    env = RocketLandingEnv()
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(np.zeros(6))
    with pytest.raises(ContractError, match="state"):
        env.reset(options={"state": np.zeros(3)})
    with pytest.raises(ContractError, match="stream"):
        env.reset(options={"stream": np.zeros(3, np.uint64)})
