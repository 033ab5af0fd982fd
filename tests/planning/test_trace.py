"""What a planner did, decision by decision."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.planning import CEMSolver, GoalMSE, ShootingCostEvaluator, Solver
from stable_worldmodel.planning.diagnostics import per_env, plot_search, recorders
from stable_worldmodel.planning.playground import DoubleIntegrator
from stable_worldmodel.planning.simulator import SimulatorCost
from stable_worldmodel.planning.trace import (
    Decision,
    TracedSolver,
    latent_paths,
    merged_search,
    principal_components,
    simulated_paths,
)
from stable_worldmodel.policy import PlanConfig

INFO = {"state": torch.tensor([[[0.0, 0.5]], [[1.0, 0.0]]]), "goal_state": torch.tensor([[[0.5, 0.0]]] * 2)}


def traced(**settings):
    cost = ShootingCostEvaluator(DoubleIntegrator(dimensions=1), GoalMSE())
    solver = TracedSolver(
        CEMSolver(cost=cost, num_samples=16, topk=4, n_steps=6, callbacks=recorders(), batch_size=1, **settings)
    )
    bounds = np.full(1, -1.0), np.full(1, 1.0)
    solver.configure(
        action_space=gym.spaces.Box(-1, 1, (2, 1)), n_envs=2, config=PlanConfig(5, 1), action_bounds=bounds
    )
    return cost, solver


class TestTracedSolver:
    def test_plans_as_the_solver_it_watches(self):
        _, solver = traced()
        assert isinstance(solver, Solver)
        assert (solver.n_envs, solver.action_dim, solver.horizon, solver.fills_with_zeros) == (2, 1, 5, True)
        keys = np.array([[1, 0], [2, 0]])
        watched = solver.solve(INFO, keys=keys)
        assert torch.equal(watched["actions"], traced()[1].solver.solve(INFO, keys=keys)["actions"])
        assert watched["actions"].abs().max() <= 1.0

    def test_keeps_every_decision_with_its_search(self):
        _, solver = traced()
        results = [solver.solve(INFO) for _ in range(2)]
        assert [decision.result for decision in solver.decisions] == results
        assert solver.decisions[0].info is INFO
        search = solver.decisions[1].search(env=1)
        assert list(search) == ["best cost", "mean cost", "elite spread", "deviation"]
        assert search["best cost"] == per_env(results[1]["callbacks"]["BestCostRecorder"])[1].tolist()
        assert Decision(INFO, {"actions": None}).search() == {}

    def test_watches_solvers_of_the_bare_protocol(self):
        class Bare:
            n_envs, action_dim, horizon = 2, 1, 5

            def configure(self, *, action_space, n_envs, config):
                self.config = config

            def solve(self, info, init_action=None):
                return {"actions": torch.zeros(2, 5, 1)}

        solver = TracedSolver(Bare())
        solver.configure(action_space=None, n_envs=2, config="config", action_bounds=(0, 1))
        assert solver.solver.config == "config"
        assert solver.solve(INFO, keys=np.zeros((2, 2), int))["actions"].shape == (2, 5, 1)
        assert not solver.fills_with_zeros


def test_searches_of_several_decisions_are_drawn_together():
    pytest.importorskip("matplotlib")
    _, solver = traced()
    for _ in range(3):
        solver.solve(INFO)
    merged = merged_search(solver.decisions)
    assert per_env(merged["callbacks"]["MeanCostRecorder"]).shape == (6, 6)
    assert len(plot_search(merged).axes[0].lines) == 2 * (6 + 1)


def test_latent_paths_begin_with_what_was_seen_and_follow_the_plan():
    cost, solver = traced()
    for start in (0.0, 0.3):
        solver.solve({"state": torch.tensor([[[start, 0.5]]]), "goal_state": INFO["goal_state"][:1]})
    seen, plans, latents = latent_paths(cost, solver.decisions)
    np.testing.assert_allclose(seen, [[0.0, 0.5], [0.3, 0.5]])
    for decision, plan, latent in zip(solver.decisions, plans, latents, strict=True):
        assert plan.shape == (6, 2)
        assert latent.shape == (1, 6, 2)
        speeds = 0.5 + 0.1 * np.cumsum(decision.result["actions"][0, :, 0].numpy())
        np.testing.assert_allclose(plan[1:, 1], speeds, atol=1e-5)


def make_rooms():
    return gym.make("swm/TwoRoom-v1", disable_env_checker=True)


def test_simulated_paths_are_what_the_env_does():
    env = make_rooms()
    _, info = env.reset(seed=0)
    cost = SimulatorCost(make_rooms, action_block=2, backend="sync", workers=1)
    observed = {key: np.asarray(info[key])[None, None] for key in ("state", "goal_state")}
    macro_actions = np.random.default_rng(0).uniform(-1, 1, (3, 4))

    class Half:
        def inverse_transform(self, actions):
            return actions / 2

    decision = Decision(observed, {"actions": torch.from_numpy(2 * macro_actions)[None]})
    seen, plans = simulated_paths(make_rooms, cost.prepare(observed), [decision], 2, Half())
    np.testing.assert_allclose(seen, info["state"][None])
    states = [info["state"]]
    for t, action in enumerate(macro_actions.reshape(6, 2).astype(np.float32)):
        now = env.step(action)[4]
        states += [now["state"]] if t % 2 else []
    np.testing.assert_allclose(plans[0], states, rtol=1e-5)


class Choices(gym.Env):
    action_space = gym.spaces.Discrete(2)

    def reset_options_from_dataset(self, init, goal):
        return {}

    def reset(self, *, seed=None, options=None):
        return None, {}


def test_simulated_paths_need_continuous_actions():
    decision = Decision({}, {"actions": torch.zeros(1, 3, 4)})
    with pytest.raises(ContractError, match="expected a Box"):
        simulated_paths(Choices, [{"state": np.zeros(2)}], [decision], 2)


def test_principal_components_keep_what_varies():
    rng = np.random.default_rng(0)
    directions, _ = np.linalg.qr(rng.normal(size=(20, 2)))
    executed, plan = rng.normal(size=(7, 2)) @ directions.T + 3, rng.normal(size=(4, 2)) @ directions.T + 3
    flat, (flat_plan,), share = principal_components(executed, [plan], count=2)
    assert share == pytest.approx(1.0)
    assert flat.shape == (7, 2)
    distances = np.linalg.norm(executed[:, None] - plan, axis=2)
    np.testing.assert_allclose(np.linalg.norm(flat[:, None] - flat_plan, axis=2), distances, atol=1e-9)
    assert principal_components(executed, [plan], count=1)[2] < 1.0
