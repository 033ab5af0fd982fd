import gymnasium as gym
import numpy as np
import pytest
import torch
from quadratic import TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.planning import AtMost, ControlPenalty, GoalMSE, ShootingCostEvaluator
from stable_worldmodel.planning.playground import DoubleIntegrator
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import LagrangianSolver
from stable_worldmodel.solver.callbacks import BestCostRecorder


class HalfPlane(TargetCost):
    """Distance to a target; the first action's sum is at most `info["limit"]`, the second action at most 9."""

    def get_constraints(self, info, candidates):
        first = candidates[:, :, 0].sum(dim=2) - info["limit"]
        return torch.stack([first, candidates[:, :, 1].amax(dim=2) - 9.0], dim=-1)


def problem(n=2, limit=0.5):
    return {"target": np.ones((n, 3, 2), np.float32), "limit": np.full((n, 1), limit, np.float32)}


def solve(solver, info, keys=None, configure=True):
    n = len(info["target"])
    if configure:
        solver.configure(action_space=gym.spaces.Box(-1, 1, (n, 2)), n_envs=n, config=PlanConfig(3, 1))
    return solver.solve(info, keys=keys)


def test_the_optimum_on_the_boundary_is_found_and_feasible():
    result = solve(LagrangianSolver(cost=HalfPlane(), n_steps=100, n_outer_steps=8), problem())
    # min (x - 1)^2 + (y - 1)^2 with x + y <= 0.5: x = y = 0.25
    torch.testing.assert_close(result["actions"][:, 0], torch.full((2, 2), 0.25), atol=0.02, rtol=0.0)
    torch.testing.assert_close(result["actions"][:, 1:], torch.ones(2, 2, 2), atol=0.02, rtol=0.0)
    assert result["costs"] == pytest.approx([1.125] * 2, rel=0.02)
    violation = result["constraint_violation"][0]
    assert violation.shape == (2, 2)
    assert violation.max() <= 1e-3


def test_multipliers_tend_to_the_price_of_the_constraints():
    solver = LagrangianSolver(cost=HalfPlane(), n_steps=60, n_outer_steps=12, rho_scale=1.0)
    # That of the active one is 2 * (1 - 0.25), that of the other one 0.
    multipliers = solve(solver, problem())["lambdas"][0]
    assert multipliers.shape == (2, 2)
    torch.testing.assert_close(multipliers[:, 0], torch.full((2,), 1.5), atol=0.05, rtol=0.0)
    assert (multipliers[:, 1] == 0).all()


def test_plans_in_a_world_respect_limits_on_what_is_predicted():
    def speed(rolled_out):
        return rolled_out["predicted_emb"][:, :, 1:, 1].abs().amax(dim=2) - 0.3

    cost = ShootingCostEvaluator(
        DoubleIntegrator(1, dt=0.5), GoalMSE(), constraints=[speed, AtMost(ControlPenalty(), 5.0)]
    )
    info = {"state": torch.zeros(2, 1, 2), "goal_state": torch.tensor([[[1.0, 0.0]], [[0.2, 0.0]]])}
    solver = LagrangianSolver(cost=cost, n_steps=150, n_outer_steps=8, optimizer_kwargs={"lr": 0.05})
    solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 1)), n_envs=2, config=PlanConfig(6, 1))
    result = solver.solve(info)
    assert result["constraint_violation"][0].max() <= 1e-3
    imagined = cost.rollout(info, result["actions"][:, None])["predicted_emb"][:, 0, :, 1]
    assert imagined.abs().max() <= 0.3 + 1e-3
    assert result["costs"][1] < 1e-2  # reachable within the limit
    assert 0.01 < result["costs"][0] < 0.1  # 6 * 0.5 s at 0.3 or less, from standstill to standstill
    assert result["model_steps"] < 1.1 * 6 * 2 * (150 + 2) * 8  # one rollout gives cost and constraints


