import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from toy_dynamics import ActingDynamics, ToyDynamics

from stable_worldmodel.errors import MissingKeyError
from stable_worldmodel.planning import (
    Actionable,
    CEMSolver,
    Constrainable,
    ControlPenalty,
    ExpandedInfo,
    GoalMSE,
    ShootingCostEvaluator,
    default_goal_encode,
    flat_goal_encode,
    split_goal_encode,
)
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import Costable, Preparable


def images(n, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 1, 3, 4, 4), np.uint8))


def observed(n=2):
    return {
        "pixels": images(n, 0),
        "goal": images(n, 1),
        "action": torch.full((n, 1, 1), torch.nan),
        "label": ["a"] * n,
    }


def hand_composed(model, info, candidates):
    goal = model.encode({"pixels": info["goal"]})["emb"]
    rolled_out = model.rollout(model.encode({"pixels": info["pixels"]}), candidates)
    return (rolled_out["predicted_emb"][:, :, -1] - goal[:, -1][:, None]).square().sum(dim=-1)


def test_importing_planning_does_not_import_torch():
    code = "import sys, stable_worldmodel.planning as p; p.GoalMSE; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cost_equals_encode_rollout_and_squared_error_bitwise():
    model, info, candidates = ToyDynamics(), observed(), torch.randn(2, 7, 3, 2)
    evaluator = ShootingCostEvaluator(model, GoalMSE())
    expected = hand_composed(model, info, candidates)
    assert torch.equal(evaluator.get_cost(info, candidates), expected)
    assert torch.equal(evaluator.get_cost(evaluator.prepare(info), candidates), expected)
    assert torch.equal(evaluator.criterion(evaluator.rollout(info, candidates), candidates), expected)
    assert isinstance(evaluator, Costable)
    assert isinstance(evaluator, Preparable)


def test_prepared_info_is_not_encoded_again_and_the_callers_stays_as_it_was():
    model, info = ToyDynamics(), observed()
    evaluator = ShootingCostEvaluator(model, GoalMSE())
    before = dict(info)
    prepared = evaluator.prepare(info)
    assert len(model.encoded) == 2  # goal, observation
    evaluator.get_cost(prepared, torch.zeros(2, 1, 1, 2))
    assert len(model.encoded) == 2
    assert info == before


def test_a_solve_encodes_goal_and_observation_once_and_without_candidates():
    model = ToyDynamics()
    solver = CEMSolver(cost=ShootingCostEvaluator(model, GoalMSE()), num_samples=8, topk=2, n_steps=4, batch_size=5)
    space = gym.spaces.Box(-1, 1, (5, 2))
    solver.configure(action_space=space, n_envs=5, config=PlanConfig(horizon=3, receding_horizon=1))
    result = solver.solve(observed(5))
    assert model.encoded == [(5, 1, 3, 4, 4)] * 2
    assert result["actions"].shape == (5, 3, 2)


def test_a_given_goal_embedding_is_used():
    model, info, candidates = ToyDynamics(), observed(), torch.randn(2, 3, 2, 2)
    info["goal_emb"] = torch.ones(2, 1, 6)
    cost = ShootingCostEvaluator(model, GoalMSE()).get_cost(info, candidates)
    last = model.rollout(model.encode({"pixels": info["pixels"]}), candidates)["predicted_emb"][:, :, -1]
    assert torch.equal(cost, (last - 1).square().sum(dim=-1))


def test_without_goal_encoder_no_goal_is_needed():
    info = observed()
    del info["goal"]
    evaluator = ShootingCostEvaluator(ToyDynamics(), ControlPenalty(), encode_goal=None)
    assert evaluator.get_cost(info, torch.ones(2, 1, 3, 2)).tolist() == [[6.0], [6.0]]
    with pytest.raises(MissingKeyError, match="goal"):
        ShootingCostEvaluator(ToyDynamics(), GoalMSE()).get_cost(info, torch.ones(2, 1, 3, 2))


def test_goal_encoder_sees_goal_columns_only():
    class Spy(ToyDynamics):
        def encode(self, info):
            self.keys = set(info)
            return super().encode(info)

    model, extra = Spy(), torch.zeros(2, 1, 1)
    info = {**observed(), "proprio": extra, "goal_proprio": extra, "goal_action": extra, "action_history": extra}
    assert set(flat_goal_encode(model, info)) == {"goal_emb"}
    assert model.keys == {"pixels", "proprio"}


def test_constraints_and_actor_exist_only_where_given():
    plain = ShootingCostEvaluator(ToyDynamics(), GoalMSE())
    assert not isinstance(plain, Constrainable)
    assert not isinstance(plain, Actionable)
    acting = ShootingCostEvaluator(ActingDynamics(), GoalMSE(), constraints=[ControlPenalty(), GoalMSE()])
    assert isinstance(acting, Constrainable)
    assert isinstance(acting, Actionable)
    info, candidates = observed(), torch.randn(2, 3, 4, 2)
    values = acting.get_constraints(info, candidates)
    assert values.shape == (2, 3, 2)
    assert torch.equal(values[..., 0], candidates.square().flatten(2).sum(-1))
    assert torch.equal(values[..., 1], acting.get_cost(info, candidates))
    assert acting.get_action(info, horizon=3).shape == (2, 3, 2)


