"""Planners against the best plan known, where the dynamics are exact."""

import numpy as np
import pytest
import torch
from analytic_tasks import SMOOTH, optimum, solve, task

from stable_worldmodel.solver import CEMSolver, GradientSolver, ICEMSolver, MPPISolver, PredictiveSamplingSolver

TASKS = ("integrator", "pendulum", "two_room", "maze")


def test_the_reference_is_the_optimum_where_that_is_known():
    # Linear dynamics and quadratic cost: the stationary point solves a linear system, and bounds do not bind.
    cost, info, config, _, bounds = task("integrator")
    width = config.horizon * config.action_block * 2
    plan = torch.zeros(2, 1, config.horizon, width // config.horizon, dtype=torch.float64, requires_grad=True)
    info = {key: value.double() for key, value in info.items()}

    def total(flat):
        return cost.get_cost(info, flat.unflatten(1, (1, config.horizon, -1))).sum()

    flat = plan.detach().flatten(1)
    gradient = torch.autograd.functional.jacobian(total, flat)
    hessian = torch.autograd.functional.hessian(lambda x: total(x.expand(2, -1)) / 2, flat[:1])[0, :, 0]
    best = -torch.linalg.solve(hessian, gradient.T).T
    assert best.abs().max() < bounds[1].max()
    exact = cost.get_cost(info, best.unflatten(1, (1, config.horizon, -1)))[:, 0]
    np.testing.assert_allclose(optimum("integrator"), exact, rtol=1e-3)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("solver", "settings"),
    # Strongly coloured noise hardly explores alternating actions, which a plan of six macro steps needs.
    [(CEMSolver, {}), (ICEMSolver, {"noise_beta": 0.5}), (MPPISolver, {})],
)
def test_sampling_solvers_come_within_five_percent(solver, settings, name):
    cost, *_, bounds = task(name)
    planner = solver(cost=cost, num_samples=1000, n_steps=60, topk=50, var_scale=float(bounds[1][0]), **settings)
    assert (np.array(solve(planner, name)["costs"]) <= 1.05 * optimum(name)).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_descent_comes_within_five_percent_where_the_world_is_smooth(name):
    cost, *_, bounds = task(name)
    planner = GradientSolver(
        cost=cost,
        n_steps=300,
        num_samples=4,
        var_scale=float(bounds[1][0]),
        optimizer_cls=torch.optim.Adam,
        optimizer_kwargs={"lr": 0.05},
        return_last=False,
    )
    assert (np.array(solve(planner, name)["costs"]) <= 1.05 * optimum(name)).all()


def test_second_order_descent_solves_a_quadratic_in_a_few_steps():
    cost, *_ = task("integrator")
    planner = GradientSolver(
        cost=cost,
        n_steps=5,
        batch_size=1,
        optimizer_cls=torch.optim.LBFGS,
        optimizer_kwargs={"line_search_fn": "strong_wolfe"},
    )
    np.testing.assert_allclose(solve(planner, "integrator")["costs"], optimum("integrator"), rtol=1e-2)


@pytest.mark.parametrize("name", TASKS)
def test_the_published_settings_of_icem_beat_sampling_once_with_the_same_budget(name):
    cost, *_, bounds = task(name)
    scale = float(bounds[1][0])
    icem = solve(ICEMSolver(cost=cost, mode="paper", num_samples=100), name)
    once = solve(PredictiveSamplingSolver(cost=cost, num_samples=245, noise_scale=scale / 2), name)
    assert icem["model_steps"] <= once["model_steps"]
    assert np.mean(np.array(icem["costs"]) / once["costs"]) < 1.0
