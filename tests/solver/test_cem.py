import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic import IntegratorCost, LinearModelCost, TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import CEMSolver, Costable, Preparable, Solver


def configured(cost, *, n_envs=3, size=2, horizon=3, block=1, bounds=None, **kwargs):
    solver = CEMSolver(cost=cost, **kwargs)
    space = gym.spaces.Box(-1, 1, (n_envs, size))
    config = PlanConfig(horizon=horizon, receding_horizon=1, action_block=block)
    solver.configure(action_space=space, n_envs=n_envs, config=config, action_bounds=bounds)
    return solver


def target_info(n=3, horizon=3, action=2, seed=0):
    return {"target": np.random.default_rng(seed).uniform(-0.8, 0.8, (n, horizon, action)).astype(np.float32)}


def state_info(n, seed=0):
    return {"state": np.random.default_rng(seed).normal(size=(n, 1, 4)), "name": [f"env {i}" for i in range(n)]}


def test_importing_the_solver_package_does_not_import_torch():
    code = "import sys, stable_worldmodel.solver as s; s.Solver; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_satisfies_the_protocols():
    assert isinstance(CEMSolver(cost=TargetCost()), Solver)
    assert isinstance(TargetCost(), Costable)
    assert isinstance(LinearModelCost(), Preparable)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 4),
    size=st.integers(1, 3),
    horizon=st.integers(1, 4),
    block=st.integers(1, 3),
    samples=st.integers(1, 9),
    data=st.data(),
)
def test_shapes_for_any_problem_size(n, size, horizon, block, samples, data):
    topk = data.draw(st.integers(1, samples))
    solver = configured(
        TargetCost(), n_envs=n, size=size, horizon=horizon, block=block, num_samples=samples, topk=topk, n_steps=2
    )
    assert (solver.n_envs, solver.action_dim, solver.horizon) == (n, size * block, horizon)
    result = solver.solve(target_info(n, horizon, size * block))
    assert result["actions"].shape == (n, horizon, size * block)
    assert result["actions"].isfinite().all()
    for key in ("mean", "std", "var"):
        assert [value.shape for value in result[key]] == [(n, horizon, size * block)]
    assert len(result["costs"]) == n
    assert all(isinstance(cost, float) for cost in result["costs"])
    assert result["model_steps"] == n * (samples * 2 + 1) * horizon
    assert set(result["timing"]) == {"prepare", "encode", "optimise", "total"}
    phases = [result["timing"][phase] for phase in ("prepare", "encode", "optimise")]
    assert 0 < sum(phases) <= result["timing"]["total"]


def test_it_finds_the_minimum_of_a_quadratic():
    info = target_info()
    result = configured(TargetCost()).solve(info)
    np.testing.assert_allclose(result["actions"], info["target"], atol=2e-2)


def test_it_drives_an_integrator_to_its_analytic_optimum():
    # min (x + sum a)^2 + 0.1 sum a^2 over H steps: a = -x / (H + 0.1), with cost 0.1 x^2 / (H + 0.1)
    info = {"state": np.array([[[1.0, -0.5]], [[-2.0, 0.3]]], np.float32)}
    result = configured(IntegratorCost(), n_envs=2, horizon=4).solve(info)
    optimum = 0.1 * (info["state"][:, 0] ** 2).sum(axis=1) / 4.1
    np.testing.assert_allclose(result["costs"], optimum, rtol=0.05)
    np.testing.assert_allclose(result["actions"], np.broadcast_to(-info["state"] / 4.1, (2, 4, 2)), atol=0.1)


def test_costs_are_those_of_the_returned_plans():
    info = target_info()
    result = configured(TargetCost(), n_steps=2).solve(info)
    expected = (result["actions"] - torch.from_numpy(info["target"])).square().sum(dim=(1, 2))
    assert result["costs"] == pytest.approx(expected.tolist())


def test_best_seen_plan_is_never_worse_than_any_candidate():
    cost = TargetCost()
    info = target_info(1)
    result = configured(cost, n_envs=1, n_steps=3, num_samples=20, topk=20, return_mean=False).solve(info)
    candidates = torch.cat([seen.flatten(0, 1) for seen in cost.seen])
    every = (candidates - torch.from_numpy(info["target"])).square().sum(dim=(1, 2))
    assert result["costs"] == [every.min().item()]
    assert torch.equal(result["actions"][0], candidates[every.argmin()])


def test_first_candidate_is_the_mean():
    cost = TargetCost()
    start = torch.randn(1, 3, 2)
    configured(cost, n_envs=1, n_steps=2).solve(target_info(1), init_action=start)
    assert torch.equal(cost.seen[0][:, 0], start)


