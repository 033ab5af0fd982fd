import gymnasium as gym
import numpy as np
import pytest
import torch
from quadratic import LinearModelCost, TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import GradientSolver


class Differentiable(TargetCost):
    def get_cost(self, info, candidates):
        return super().get_cost(info, candidates) / 2


def solve(solver, info, start=None, bounds=None, keys=None):
    n = len(next(iter(info.values())))
    config = PlanConfig(3, 1)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (n, 2)), n_envs=n, config=config, action_bounds=bounds)
    return solver.solve(info, init_action=start, keys=keys)


def target(n=2, value=0.5):
    return {"target": np.full((n, 3, 2), value, np.float32)}


@pytest.mark.parametrize(
    ("optimizer", "kwargs"),
    [
        (None, None),
        (torch.optim.SGD, {"lr": 0.5, "momentum": 0.5}),
        (torch.optim.Adam, {"lr": 0.2}),
        (torch.optim.RMSprop, {"lr": 0.05}),
        (torch.optim.LBFGS, {"line_search_fn": "strong_wolfe"}),
    ],
)
def test_any_torch_optimiser_finds_a_quadratics_minimum(optimizer, kwargs):
    solver = GradientSolver(cost=Differentiable(), n_steps=60, optimizer_cls=optimizer, optimizer_kwargs=kwargs)
    np.testing.assert_allclose(solve(solver, target())["actions"], 0.5, atol=2e-2)


def test_the_default_is_plain_descent_with_a_rate_of_one():
    cost = Differentiable()
    result = solve(GradientSolver(cost=cost, n_steps=1), target())
    assert torch.equal(cost.seen[0], torch.zeros(2, 1, 3, 2))
    assert (result["actions"] == 0.5).all()  # the minimum of a quadratic of curvature 1, in one step
    assert result["costs"] == [0.0, 0.0]


def test_the_first_start_is_the_warm_start_and_the_others_are_moved():
    cost = Differentiable()
    start = torch.full((2, 3, 2), 0.2)
    solve(GradientSolver(cost=cost, n_steps=1, num_samples=5, var_scale=2.0), target(), start)
    first = cost.seen[0]
    assert (first[:, 0] == 0.2).all()
    assert 1.0 < (first[:, 1:] - 0.2).std() < 3.0


def test_the_best_start_is_chosen_per_env():
    class TwoValleys:
        """Minima at -1 (cost 0.5) and 1 (cost 0) of the sum of the actions."""

        def get_cost(self, info, candidates):
            x = candidates.mean(dim=(2, 3))
            return (x**2 - 1) ** 2 - 0.25 * x * info["side"][:, :1]

    info = {"side": np.array([[1.0], [-1.0]], np.float32)}
    adam = {"optimizer_cls": torch.optim.Adam, "optimizer_kwargs": {"lr": 0.05}}
    result = solve(GradientSolver(cost=TwoValleys(), n_steps=200, num_samples=16, **adam), info)
    means = result["actions"].mean(dim=(1, 2))
    assert means[0] > 0.8
    assert means[1] < -0.8


def test_gradients_are_clipped_for_every_start_on_its_own():
    cost = Differentiable()
    info = {"target": np.stack([np.full((3, 2), 100.0), np.full((3, 2), 0.01)]).astype(np.float32)}
    solve(GradientSolver(cost=cost, n_steps=1, grad_clip=0.5), info)
    moved = cost.seen[1][:, 0].flatten(1).norm(dim=1)
    assert moved[0].item() == pytest.approx(0.5, rel=1e-5)
    assert moved[1].item() == pytest.approx(0.01 * 6**0.5, rel=1e-4)  # not scaled down by its neighbour


def test_noise_is_added_after_every_step_and_never_leaves_the_bounds():
    cost = Differentiable()
    bounds = np.full(2, -0.1), np.full(2, 0.3)
    solver = GradientSolver(cost=cost, n_steps=4, num_samples=40, action_noise=0.2)
    result = solve(solver, target(), bounds=bounds)
    for seen in cost.seen:
        assert seen.min() >= -0.1
        assert seen.max() <= 0.3 + 1e-7
    assert cost.seen[2].std() > 0.02
    assert result["actions"].max() <= 0.3 + 1e-7


def test_the_best_plan_seen_survives_a_diverging_descent():
    kwargs = {"n_steps": 6, "optimizer_kwargs": {"lr": 2.5}}  # overshoots more in every step
    start = torch.full((2, 3, 2), 0.4)
    last = solve(GradientSolver(cost=Differentiable(), **kwargs), target(), start)
    best = solve(GradientSolver(cost=Differentiable(), return_last=False, **kwargs), target(), start)
    assert max(best["costs"]) == pytest.approx(0.03)
    assert torch.equal(best["actions"], start)
    assert min(last["costs"]) > 0.1


def test_the_models_own_gradients_are_left_alone():
    cost = LinearModelCost()
    solve(GradientSolver(cost=cost, n_steps=2), {"state": np.ones((2, 1, 4), np.float32)})
    assert all(parameter.grad is None for parameter in cost.parameters())
    assert all(parameter.requires_grad for parameter in cost.parameters())


def test_costs_without_a_gradient_are_refused():
    class Detached(TargetCost):
        def get_cost(self, info, candidates):
            return super().get_cost(info, candidates.detach())

    with pytest.raises(ContractError, match="differentiably"):
        solve(GradientSolver(cost=Detached()), target())


@pytest.mark.parametrize("kwargs", [{"n_steps": 0}, {"num_samples": 0}, {"action_noise": -1.0}, {"grad_clip": 0.0}])
def test_bad_settings(kwargs):
    with pytest.raises(ContractError, match=next(iter(kwargs))):
        GradientSolver(cost=TargetCost(), **kwargs)
