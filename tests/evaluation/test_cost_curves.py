"""What an evaluation keeps of how its planner searched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from stable_worldmodel.evaluation import Evaluation
from stable_worldmodel.evaluation.curves import MOST_CURVES, CostCurves, planning_values, thinned
from stable_worldmodel.planning import GoalMSE, ShootingCostEvaluator
from stable_worldmodel.planning.playground import DoubleIntegrator
from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
from stable_worldmodel.report import evaluation_of, read_report, render_report
from stable_worldmodel.solver import CEMSolver, GradientSolver
from stable_worldmodel.solver.callbacks import BestCostRecorder
from stable_worldmodel.train.protocol import EvalProtocol
from stable_worldmodel.world import Results


def solve(solver_type=CEMSolver, *callbacks, n=3, **settings):
    cost = ShootingCostEvaluator(DoubleIntegrator(dimensions=1, dt=0.5), GoalMSE())
    solver = solver_type(cost=cost, callbacks=callbacks, **settings)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (n, 1)), n_envs=n, config=PlanConfig(4, 1))
    return solver.solve({"state": torch.zeros(n, 1, 2), "goal_state": torch.ones(n, 1, 2)})


@pytest.mark.parametrize("batch_size", [None, 2])
def test_curves_are_the_lowest_cost_so_far_of_every_env(batch_size: int | None) -> None:
    curves, recorder = CostCurves(), BestCostRecorder(reduction="none")
    result = solve(CEMSolver, curves, recorder, num_samples=16, n_steps=4, topk=4, batch_size=batch_size)
    best = np.concatenate([np.array(chunk).T for chunk in result["callbacks"]["BestCostRecorder"]])  # (n, iterations)
    taken = curves.take()
    np.testing.assert_allclose(taken, np.minimum.accumulate(best, axis=1))
    assert taken.shape == (3, 4)
    assert curves.take().size == 0  # they were taken


def test_watching_does_not_change_the_plan() -> None:
    watched, alone = (solve(CEMSolver, *callbacks, num_samples=16, topk=4) for callbacks in ([CostCurves()], []))
    torch.testing.assert_close(watched["actions"], alone["actions"], rtol=0, atol=0)


def test_solvers_by_gradient_are_watched_too() -> None:
    curves = CostCurves()
    solve(GradientSolver, curves, n_steps=3)
    assert curves.take().shape == (3, 3)


def test_curves_of_several_solves_are_kept_until_taken() -> None:
    curves = CostCurves()
    cost = ShootingCostEvaluator(DoubleIntegrator(dimensions=1, dt=0.5), GoalMSE())
    solver = CEMSolver(cost=cost, callbacks=[curves], num_samples=8, n_steps=2, topk=2)
    policy = WorldModelPolicy(solver, PlanConfig(3, 1))
    solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 1)), n_envs=2, config=policy.config)
    for _ in range(MOST_CURVES):
        solver.solve({"state": torch.zeros(2, 1, 2), "goal_state": torch.ones(2, 1, 2)})
    assert len(curves._curves) == MOST_CURVES
    policy._plan_seconds = []
    values = planning_values(policy)
    assert values["plan_costs"].shape == (MOST_CURVES, 2)  # evenly spaced ones of twice as many


def test_thinning_keeps_the_first_and_the_last() -> None:
    rows = np.arange(1000)[:, None]
    kept = thinned(rows)[:, 0]
    assert (len(kept), kept[0], kept[-1]) == (MOST_CURVES, 0, 999)
    assert (np.diff(kept) > 0).all()
    assert thinned(rows[:7]) is not rows
    np.testing.assert_array_equal(thinned(rows[:7]), rows[:7])


def test_an_evaluation_keeps_them_and_the_report_draws_them(tmp_path: Path) -> None:
    """With the oracle, which plans without a network: 3 pairs in blocks of 2 and 1."""
    protocol = EvalProtocol({"id": "swm/TwoRoom-v1"}, image_shape=(16, 16), episodes=3, goal_offset=6, eval_budget=10)
    evaluation = Evaluation("oracle", protocol, recorder="expert", num_envs=2)
    evaluation.run(tmp_path).save(tmp_path / "oracle.json")
    results = Results.load(tmp_path / "oracle.json")
    costs = results["plan_costs"]
    assert costs.ndim == 2
    assert len(costs) >= 3  # a decision per pair, at least
    assert (np.diff(costs, axis=1) <= 0).all()
    assert "plan_seconds" not in results.summary()
    assert "Best cost by iteration" in render_report(read_report([tmp_path / "oracle.json"]))
    assert np.asarray(evaluation_of("oracle", results).plan_costs).shape == costs.shape
    random = replace(evaluation, subject="random").run(tmp_path)
    assert "plan_costs" not in random