def test_call_equals_solve_and_equal_seeds_give_equal_plans():
    info = target_info()
    first, second = configured(TargetCost(), seed=3), configured(TargetCost(), seed=3)
    assert torch.equal(first(info)["actions"], second.solve(info)["actions"])
    assert not torch.equal(first(info)["actions"], configured(TargetCost(), seed=4)(info)["actions"])


def test_calls_without_keys_continue_the_stream():
    solver = configured(TargetCost(), n_steps=1)
    info = target_info()
    assert not torch.equal(solver(info)["actions"], solver(info)["actions"])


def test_plan_is_bit_identical_whatever_envs_are_solved_with_it():
    info, keys = state_info(7), np.stack([np.arange(7) + 40, np.arange(7) % 3], axis=1)
    solver = configured(LinearModelCost(), n_envs=7, n_steps=4, num_samples=40)
    together = solver.solve(info, keys=keys)
    for rows in ([3], [6, 0], [1, 2, 3, 4, 5]):
        subset = {"state": info["state"][rows], "name": [info["name"][i] for i in rows]}
        alone = solver.solve(subset, keys=keys[rows])
        assert torch.equal(alone["actions"], together["actions"][rows])
        assert alone["costs"] == [together["costs"][i] for i in rows]


def test_plan_without_keys_is_independent_of_the_subset_too():
    info = state_info(4)
    together = configured(LinearModelCost(), n_envs=4, n_steps=3).solve(info)
    alone = configured(LinearModelCost(), n_envs=4, n_steps=3).solve({"state": info["state"][2:3]})
    assert torch.equal(alone["actions"], together["actions"][2:3])


@pytest.mark.parametrize("batch_size", [2, 3, 100])
def test_chunk_size_changes_plans_by_rounding_only(batch_size):
    cost = LinearModelCost()
    info, keys = state_info(5), np.stack([np.arange(5), np.zeros(5, int)], axis=1)
    one = configured(cost, n_envs=5, n_steps=4, num_samples=40).solve(info, keys=keys)
    cost.prepared.clear()
    many = configured(cost, n_envs=5, n_steps=4, num_samples=40, batch_size=batch_size).solve(info, keys=keys)
    assert cost.prepared == [min(batch_size, 5 - start) for start in range(0, 5, batch_size)]
    torch.testing.assert_close(one["actions"], many["actions"], atol=1e-4, rtol=1e-4)


def test_prepare_is_called_once_per_env_and_solve():
    cost = LinearModelCost()
    configured(cost, n_envs=3, n_steps=5).solve(state_info(3))
    assert cost.prepared == [1, 1, 1]


def test_a_cost_that_writes_into_its_info_cannot_reach_the_callers_data():
    class Careless(TargetCost):
        def get_cost(self, info, candidates):
            cost = super().get_cost(info, candidates)
            info["target"].zero_()
            info["extra"] = cost
            return cost

    info = {"target": torch.ones(3, 3, 2)}
    configured(Careless(), n_steps=1).solve(info)
    assert (info["target"] == 1).all()
    assert set(info) == {"target"}


def test_all_candidates_and_plans_respect_the_bounds():
    cost = TargetCost()
    low, high = np.array([-0.3, -np.inf]), np.array([0.2, 0.5])
    solver = configured(cost, block=2, bounds=(low, high), var_scale=3.0)
    info = {"target": np.full((3, 3, 4), 2.0, np.float32)}
    result = solver.solve(info, init_action=torch.full((3, 3, 4), -5.0))
    low, high = (torch.tensor(np.tile(bound, 2), dtype=torch.float32) for bound in (low, high))
    for actions in [result["actions"], *cost.seen]:
        assert (actions >= low).all()
        assert (actions <= high).all()
    torch.testing.assert_close(result["actions"], high.expand(3, 3, 4), atol=1e-3, rtol=0)


def test_deviation_has_a_floor_and_is_finite_with_one_elite():
    result = configured(TargetCost(), topk=1, min_std=0.05).solve(target_info())
    assert (result["std"][0] == 0.05).all()
    assert torch.equal(result["var"][0], result["std"][0])


def test_alpha_keeps_part_of_the_old_distribution():
    info = target_info()
    forgetful = configured(TargetCost(), n_steps=1).solve(info)
    slow = configured(TargetCost(), n_steps=1, alpha=0.5).solve(info)
    torch.testing.assert_close(slow["mean"][0], forgetful["mean"][0] / 2)
    torch.testing.assert_close(slow["std"][0], (forgetful["std"][0] + 1) / 2)


