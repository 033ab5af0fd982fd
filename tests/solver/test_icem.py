import gymnasium as gym
import numpy as np
import pytest
import torch
from quadratic import TargetCost

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import ICEMSolver
from stable_worldmodel.solver.icem import time_filter
from stable_worldmodel.solver.noise import Noise, stream_ids


def noise(horizon, beta, samples=60_000):
    source = Noise(stream_ids(0, np.zeros((1, 2), int)), torch.device("cpu"), torch.float64)
    white = source.normal(0, (horizon, samples))[0]  # (H, S)
    return time_filter(horizon, beta) @ white


def configured(solver, n=2, horizon=4, receding=1, bounds=None):
    config = PlanConfig(horizon, receding)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (n, 2)), n_envs=n, config=config, action_bounds=bounds)
    return solver


def targets(n=2, horizon=4):
    return {"target": np.random.default_rng(0).uniform(-0.8, 0.8, (n, horizon, 2)).astype(np.float32)}


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 30])
def test_every_action_has_standard_deviation_one_for_every_horizon(horizon, beta):
    coloured = noise(horizon, beta)
    assert (coloured.std(dim=1) - 1).abs().max() < 0.02
    assert coloured.abs().max() < 6.0  # Gaussian, no heavy tails


@pytest.mark.parametrize("horizon", [2, 5, 30])
def test_without_colour_noise_is_white(horizon):
    torch.testing.assert_close(time_filter(horizon, 0.0), torch.eye(horizon, dtype=torch.float64))


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_power_falls_with_frequency(beta):
    power = torch.fft.rfft(noise(32, beta), dim=0).abs().square().mean(dim=1)
    frequencies = torch.fft.rfftfreq(32)
    expected = frequencies[1:15].double() ** -beta
    torch.testing.assert_close(power[1:15] / power[1], expected / expected[0], rtol=0.05, atol=0.0)
    assert power[0].item() == pytest.approx(power[1].item(), rel=0.05)


def test_the_best_of_an_iteration_are_candidates_of_the_next():
    cost = TargetCost()
    configured(ICEMSolver(cost=cost, num_samples=20, n_steps=3, topk=6, n_elite_keep=4)).solve(targets())
    target = torch.from_numpy(targets()["target"])[:, None]
    for before, after in zip(cost.seen[:2], cost.seen[1:3], strict=True):
        order = (before - target).square().sum(dim=(2, 3)).argsort(dim=1)[:, :4]
        assert torch.equal(before.take_along_dim(order[:, :, None, None], dim=1), after[:, 1:5])
    assert (cost.seen[0][:, 1] != cost.seen[0][:, 2]).any()  # nothing is kept from nowhere


def test_momentum_keeps_a_share_of_the_old_mean():
    results = [
        configured(ICEMSolver(cost=TargetCost(), n_steps=1, alpha=alpha)).solve(
            targets(), init_action=torch.full((2, 4, 2), 0.9)
        )["mean"][0]
        for alpha in (0.0, 0.5)
    ]
    torch.testing.assert_close(results[1], 0.5 * 0.9 + 0.5 * results[0])


class TestPaper:
    def solver(self, cost, **kwargs):
        return ICEMSolver(cost=cost, mode="paper", num_samples=40, n_steps=4, topk=10, **kwargs)

    def test_samples_shrink_but_not_below_two_elites_each(self):
        cost = TargetCost()
        configured(self.solver(cost)).solve(targets())
        assert [seen.shape[1] for seen in cost.seen] == [40, 32, 25, 20, 1]

    def test_the_mean_is_a_candidate_of_the_last_iteration_only(self):
        cost = TargetCost()
        start = torch.zeros(2, 4, 2)
        configured(self.solver(cost)).solve(targets(), init_action=start)
        assert all((seen[:, 0] != 0).any() for seen in cost.seen[:3])
        cost.seen.clear()
        configured(ICEMSolver(cost=cost, mode="paper", n_steps=1)).solve(targets(), init_action=start)
        assert (cost.seen[0][:, 0] == 0).all()

    def test_the_first_deviation_is_half_of_half_the_action_range(self):
        wide, free = (
            configured(
                ICEMSolver(cost=TargetCost(), mode="paper", n_steps=1, alpha=0.999, noise_beta=0.0), bounds=bounds
            )
            .solve(targets())["std"][0]
            .mean()
            .item()
            for bounds in ((np.full(2, -8.0), np.full(2, 8.0)), None)
        )
        assert wide == pytest.approx(4.0, rel=0.02)
        assert free == pytest.approx(0.5, rel=0.02)

    def test_elites_are_carried_to_the_next_decision_of_the_same_episode(self):
        cost = TargetCost()
        solver = configured(self.solver(cost), receding=2)
        solver.solve(targets(), keys=np.array([[5, 0], [6, 0]]))
        last = cost.seen[3]  # (2, 20, 4, 2)
        cost.seen.clear()
        solver.solve(targets(), keys=np.array([[6, 1], [7, 0]]))
        slots = cost.seen[0][:, 1:4]
        target = torch.from_numpy(targets()["target"])[:, None]
        order = (last - target).square().sum(dim=(2, 3)).argsort(dim=1)[:, :3]
        elites = last.take_along_dim(order[:, :, None, None], dim=1)
        assert torch.equal(slots[0, :, :2], elites[1, :, 2:])  # episode 6, moved by what was executed
        assert (slots[0, :, 2:] != 0).all()
        assert slots[0, :, 2:].unique().numel() == slots[0, :, 2:].numel()  # the end is drawn anew, for each
        assert not torch.equal(slots[1, :, :2], elites[1, :, 2:])  # a new episode starts from nothing

    def test_a_skipped_decision_or_a_repeated_episode_starts_from_nothing(self):
        info = {key: value[:1] for key, value in targets().items()}
        fresh = configured(self.solver(TargetCost()), n=1).solve(info, keys=np.array([[5, 2]]))["actions"]
        used = configured(self.solver(TargetCost()), n=1)
        used.solve(info, keys=np.array([[5, 0]]))
        assert torch.equal(used.solve(info, keys=np.array([[5, 2]]))["actions"], fresh)
        first = configured(self.solver(TargetCost()), n=1)
        expected = first.solve(info, keys=np.array([[5, 0]]))["actions"]
        first.solve(info, keys=np.array([[5, 1]]))
        assert torch.equal(first.solve(info, keys=np.array([[5, 0]]))["actions"], expected)

    def test_the_best_sequence_seen_is_returned(self):
        cost = TargetCost()
        result = configured(self.solver(cost)).solve(targets())
        target = torch.from_numpy(targets()["target"])[:, None]
        lowest = torch.stack([(seen - target).square().sum(dim=(2, 3)).amin(dim=1) for seen in cost.seen]).amin(dim=0)
        assert result["costs"] == pytest.approx(lowest.tolist())


def test_bad_settings():
    for kwargs in ({"mode": "new"}, {"noise_beta": -1.0}, {"n_elite_keep": -1}, {"mode": "paper", "compiled": True}):
        with pytest.raises(ContractError):
            ICEMSolver(cost=TargetCost(), **kwargs)