def test_multipliers_are_never_negative_and_the_penalty_grows_to_its_limit():
    solver = LagrangianSolver(cost=HalfPlane(), n_steps=2, rho_init=2.0, rho_scale=3.0, rho_max=20.0)
    assert [solver.rho(outer) for outer in range(4)] == [2.0, 6.0, 18.0, 20.0]
    result = solve(solver, problem(limit=5.0))
    assert (result["lambdas"][0] == 0.0).all()


def test_a_feasible_plan_is_preferred_to_a_cheaper_one():
    class OnlyTheSecondStart(TargetCost):
        """Feasible is what starts where the first start is not, and cheap what is infeasible."""

        def get_constraints(self, info, candidates):
            return (candidates[:, :, 0, :1].detach() + candidates[:, :, :, 0].sum(-1, keepdim=True) * 0).abs().lt(
                0.5
            ) * 2.0 - 1.0

    solver = LagrangianSolver(cost=OnlyTheSecondStart(), n_steps=1, n_outer_steps=1, num_samples=60, var_scale=1.0)
    result = solve(solver, problem())
    assert result["constraint_violation"][0].max() == 0.0
    assert (result["actions"][:, 0, 0].abs() >= 0.5).all()


def test_without_a_feasible_plan_the_least_violation_is_returned():
    class Impossible(TargetCost):
        def get_constraints(self, info, candidates):
            return (candidates[:, :, 0, :1] - 0.3).square() + 1.0

    solver = LagrangianSolver(cost=Impossible(), n_steps=150, n_outer_steps=4)
    result = solve(solver, problem())
    assert result["constraint_violation"][0].flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-2)
    torch.testing.assert_close(result["actions"][:, 0, 0], torch.full((2,), 0.3), atol=0.05, rtol=0.0)


def test_multipliers_are_kept_for_the_next_decision_of_an_episode_only():
    def last(decision, episode=7, persist=True):
        solver = LagrangianSolver(cost=HalfPlane(), n_steps=3, n_outer_steps=1, persist_multipliers=persist)
        solve(solver, problem(1), keys=np.array([[7, 0]]))
        keys = np.array([[episode, decision]])
        return solve(solver, problem(1), keys=keys, configure=False)["lambdas"][0].max().item()

    fresh = last(1, persist=False)
    assert last(1) > 1.5 * fresh
    assert last(1, episode=8) == pytest.approx(fresh)
    assert last(0) == pytest.approx(fresh)  # a new episode with the same seed


def test_without_keys_rows_keep_their_multipliers():
    solver = LagrangianSolver(cost=HalfPlane(), n_steps=3, n_outer_steps=1)
    first = solve(solver, problem())["lambdas"][0]
    assert (solve(solver, problem(), configure=False)["lambdas"][0][:, 0] > first[:, 0]).all()


def test_without_constraints_it_is_gradient_descent():
    solver = LagrangianSolver(cost=TargetCost(), n_steps=60, callbacks=[BestCostRecorder()])
    result = solve(solver, problem())
    assert result["lambdas"] is None
    assert result["constraint_violation"] is None
    torch.testing.assert_close(result["actions"], torch.ones(2, 3, 2), atol=0.02, rtol=0.0)
    assert len(result["callbacks"]["BestCostRecorder"][0]) == 300


def test_bad_settings_and_shapes():
    for kwargs in ({"n_outer_steps": 0}, {"rho_init": 0.0}, {"rho_scale": 0.5}, {"rho_max": 0.1}, {"tolerance": -1.0}):
        with pytest.raises(ContractError, match="expected n_outer_steps"):
            LagrangianSolver(cost=HalfPlane(), **kwargs)

    class Flat(HalfPlane):
        def get_constraints(self, info, candidates):
            return super().get_constraints(info, candidates)[..., 0]

    with pytest.raises(ContractError, match="constraints"):
        solve(LagrangianSolver(cost=Flat()), problem())