def test_the_model_is_a_submodule():
    model = ToyDynamics()
    assert list(ShootingCostEvaluator(model, GoalMSE()).parameters()) == list(model.parameters())


class SplitDynamics(ToyDynamics):
    """A model with one latent per input."""

    extra_encoders = {"proprio": nn.Identity()}  # noqa: RUF012

    def encode(self, info):
        encoded = super().encode(info)
        return {**encoded, "pixels_emb": encoded["emb"][..., :4], "proprio_emb": info["proprio"].float()}


def test_models_with_one_latent_per_input_get_one_goal_each():
    info = {**observed(), "proprio": torch.zeros(2, 1, 3), "goal_proprio": torch.ones(2, 1, 3)}
    model = SplitDynamics()
    entries = default_goal_encode(model, info)
    assert set(entries) == {"goal_emb", "pixels_goal_emb", "proprio_goal_emb"}
    assert (entries["proprio_goal_emb"] == 1.0).all()
    expected = model.encode({"pixels": info["goal"], "proprio": info["goal_proprio"]})
    assert torch.equal(entries["pixels_goal_emb"], expected["pixels_emb"])
    assert set(default_goal_encode(ToyDynamics(), observed())) == {"goal_emb"}
    evaluator = ShootingCostEvaluator(model, GoalMSE("proprio_emb", "proprio_goal_emb"), encode_goal=split_goal_encode)
    assert set(evaluator.goal_entries(evaluator.prepare({k: v for k, v in info.items() if k != "action"}))) == set(
        entries
    )


class CountingRollout(ToyDynamics):
    def rollout(self, info, candidates, *, last_only=False):
        self.asked = last_only
        rolled_out = super().rollout(info, candidates)
        return {**rolled_out, "predicted_emb": rolled_out["predicted_emb"][:, :, -1:]} if last_only else rolled_out


def test_models_are_asked_for_the_last_prediction_only_where_that_is_enough():
    def whole_path(rolled_out):
        return rolled_out["predicted_emb"].square().sum(dim=(2, 3))

    info, candidates, model = observed(), torch.randn(2, 3, 4, 2), CountingRollout()
    short = ShootingCostEvaluator(model, GoalMSE())
    cost = short.get_cost(info, candidates)
    assert model.asked is True
    assert torch.equal(cost, ShootingCostEvaluator(ToyDynamics(), GoalMSE()).get_cost(info, candidates))
    assert short.rollout(info, candidates)["predicted_emb"].shape[2] == 5  # who asks for a rollout gets all of it
    ShootingCostEvaluator(model, whole_path).get_cost(info, candidates)
    assert model.asked is False
    ShootingCostEvaluator(model, GoalMSE(), constraints=[whole_path]).get_cost(info, candidates)
    assert model.asked is False


def test_cost_and_constraints_come_from_one_rollout():
    info, candidates, model = observed(), torch.randn(2, 3, 4, 2), ToyDynamics()
    evaluator = ShootingCostEvaluator(model, GoalMSE(), constraints=[ControlPenalty()])
    context = evaluator.prepare(info)
    costs, constraints = evaluator.cost_and_constraints(context, candidates)
    assert torch.equal(costs, evaluator.cost(context, candidates))
    assert torch.equal(constraints, evaluator.get_constraints(info, candidates))


def test_a_goal_that_a_solve_encoded_can_be_given_to_the_next():
    model = ToyDynamics()
    solver = CEMSolver(cost=ShootingCostEvaluator(model, GoalMSE()), num_samples=8, topk=2, n_steps=2)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (3, 2)), n_envs=3, config=PlanConfig(3, 1))
    keys = np.zeros((3, 2), int)
    first = solver.solve(observed(3), keys=keys)
    assert first["goal"]["goal_emb"].shape == (3, 1, 6)
    model.encoded.clear()
    second = solver.solve({**observed(3), **first["goal"]}, keys=keys)
    assert model.encoded == [(1, 1, 3, 4, 4)] * 3  # the observations
    assert torch.equal(first["actions"], second["actions"])


def test_costs_written_for_one_row_per_candidate_can_be_used():
    class PerCandidate(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def get_cost(self, info, candidates):
            assert info["state"].shape == (*candidates.shape[:2], 1, 2)
            return self.weight * (info["state"][:, :, 0] + candidates.sum(dim=2)).square().sum(dim=-1)

        def get_constraints(self, info, candidates):
            return info["state"][:, :, 0, :1] - 1.0

    info = {"state": torch.randn(2, 1, 2), "name": ["a", "b"]}
    cost = ExpandedInfo(PerCandidate())
    assert cost.get_constraints(info, torch.zeros(2, 5, 3, 2)).shape == (2, 5, 1)
    solver = CEMSolver(cost=cost, num_samples=64, topk=8, n_steps=10)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 2)), n_envs=2, config=PlanConfig(3, 1))
    assert max(solver.solve(info)["costs"]) < 0.05
