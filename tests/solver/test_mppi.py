import gymnasium as gym
import numpy as np
import pytest
import torch
from quadratic import TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import MPPISolver


class Shifted(TargetCost):
    """The same landscape at another height or scale."""

    def __init__(self, shift=0.0, scale=1.0):
        super().__init__()
        self.shift, self.scale = shift, scale

    def get_cost(self, info, candidates):
        return self.scale * super().get_cost(info, candidates) + self.shift


INFO = {"target": np.random.default_rng(0).uniform(-0.8, 0.8, (2, 3, 2)).astype(np.float32)}


def solve(solver, start=None, info=INFO):
    solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 2)), n_envs=2, config=PlanConfig(3, 1))
    return solver.solve(info, init_action=start)


def published(cost, **kwargs):
    return MPPISolver(cost=cost, **{"relative": False, "adapt_std": False, "num_samples": 50, "n_steps": 1, **kwargs})


@pytest.mark.parametrize("relative", [True, False])
def test_without_temperature_the_best_candidate_wins(relative):
    cost = TargetCost()
    result = solve(published(cost, temperature=0.0, relative=relative))
    target = torch.from_numpy(INFO["target"])
    best = (cost.seen[0] - target[:, None]).square().sum(dim=(2, 3)).argmin(dim=1)
    assert torch.equal(result["actions"], cost.seen[0][torch.arange(2), best])


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("use_elites", [True, False])
def test_a_constant_cost_changes_nothing(relative, use_elites):
    plain, shifted = (
        solve(published(Shifted(shift), relative=relative, use_elites=use_elites, n_steps=3))["actions"]
        for shift in (0.0, 64.0)
    )
    torch.testing.assert_close(plain, shifted, rtol=1e-3, atol=1e-3)


def test_relative_temperature_means_the_same_on_every_scale():
    plain, scaled = (solve(published(Shifted(0.0, s), relative=True, n_steps=3))["actions"] for s in (1.0, 1024.0))
    torch.testing.assert_close(plain, scaled, rtol=1e-3, atol=1e-4)


def test_weights_are_the_exponential_of_the_cost():
    cost = TargetCost()
    result = solve(published(cost, temperature=0.7, use_elites=False))
    costs = (cost.seen[0] - torch.from_numpy(INFO["target"])[:, None]).square().sum(dim=(2, 3))
    weights = torch.softmax(-costs / 0.7, dim=1)
    torch.testing.assert_close(result["actions"], (weights[:, :, None, None] * cost.seen[0]).sum(dim=1))
    assert (result["std"][0] == 1.0).all()


def test_adapted_deviation_is_the_weighted_one_within_its_limits():
    cost = TargetCost()
    result = solve(published(cost, temperature=0.7, use_elites=False, adapt_std=True))
    costs = (cost.seen[0] - torch.from_numpy(INFO["target"])[:, None]).square().sum(dim=(2, 3))
    weights = torch.softmax(-costs / 0.7, dim=1)[:, :, None, None]
    variance = (weights * (cost.seen[0] - result["mean"][0][:, None]).square()).sum(dim=1)
    torch.testing.assert_close(result["std"][0], variance.sqrt())
    narrow = solve(published(TargetCost(), adapt_std=True, min_std=0.8, max_std=0.9))["std"][0]
    assert ((narrow >= 0.8) & (narrow <= 0.9)).all()


def test_the_perturbation_term_pulls_towards_small_controls():
    start = torch.full((2, 3, 2), 3.0)
    plain, pulled = (
        solve(published(TargetCost(), temperature=50.0, perturbation_weight=weight), start)["actions"]
        for weight in (0.0, 50.0)
    )
    assert (pulled.sum(dim=(1, 2)) < plain.sum(dim=(1, 2))).all()  # along the mean, which is 3 everywhere


