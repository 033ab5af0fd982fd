"""Planning problems whose dynamics are exact, and the best plan that a long search finds for each."""

import functools

import gymnasium as gym
import numpy as np
import torch

import stable_worldmodel  # noqa: F401  registers the envs
from stable_worldmodel.planning import ControlPenalty, GoalMSE, PathMSE, ShootingCostEvaluator, WeightedSum
from stable_worldmodel.planning.playground import DoubleIntegrator, PendulumDynamics, PointMazeDynamics, TwoRoomDynamics
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import CEMSolver, GradientSolver, MPPISolver

SMOOTH = ("integrator", "pendulum")


def _episode(name, seed, **kwargs):
    env = gym.make(name, disable_env_checker=True, **kwargs)
    env.reset(seed=seed)
    return env.unwrapped.layout()


@functools.cache
def task(name):
    """Cost, info of two envs, PlanConfig, action size and bounds of one env action."""
    if name == "integrator":
        model = DoubleIntegrator(dimensions=2, dt=0.2, action_block=2)
        objective = WeightedSum([(1.0, GoalMSE()), (0.02, ControlPenalty())])
        state, goal = [[0.0, 0.0, 0.5, 0.0], [2.0, 1.0, 0.0, 0.0]], [[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
        return _problem(model, objective, state, goal, PlanConfig(6, 1, action_block=2), 2, 4.0)
    if name == "pendulum":
        model = PendulumDynamics(action_block=5)
        objective = WeightedSum([(1.0, PathMSE(discount=1.2)), (0.001, ControlPenalty())])
        state, goal = [[0.6, 0.0], [-0.8, -0.5]], [[0.0, 0.0], [0.0, 0.0]]
        return _problem(model, objective, state, goal, PlanConfig(4, 1, action_block=5), 1, 2.0)
    if name == "two_room":
        model = TwoRoomDynamics(_episode("swm/TwoRoom-v1", 0, render_mode=None), action_block=5)
        objective = WeightedSum([(1.0, PathMSE()), (1.0, ControlPenalty())])
        state, goal = [[40.0, 40.0], [170.0, 160.0]], [[85.0, 120.0], [140.0, 60.0]]
        return _problem(model, objective, state, goal, PlanConfig(4, 1, action_block=5), 2, 1.0)
    model = PointMazeDynamics(_episode("swm/SimplePointMaze-v0", 1), action_block=2)
    objective = WeightedSum([(1.0, PathMSE()), (0.1, ControlPenalty())])
    state, goal = [[1.0, 1.0], [4.0, 4.5]], [[1.6, 1.4], [3.4, 4.0]]
    return _problem(model, objective, state, goal, PlanConfig(4, 1, action_block=2), 2, 0.2)


def _problem(model, objective, state, goal, config, size, limit):
    info = {"state": torch.tensor(state)[:, None], "goal_state": torch.tensor(goal)[:, None]}
    bounds = np.full(size, -limit), np.full(size, limit)
    return ShootingCostEvaluator(model, objective), info, config, size, bounds


def solve(solver, name, **kwargs):
    _, info, config, size, bounds = task(name)
    space = gym.spaces.Box(bounds[0][0], bounds[1][0], (2, size))
    solver.configure(action_space=space, n_envs=2, config=config, action_bounds=bounds)
    return solver.solve(info, keys=np.array([[7, 0], [8, 0]]), **kwargs)


@functools.cache
def optimum(name):
    """The lowest cost per env that long searches of two kinds find."""
    cost, _, _, _, bounds = task(name)
    scale = float(bounds[1][0])
    budget = {"num_samples": 1500, "n_steps": 100, "topk": 75, "var_scale": scale, "return_mean": False}
    searches = [CEMSolver(cost=cost, **budget), MPPISolver(cost=cost, **budget)]
    if name in SMOOTH:
        adam = {"optimizer_cls": torch.optim.Adam, "optimizer_kwargs": {"lr": 0.03}, "return_last": False}
        searches.append(GradientSolver(cost=cost, n_steps=600, num_samples=8, var_scale=scale, **adam))
    return np.min([solve(search, name)["costs"] for search in searches], axis=0)
