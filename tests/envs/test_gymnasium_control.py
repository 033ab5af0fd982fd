"""Classic control: the contract of all envs, the recordings of the public implementation, and our own pictures."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from envs.contract import EnvContract, assert_same
from gymnasium.utils.env_checker import check_env

import stable_worldmodel.envs  # noqa: F401  (registers the ids)
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils import flatten_dict

DATA = Path(__file__).parents[1] / "data" / "classic_control"
RECORDED = json.loads((DATA / "classic_control.json").read_text())
INNER = {
    "swm/CartPoleControl-v1": "CartPole-v1",
    "swm/MountainCarControl-v0": "MountainCar-v0",
    "swm/MountainCarContinuousControl-v0": "MountainCarContinuous-v0",
    "swm/AcrobotControl-v1": "Acrobot-v1",
    "swm/PendulumControl-v1": "Pendulum-v1",
}


class GymnasiumsOwnSpaces(EnvContract):
    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for inherited in (".*A Box observation space m.*infinity", ".*For Box action spaces, we recommend"):
                warnings.filterwarnings("ignore", message=inherited)
            check_env(self.make(), skip_render_check=False)


@pytest.mark.filterwarnings("ignore:.*already returned terminated")
class TestCartPole(GymnasiumsOwnSpaces):
    id = "swm/CartPoleControl-v1"
    native_size = (400, 600)

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        return [i % 2 for i in range(count)]  # stay alive: a fallen pole leaves the declared space


class TestMountainCar(EnvContract):
    id = "swm/MountainCarControl-v0"
    native_size = (400, 600)

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        env.set_state([-0.6, -0.1])  # as fast as it gets
        return super().actions(env, count)


class TestMountainCarContinuous(TestMountainCar):
    id = "swm/MountainCarContinuousControl-v0"


class TestAcrobot(EnvContract):
    id = "swm/AcrobotControl-v1"
    native_size = (500, 500)


class TestPendulum(GymnasiumsOwnSpaces):
    id = "swm/PendulumControl-v1"
    native_size = (500, 500)

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        env.set_state([3.0, 7.9])
        return [np.array([-2.0 if i % 7 == 3 else 2.0], np.float32) for i in range(count)]


def make(id: str, size: tuple[int, int] | None = None, **kwargs: Any) -> Any:
    env = gym.make(id, render_mode="rgb_array", disable_env_checker=True, **kwargs).unwrapped
    if size is not None:
        env.render_shape = size
    return env


# ---------------------------------------------------------------------- recordings of the public implementation
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["env_id"])
def test_run_is_the_recorded_one(case: dict) -> None:
    data = np.load(DATA / "classic_control.npz")
    steps = {key: data[f"{case['name']}/{key}"] for key in ("actions", "obs", "reward", "terminated", "truncated")}
    env = make(case["env_id"])
    options = {"variation": [], "variation_values": case["variation_values"]}
    observation, info = env.reset(seed=case["seed"], options=options)
    np.testing.assert_allclose(observation, data[f"{case['name']}/initial_obs"], rtol=1e-5)
    np.testing.assert_allclose(info["raw_state"], data[f"{case['name']}/initial_raw_state"], rtol=1e-5)
    for t, action in enumerate(steps["actions"]):
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_allclose(observation, steps["obs"][t], rtol=1e-5, atol=1e-6)
        assert reward == pytest.approx(steps["reward"][t], rel=1e-5, abs=1e-6)
        assert (terminated, truncated) == (steps["terminated"][t], steps["truncated"][t])


# ---------------------------------------------------------------------- dynamics
@pytest.mark.parametrize(("id", "inner_id"), INNER.items())
def test_default_env_is_gymnasiums_own(id: str, inner_id: str) -> None:
    env, inner = make(id), gym.make(inner_id)
    observation, info = env.reset(seed=3)
    np.testing.assert_array_equal(observation, inner.reset(seed=3)[0])
    assert info["env_name"] == inner_id
    env.action_space.seed(0)
    for _ in range(1000):
        action = env.action_space.sample()
        ours, theirs = env.step(action), inner.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[4]["state"], theirs[0])
        assert ours[1:4] == pytest.approx(theirs[1:4])
        if ours[2] or ours[3]:
            break
    else:
        pytest.fail("the time limit is Gymnasium's own")


@pytest.mark.parametrize("id", INNER)
def test_a_recorded_row_is_restored(id: str) -> None:
    env, other = make(id, (32, 32)), make(id, (32, 32))
    env.reset(seed=3, options={"variation": ["all"]})
    env.action_space.seed(0)
    for _ in range(5):
        info = env.step(env.action_space.sample())[4]
    factors = {f"variation.{name}": np.atleast_1d(v) for name, v in flatten_dict(env.variation_space.value).items()}
    _, found = other.reset(options=other.reset_options_from_dataset({**info, **factors}, {}))
    assert_same(
        [{key: found[key] for key in ("state", "raw_state")}], [{key: info[key] for key in ("state", "raw_state")}]
    )
    for _ in range(3):
        action = env.action_space.sample()
        assert_same([env.step(action)[4]], [other.step(action)[4]])
        np.testing.assert_array_equal(env.render(), other.render())


@pytest.mark.parametrize("id", INNER)
def test_an_observation_restores_the_state(id: str) -> None:
    env = make(id)
    env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(5):
        info = env.step(env.action_space.sample())[4]
    options = env.reset_options_from_dataset({"state": info["state"]}, {})
    np.testing.assert_allclose(env.reset(options=options)[0], info["state"], atol=1e-6)
    with pytest.raises(KeyError, match="state"):
        env.reset_options_from_dataset({}, {})
    with pytest.raises(ContractError, match="state"):
        env.set_state(np.zeros(7))


@pytest.mark.parametrize("id", INNER)
def test_bad_actions_are_refused(id: str) -> None:
    env = make(id)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    for action in (np.zeros(5), 7):
        with pytest.raises(ContractError, match="action"):
            env.step(action)


def test_success() -> None:
    env = make("swm/CartPoleControl-v1")
    env.reset(seed=0)
    env.set_state([0, 0, 0.3, 0])
    assert env.step(0)[4]["is_success"] is False  # fell over
    env.reset(seed=0)
    for i in range(500):
        env.set_state([0, 0, 0, 0])
        _, _, terminated, truncated, info = env.step(i % 2)
    assert (terminated, truncated, info["is_success"]) == (False, True, True)
    env = make("swm/MountainCarControl-v0")
    env.reset(seed=0)
    env.set_state([0.49, 0.07])
    assert env.step(2)[4]["is_success"] is True
    env = make("swm/PendulumControl-v1")
    env.reset(seed=0, options={"state": [0.1, 0.0]})
    assert env.step(np.zeros(1))[4]["is_success"] is True
    env.set_state([0.3, 0.0])
    assert env.step(np.zeros(1))[4]["is_success"] is False


# ---------------------------------------------------------------------- picture
@pytest.mark.parametrize(("id", "inner_id"), INNER.items())
def test_picture_resembles_gymnasiums(id: str, inner_id: str) -> None:
    pytest.importorskip("pygame")
    env, inner = make(id), gym.make(inner_id, render_mode="rgb_array")
    env.reset(seed=1)
    inner.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(8):
        action = env.action_space.sample()
        env.step(action)
        inner.step(action)
        difference = np.abs(env.render().astype(int) - inner.render())
        assert difference.mean() < 1.5
        # Edges may differ; nothing larger than an edge does.
        coarse = difference.mean(axis=2).reshape(env.frame[0] // 20, 20, env.frame[1] // 20, 20).mean(axis=(1, 3))
        assert coarse.max() < (100 if inner_id == "Pendulum-v1" else 45)  # whose arrow is only similar


@pytest.mark.parametrize("id", INNER)
def test_small_picture_is_the_large_one_averaged(id: str) -> None:
    height, width = make(id).frame
    large, small = make(id), make(id, (height // 10, width // 10))
    for env in (large, small):
        env.reset(seed=1)
        env.step(env.action_space.sample() * 0 + 1)
    mean = large.render().reshape(height // 10, 10, width // 10, 10, 3).mean(axis=(1, 3))
    assert np.abs(small.render() - mean).mean() < 0.5


def test_colours_are_those_of_the_factors() -> None:
    env = make("swm/CartPoleControl-v1")
    values = {"visuals.bg": (0.8, 0.6, 1.0), "visuals.cart": (0.4, 0.0, 0.0), "visuals.axle": (0.0, 0.0, 0.0)}
    env.reset(seed=0, options={"variation_values": values, "state": np.zeros(4)})
    picture = env.render()
    assert picture[10, 10].tolist() == [204, 153, 255]
    assert picture[290, 280].tolist() == [102, 0, 0]
    assert picture[292, 300].tolist() == [0, 0, 0]
