import gymnasium as gym
import numpy as np
import pytest
import torch

import stable_worldmodel.envs  # noqa: F401  registers the ids
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.planning import MPPISolver, PredictiveSamplingSolver, ShootingCostEvaluator
from stable_worldmodel.planning.playground import TwoRoomDynamics
from stable_worldmodel.planning.simulator import SimulatorCost
from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
from stable_worldmodel.world import World


def end_distance(rolled_out):
    goal = rolled_out["goal_emb"][:, -1][:, None]
    return (rolled_out["predicted_emb"][:, :, -1] - goal).square().sum(dim=-1)


def two_rooms(n=3, seed=0):
    """What a pool of TwoRooms would show, and the dynamics of all of them."""
    env = gym.make("swm/TwoRoom-v1", render_mode=None, disable_env_checker=True)
    states, goals = [], []
    for i in range(n):
        env.reset(seed=seed + i)
        states.append(env.unwrapped._info()["state"])
        goals.append([100.0 + 20 * i, 60.0])
    info = {"state": np.array(states)[:, None], "goal_state": np.array(goals, np.float32)[:, None]}
    return {**info, "goal": np.zeros((n, 1, 8, 8, 3), np.uint8)}, TwoRoomDynamics(
        env.unwrapped.layout(), action_block=2
    )


@pytest.mark.parametrize(("backend", "workers"), [("sync", 1), ("process", 2)])
def test_costs_are_those_of_the_exact_dynamics(backend, workers):
    info, dynamics = two_rooms()
    candidates = 2 * torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(0)) - 1
    cost = SimulatorCost("swm/TwoRoom-v1", action_block=2, workers=workers, backend=backend)
    found = cost.get_cost(info, candidates)
    cost.close()
    tensors = {key: torch.from_numpy(value) for key, value in info.items() if key != "goal"}
    expected = ShootingCostEvaluator(dynamics, end_distance).get_cost(tensors, candidates)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.05)


def test_scaled_actions_are_mapped_back():
    class Halves:
        def transform(self, x):
            return 2 * x

        def inverse_transform(self, x):
            return x / 2

    info, _ = two_rooms()
    candidates = torch.rand(3, 2, 3, 2) - 0.5
    plain, scaled = (
        SimulatorCost("swm/TwoRoom-v1", backend="sync", workers=1, scaler=scaler) for scaler in (None, Halves())
    )
    torch.testing.assert_close(scaled.get_cost(info, 2 * candidates), plain.get_cost(info, candidates))


def test_a_worker_may_get_part_of_an_env():
    info, _ = two_rooms(2)
    candidates = torch.rand(2, 7, 2, 2) - 0.5
    alone, many = (SimulatorCost("swm/TwoRoom-v1", backend="sync", workers=workers) for workers in (1, 5))
    assert torch.equal(alone.get_cost(info, candidates), many.get_cost(info, candidates))


def test_rows_are_the_newest_numbers_and_no_images():
    cost = SimulatorCost("swm/TwoRoom-v1", backend="sync", workers=1)
    info = {"state": torch.arange(12.0).reshape(2, 3, 2), "goal": np.zeros((2, 1, 4, 4, 3)), "label": ["a", "b"]}
    assert [{key: value.tolist() for key, value in row.items()} for row in cost.prepare(info)] == [
        {"state": [4.0, 5.0]},
        {"state": [10.0, 11.0]},
    ]
    with pytest.raises(MissingKeyError, match="no numbers"):
        cost.prepare({"label": ["a"]})
    with pytest.raises(MissingKeyError, match="'missing'"):
        SimulatorCost("swm/TwoRoom-v1", backend="sync", workers=1, keys=("missing",)).prepare(info)
    with pytest.raises(ContractError, match="begin="):
        SimulatorCost("Pendulum-v1", backend="sync", workers=1).get_cost(info, torch.zeros(2, 1, 1, 1))


def test_restoring_again_for_every_candidate_gives_the_same():
    info, _ = two_rooms()
    candidates = torch.rand(3, 3, 3, 2) - 0.5
    fast, slow = (
        SimulatorCost("swm/TwoRoom-v1", backend="sync", workers=1, **options) for options in ({}, {"rewind": None})
    )
    assert torch.equal(fast.get_cost(info, candidates), slow.get_cost(info, candidates))


def test_the_oracle_reaches_the_target_of_two_room():
    cost = SimulatorCost("swm/TwoRoom-v1", action_block=5, backend="sync", workers=1)
    solver = MPPISolver(cost=cost, num_samples=24, n_steps=3, topk=6)
    policy = WorldModelPolicy(solver, PlanConfig(4, 2, action_block=5))
    near = {"variation": [], "state": [40.0, 50.0], "target_state": [85.0, 80.0]}
    with World("swm/TwoRoom-v1", 2, (16, 16), max_episode_steps=40) as world:
        world.set_policy(policy)
        assert world.evaluate(episodes=2, seed=0, options=near)["success_rate"] == 100.0


def test_predictive_sampling_with_the_pendulum_of_gymnasium():
    def begin(env, row):
        env.reset()
        env.unwrapped.state = row["angle_and_speed"].astype(float)

    def upright(env, infos, row):
        return float(-np.cos(env.unwrapped.state[0]))

    cost = SimulatorCost(lambda: gym.make("Pendulum-v1"), upright, begin=begin, rewind=None, workers=1, backend="sync")
    solver = PredictiveSamplingSolver(cost=cost, num_samples=30)
    solver.configure(action_space=gym.spaces.Box(-2, 2, (1, 1)), n_envs=1, config=PlanConfig(10, 1))
    info = {"angle_and_speed": np.array([[[1.0, 0.0]]])}
    idle = cost.get_cost(info, torch.zeros(1, 1, 10, 1)).item()
    assert solver.solve(info)["costs"][0] < idle - 0.01
