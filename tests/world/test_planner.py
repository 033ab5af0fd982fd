"""A planner obeys the same law as every policy: its episodes do not depend on what runs beside them."""

import numpy as np
import pytest

from stable_worldmodel.world import World

torch = pytest.importorskip("torch")


def evaluate(num_envs, episodes=5):
    from stable_worldmodel.planning import GoalMSE, ShootingCostEvaluator
    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
    from stable_worldmodel.solver import CEMSolver
    from stable_worldmodel.wm.lewm import LeWM, LeWMConfig

    torch.manual_seed(0)
    model = LeWM(LeWMConfig.preset("tiny")).eval()
    solver = CEMSolver(cost=ShootingCostEvaluator(model, GoalMSE()), num_samples=32, n_steps=3, topk=4, seed=0)
    policy = WorldModelPolicy(solver, PlanConfig(horizon=3, receding_horizon=2, action_block=5))
    with World("swm/TwoRoom-v1", num_envs, (64, 64), max_episode_steps=25) as world:
        world.set_policy(policy)
        return world.evaluate(episodes=episodes, seed=11, eval_keys=["state"])


def test_planned_episodes_are_bit_identical_for_any_num_envs_on_the_cpu():
    reference = evaluate(1)
    for num_envs in (2, 5):
        np.testing.assert_array_equal(evaluate(num_envs)["state"], reference["state"])
