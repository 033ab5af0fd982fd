import sys

import gymnasium as gym
import numpy as np
import pytest
from quadratic import TargetCost

from stable_worldmodel.errors import ContractError, MissingDependencyError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import NevergradSolver


class Halving:
    """Samples around the best point so far, ever closer."""

    made = ()

    def __init__(self, start, low, high, budget, num_workers, seed):
        self.best, self.cost, self.sigma = start, np.inf, 1.0
        self.rng = np.random.default_rng(seed)
        type(self).made = (*self.made, self)
        self.arguments = (low, high, budget, num_workers, seed)
        self.told = 0

    def ask(self):
        return self.best + self.sigma * self.rng.normal(size=self.best.shape)

    def tell(self, point, cost):
        self.told += 1
        self.sigma *= 0.995
        if cost < self.cost:
            self.best, self.cost = point, cost


def solve(solver, n=3, bounds=None):
    config = PlanConfig(3, 1)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (n, 2)), n_envs=n, config=config, action_bounds=bounds)
    info = {"target": np.random.default_rng(0).uniform(-0.8, 0.8, (n, 3, 2)).astype(np.float32)}
    return info, solver.solve(info, keys=np.arange(2 * n).reshape(n, 2))


def test_every_env_has_its_own_optimiser_and_all_are_scored_together():
    Halving.made = ()
    cost = TargetCost()
    info, result = solve(NevergradSolver(cost=cost, optimizer=Halving, n_steps=40, num_samples=16))
    assert len(Halving.made) == 3
    assert [seen.shape for seen in cost.seen[1:]] == [(3, 16, 3, 2)] * 40
    assert all(optimizer.told == 40 * 16 for optimizer in Halving.made)
    assert len({optimizer.arguments[4] for optimizer in Halving.made}) == 3
    assert Halving.made[0].arguments[:4] == (None, None, 640, 16)
    np.testing.assert_allclose(result["actions"], info["target"], atol=0.2)
    assert result["actions"].shape == (3, 3, 2)


def test_bounds_reach_the_optimiser_as_arrays_like_the_plan():
    Halving.made = ()
    bounds = np.array([-0.5, -0.1]), np.array([0.5, 0.1])
    _, result = solve(NevergradSolver(cost=TargetCost(), optimizer=Halving, n_steps=3), bounds=bounds)
    np.testing.assert_allclose(Halving.made[0].arguments[0], [[-0.5, -0.1]] * 3)
    np.testing.assert_allclose(Halving.made[0].arguments[1], [[0.5, 0.1]] * 3)
    assert (result["actions"].abs().amax(dim=(0, 1)).numpy() <= bounds[1] + 1e-7).all()


def test_one_optimiser_object_for_all_envs_is_refused():
    with pytest.raises(ContractError, match="shared"):
        NevergradSolver(cost=TargetCost(), optimizer=object())


def test_a_name_without_nevergrad_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(MissingDependencyError, match=r"stable-worldmodel\[planning\]"):
        NevergradSolver(cost=TargetCost(), optimizer="CMA")


@pytest.mark.parametrize(("name", "n_steps", "left"), [("CMA", 30, 0.1), ("DE", 30, 0.35), ("PSO", 60, 0.8)])
def test_optimisers_of_the_registry(name, n_steps, left):
    bounds = np.full(2, -1.0), np.full(2, 1.0)
    solver = NevergradSolver(cost=TargetCost(), optimizer=name, n_steps=n_steps, num_samples=20, var_scale=0.5)
    info, result = solve(solver, n=2, bounds=bounds)
    assert (result["costs"] < left * np.square(info["target"]).sum(axis=(1, 2))).all()
    assert np.abs(result["actions"].numpy()).max() <= 1.0
    assert np.array_equal(result["actions"], solve(solver, n=2, bounds=bounds)[1]["actions"])


def test_unknown_names_are_refused():
    with pytest.raises(ContractError, match="registry"):
        NevergradSolver(cost=TargetCost(), optimizer="NoSuchThing")