class TestWarmStart:
    def test_partial_warm_start_is_filled_with_zeros(self):
        cost = TargetCost()
        start = torch.ones(1, 2, 2)
        configured(cost, n_envs=1, n_steps=1).solve(target_info(1), init_action=start)
        assert torch.equal(cost.seen[0][0, 0], torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))

    @pytest.mark.parametrize("length", [0, 1, 3])
    def test_warm_starts_of_any_length_are_left_alone(self, length):
        start = torch.randn(3, length, 2)
        before = start.clone()
        configured(TargetCost(), n_steps=2).solve(target_info(), init_action=start)
        configured(TargetCost(), n_steps=2).solve(target_info(), init_action=start.double().numpy())
        assert torch.equal(start, before)

    def test_longer_horizon_is_filled_by_the_models_actor(self):
        class Actor(TargetCost):
            def get_action(self, info, horizon=1, prefix_actions=None):
                self.asked = (horizon, None if prefix_actions is None else prefix_actions.shape)
                action = torch.full((len(info["target"]), horizon, 2), 0.5)
                return action[:, 0] if horizon == 1 else action

        cost = Actor()
        solver = configured(cost, n_envs=1, n_steps=1)
        for length, asked in ((0, (3, None)), (2, (1, (1, 2, 2)))):
            cost.seen.clear()
            solver.solve(target_info(1), init_action=torch.zeros(1, length, 2))
            assert cost.asked == asked
            assert (cost.seen[0][0, 0, length:] == 0.5).all()
        solver.solve(target_info(1), init_action=torch.zeros(1, 3, 2))
        assert cost.asked == asked  # a full warm start needs no actor

    @pytest.mark.parametrize("shape", [(3, 4, 2), (3, 1, 3), (2, 1, 2), (3, 2)])
    def test_wrong_shapes_are_refused(self, shape):
        with pytest.raises(ContractError, match="init_action"):
            configured(TargetCost()).solve(target_info(), init_action=torch.zeros(shape))


class TestPrecision:
    def test_low_precision_models_are_planned_for_in_float32(self):
        result = configured(LinearModelCost(torch.bfloat16), n_steps=2).solve(state_info(3))
        assert result["actions"].dtype == torch.float32

    def test_double_models_are_planned_for_in_float64(self):
        result = configured(LinearModelCost(torch.float64), n_steps=2).solve(state_info(3))
        assert result["actions"].dtype == torch.float64

    def test_results_are_ordinary_tensors(self):
        result = configured(TargetCost(), n_steps=1).solve(target_info())
        assert not result["actions"].is_inference()
        assert not result["mean"][0].is_inference()


class TestErrors:
    def test_exactly_one_of_cost_and_model(self):
        assert CEMSolver(TargetCost()).cost is not None
        with pytest.raises(ContractError, match="exactly one"):
            CEMSolver()
        with pytest.raises(ContractError, match="exactly one"):
            CEMSolver(TargetCost(), cost=TargetCost())
        with pytest.raises(TypeError, match="get_cost"):
            CEMSolver(cost=torch.nn.Identity())

    @pytest.mark.parametrize(
        "kwargs",
        [{"topk": 301}, {"topk": 0}, {"n_steps": 0}, {"alpha": 1.0}, {"min_std": -1.0}, {"batch_size": 0}],
    )
    def test_bad_settings(self, kwargs):
        with pytest.raises(ContractError, match=next(iter(kwargs))):
            CEMSolver(cost=TargetCost(), **kwargs)

    def test_solving_before_configure(self):
        with pytest.raises(RuntimeError, match="configure"):
            CEMSolver(cost=TargetCost()).solve(target_info())

    def test_costs_of_the_wrong_shape(self):
        class Flat(TargetCost):
            def get_cost(self, info, candidates):
                return super().get_cost(info, candidates).sum(dim=1)

        with pytest.raises(ContractError, match=r"Flat.get_cost returned a tensor \(3,\)"):
            configured(Flat()).solve(target_info())

    def test_nan_costs_name_the_env(self):
        info = target_info()
        info["target"][1] = np.nan
        with pytest.raises(ContractError, match=r"rows \[1\]"):
            configured(TargetCost(), n_steps=1).solve(info)

    def test_info_values_of_different_length(self):
        with pytest.raises(ContractError, match="differ"):
            configured(TargetCost()).solve({**target_info(3), "state": np.zeros((2, 1))})

    @pytest.mark.parametrize("info", [{}, {"name": "no rows"}, {"target": np.zeros((0, 3, 2))}])
    def test_info_about_no_env(self, info):
        with pytest.raises(ContractError, match="expected"):
            configured(TargetCost()).solve(info)

    def test_keys_of_the_wrong_shape(self):
        with pytest.raises(ContractError, match="keys"):
            configured(TargetCost()).solve(target_info(), keys=np.zeros((3,), int))

    def test_bounds_of_the_wrong_shape_or_order(self):
        for bounds in ((np.zeros(4), np.ones(4)), (np.ones(2), np.zeros(2))):
            with pytest.raises(ContractError, match="action_bounds"):
                configured(TargetCost(), bounds=bounds)
