import gymnasium as gym
import numpy as np
import pytest
import torch

import stable_worldmodel  # noqa: F401  registers the envs
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.planning import Dynamics
from stable_worldmodel.planning.playground import (
    DoubleIntegrator,
    PendulumDynamics,
    PointMazeDynamics,
    TwoRoomDynamics,
)


def follow(env, dynamics, actions):
    """The env's states and the model's, for the same actions from the env's present state."""
    start = np.asarray(env.unwrapped.layout and env.unwrapped._position, np.float64)
    states = [start]
    for action in actions:
        states.append(env.step(action)[-1]["state"])
    candidates = torch.as_tensor(np.asarray(actions, np.float64))[None, None]
    info = {"state": torch.as_tensor(start)[None, None]}
    return np.array(states), dynamics.rollout(info, candidates)["predicted_emb"][0, 0].numpy()


@pytest.mark.parametrize("seed", range(4))
def test_two_room_is_followed_step_by_step(seed):
    env = gym.make("swm/TwoRoom-v1", render_mode=None, disable_env_checker=True)
    env.reset(seed=seed, options={"variation": ["all"]})
    rng = np.random.default_rng(seed)
    actions = np.repeat(rng.uniform(-1.5, 1.5, (60, 2)), 5, axis=0).astype(np.float32)
    dynamics = TwoRoomDynamics(env.unwrapped.layout())
    for chunk in np.split(actions, 20):  # so that the env's float32 positions do not add up
        real, imagined = follow(env, dynamics, chunk)
        np.testing.assert_allclose(imagined, real, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_point_maze_is_followed_step_by_step(seed):
    env = gym.make("swm/SimplePointMaze-v0", disable_env_checker=True)
    env.reset(seed=seed, options={"variation": ["all"]})
    rng = np.random.default_rng(seed)
    actions = np.repeat(rng.uniform(-0.3, 0.3, (60, 2)), 5, axis=0).astype(np.float32)
    dynamics = PointMazeDynamics(env.unwrapped.layout())
    for chunk in np.split(actions, 20):
        real, imagined = follow(env, dynamics, chunk)
        np.testing.assert_allclose(imagined, real, atol=1e-4)


def test_pendulum_is_followed_step_by_step():
    env = gym.make("Pendulum-v1").unwrapped
    rng = np.random.default_rng(0)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        state = torch.as_tensor(env.state, dtype=torch.float64)[None, None]
        dynamics = PendulumDynamics()
        assert torch.allclose(dynamics.embed(state)[0, 0], torch.as_tensor(observation).double(), atol=1e-6)
        actions = rng.uniform(-3, 3, (40, 1))
        real = [env.step(action)[0] for action in actions]
        imagined = dynamics.rollout({"state": state}, torch.as_tensor(actions)[None, None])["predicted_emb"]
        np.testing.assert_allclose(imagined[0, 0, 1:], real, atol=1e-4)


def test_double_integrator_has_its_closed_form():
    model = DoubleIntegrator(dimensions=2, dt=0.5)
    candidates = torch.full((1, 1, 6, 2), 0.4, dtype=torch.float64)
    end = model.rollout({"state": torch.zeros(1, 1, 4, dtype=torch.float64)}, candidates)["predicted_emb"][0, 0, -1]
    time = 6 * 0.5
    assert end.tolist() == pytest.approx([0.4 * time**2 / 2] * 2 + [0.4 * time] * 2)


def test_macro_steps_are_their_env_actions_in_order_and_last_only_is_the_end():
    rng = torch.Generator().manual_seed(0)
    actions = torch.randn(2, 3, 6, 2, generator=rng)
    info = {"state": torch.randn(2, 1, 4, generator=rng)}
    single, macro = DoubleIntegrator(), DoubleIntegrator(action_block=3)
    fine = single.rollout(info, actions)["predicted_emb"]
    coarse = macro.rollout(info, actions.unflatten(2, (2, 3)).flatten(3))["predicted_emb"]
    torch.testing.assert_close(coarse, fine[:, :, ::3])
    assert torch.equal(single.rollout(info, actions, last_only=True)["predicted_emb"], fine[:, :, -1:])
    assert isinstance(single, Dynamics)


def test_errors():
    with pytest.raises(ContractError, match="width 3"):
        DoubleIntegrator().rollout({"state": torch.zeros(1, 1, 4)}, torch.zeros(1, 1, 2, 3))
    with pytest.raises(MissingKeyError, match="'state'"):
        DoubleIntegrator().encode({})
    with pytest.raises(ContractError, match="action_block"):
        DoubleIntegrator(action_block=0)
    env = gym.make("swm/TwoRoom-v1", render_mode=None, collision="swept", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ContractError, match="swept"):
        TwoRoomDynamics(env.unwrapped.layout())