def test_tdmpc2_executes_an_elite_and_reports_its_cost():
    cost = TargetCost()
    result = solve(MPPISolver.tdmpc2(cost))
    last = cost.seen[5]
    assert last.shape[1] == 512
    for i in range(2):
        matches = (last[i] == result["actions"][i]).all(dim=2).all(dim=1)
        assert matches.any()
    own = (result["actions"] - torch.from_numpy(INFO["target"])).square().sum(dim=(1, 2))
    assert result["costs"] == pytest.approx(own.tolist())
    assert ((result["std"][0] >= 0.05) & (result["std"][0] <= 2.0)).all()


def test_topk_names_the_elites_and_large_ones_mean_all():
    assert MPPISolver(TargetCost(), 20, 5).topk == 5
    assert MPPISolver(TargetCost(), 20, use_elites=False).topk == 20
    assert MPPISolver(TargetCost(), 20, topk=7).topk == 7
    assert MPPISolver(TargetCost(), 20, topk=99).topk == 20
    with pytest.raises(ContractError, match="temperature"):
        MPPISolver(TargetCost(), temperature=-1.0)


class Proposing(TargetCost):
    """Proposes what `info["proposal"]` says, moved by a tenth of the noise."""

    def propose(self, info, noise):
        self.drawn = noise.clone()
        return info["proposal"][:, None] + 0.1 * noise


class TestProposals:
    def info(self):
        return {**INFO, "proposal": np.full((2, 3, 2), 0.7, np.float32)}

    def test_are_candidates_of_every_iteration_within_the_bounds(self):
        cost = Proposing()
        solver = MPPISolver(cost=cost, num_samples=20, num_elites=5, n_steps=3, num_proposals=4)
        bounds = np.full(2, -0.75), np.full(2, 0.75)
        solver.configure(
            action_space=gym.spaces.Box(-1, 1, (2, 2)), n_envs=2, config=PlanConfig(3, 1), action_bounds=bounds
        )
        solver.solve(self.info())
        expected = (0.7 + 0.1 * cost.drawn).clamp(-0.75, 0.75)
        assert expected.std() > 0.01
        for candidates in cost.seen[:3]:
            assert torch.equal(candidates[:, 1:5], expected)

    def test_that_are_good_are_found_where_noise_is_not(self):
        costs = []
        for count in (0, 4):
            solver = MPPISolver(
                cost=Proposing(), num_samples=8, num_elites=1, n_steps=1, num_proposals=count, return_mean=False
            )
            info = {**INFO, "proposal": INFO["target"]}
            costs.append(solve(solver, info=info)["costs"])
        assert max(costs[1]) < 0.2 * min(costs[0])

    def test_do_not_depend_on_what_is_solved_beside_them(self):
        solver = MPPISolver(cost=Proposing(), num_samples=20, num_elites=5, num_proposals=4)
        keys = np.array([[3, 0], [5, 1]])
        solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 2)), n_envs=2, config=PlanConfig(3, 1))
        both = solver.solve(self.info(), keys=keys)["actions"]
        alone = solver.solve({key: value[1:] for key, value in self.info().items()}, keys=keys[1:])["actions"]
        torch.testing.assert_close(alone, both[1:])

    def test_need_a_cost_that_makes_them_and_the_right_shape(self):
        with pytest.raises(ContractError, match="no propose"):
            MPPISolver(cost=TargetCost(), num_proposals=1)
        with pytest.raises(ContractError, match="num_proposals=300"):
            MPPISolver(cost=Proposing(), num_proposals=300)
        cost = Proposing()
        cost.propose = lambda info, noise: noise[:, :1]
        with pytest.raises(ContractError, match=r"\(2, 1, 3, 2\): expected \(2, 4, 3, 2\)"):
            solve(MPPISolver(cost=cost, num_proposals=4), info=self.info())

    def test_are_24_with_the_settings_of_tdmpc2_if_there_is_an_actor(self):
        assert MPPISolver.tdmpc2(Proposing()).num_proposals == 24
        assert MPPISolver.tdmpc2(TargetCost()).num_proposals == 0
