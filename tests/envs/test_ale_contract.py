"""`swm/ALE-v5`: the contract of all envs, and what is the package's."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import EnvContract, columns

pytest.importorskip("ale_py", reason="needs ale-py: pip install 'stable-worldmodel[env]'")

import ale_py

from stable_worldmodel.envs import resolve_id
from stable_worldmodel.envs.ale import ALEEnv
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.utils import flatten_dict


class TestALE(EnvContract):
    id = "swm/ALE-v5"
    native_size = (210, 160)

    def actions(self, env: Any, count: int = 40) -> list[Any]:
        return super().actions(env, count)

    def test_seeds_differ(self) -> None:
        """Games start alike; what sticks on the way differs."""
        env = self.make()
        rows = [self.record(env, seed)[-1]["state"].tobytes() for seed in range(4)]
        assert all(one != other for one, other in itertools.combinations(rows, 2))

    def test_a_restored_row_goes_on_as_it_was_recorded(self) -> None:
        env, other = self.make(), self.make()
        for start in (0, 1, 7, 30):
            rows = self.record(env, seed=8, options={"variation": ["all"]})
            factors = {f"variation.{name}": value for name, value in flatten_dict(env.variation_space.value).items()}
            self.record(other, seed=1)
            options = other.reset_options_from_dataset({**columns(rows[start]), **factors}, {})
            observation, info = other.reset(seed=99, options=options)
            np.testing.assert_array_equal(observation, rows[start]["observation"])
            for action, row in zip(self.actions(other)[start:], rows[start + 1 :], strict=True):
                observation, reward, terminated, _, info = other.step(action)
                np.testing.assert_array_equal(observation, row["observation"])
                np.testing.assert_array_equal(info["state"], row["state"])
                np.testing.assert_array_equal(other.render(), row["pixels"])
                assert (reward, terminated, info["score"]) == (row["reward"], row["terminated"], row["score"])

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(MissingKeyError, match="emulator"):
            self.make().reset_options_from_dataset({}, {})


@pytest.mark.parametrize("game", ["pong", "ms_pacman"])
def test_default_episodes_are_the_packages_to_the_last_bit(game: str) -> None:
    ours = gym.make("swm/ALE-v5", game=game, disable_env_checker=True).unwrapped
    theirs = gym.make(f"ALE/{ale_py.registration.rom_id_to_name(game)}-v5", disable_env_checker=True).unwrapped
    ours.reset(seed=1, options={"variation": ["all"]})  # leaves no trace
    observation, _ = ours.reset(seed=5)
    np.testing.assert_array_equal(observation, theirs.reset(seed=5)[0])
    ours.action_space.seed(0)
    for _ in range(200):
        action = ours.action_space.sample()
        (observation, *found, info), (expected, *wanted, their_info) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert found == wanted
        assert their_info.items() <= info.items()


def test_success_is_a_score() -> None:
    env = gym.make("swm/ALE-v5", target_score=1.0, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    env.action_space.seed(1)
    infos = [env.step(env.action_space.sample())[4] for _ in range(300)]
    assert {info["is_success"] for info in infos} == {False, True}
    assert all(info["is_success"] == (info["score"] >= 1) for info in infos)


def test_states_can_be_left_out_of_the_rows() -> None:
    env = gym.make("swm/ALE-v5", restorable=False, disable_env_checker=True).unwrapped
    assert "emulator" not in env.reset(seed=0)[1]
    assert "emulator" not in env.step(0)[4]


def test_ids_of_the_package_are_known_by_name() -> None:
    assert resolve_id("ALE/Breakout-v5") == "ALE/Breakout-v5"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"game": "chess"}, "breakout"), ({"frameskip": 0}, "frameskip"), ({"render_mode": "ansi"}, "rgb_array")],
)
def test_bad_arguments_are_refused(arguments: dict, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        ALEEnv(**arguments)


def test_bad_actions_and_states_are_refused() -> None:
    env = gym.make("swm/ALE-v5", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    with pytest.raises(ContractError, match="action"):
        env.step(99)
    with pytest.raises(ContractError, match="emulator"):
        env.reset(options={"emulator": np.zeros(8, np.uint8)})
