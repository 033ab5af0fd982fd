"""Planners and policies of this library take these models."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from toy_batches import batch_for, clips, debug_model

from stable_worldmodel.planning import (
    CEMSolver,
    GoalMSE,
    MPPISolver,
    ShootingCostEvaluator,
    WeightedSum,
    goal_objective,
)
from stable_worldmodel.policy import FeedForwardPolicy, PlanConfig

LATENT = ["dreamer", "dummy", "lewm", "pldm", "tdmpc2"]


def observation(name):
    batch = batch_for(name, 2)
    return {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}


@pytest.mark.parametrize("name", LATENT)
@torch.no_grad()
def test_goal_costs_are_distances_of_the_last_latent(name):
    model, info, candidates = debug_model(name).eval(), observation(name), torch.rand(2, 3, 4, 2)
    cost = ShootingCostEvaluator(model, GoalMSE()).get_cost(info, candidates)
    end = model.rollout({"pixels": info["pixels"]}, candidates)["predicted_emb"][:, :, -1]
    goal = model.encode({"pixels": info["goal"]})["emb"]
    torch.testing.assert_close(cost, (end - goal).square().sum(dim=-1))


@pytest.mark.parametrize("proprio", [False, True])
@torch.no_grad()
def test_patch_models_are_compared_part_by_part(proprio):
    inputs = {"proprio": 2} if proprio else {}
    model, batch, candidates = debug_model("prejepa", inputs=inputs).eval(), clips(2), torch.rand(2, 3, 4, 2)
    info = {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}
    terms = [(1.0, GoalMSE("predicted_pixels_emb", "pixels_goal_emb", "mean"))]
    if proprio:
        info |= {"proprio": batch["proprio"][:, :1], "goal_proprio": batch["goal_proprio"]}
        terms.append((0.5, GoalMSE("predicted_proprio_emb", "proprio_goal_emb", "mean")))
    cost = ShootingCostEvaluator(model, WeightedSum(terms)).get_cost(info, candidates)
    rolled = model.rollout({name: info[name] for name in ("pixels", *inputs)}, candidates)
    goal = model.encode({"pixels": info["goal"], **({"proprio": info["goal_proprio"]} if proprio else {})})
    expected = (rolled["predicted_pixels_emb"][:, :, -1] - goal["pixels_emb"]).square().mean(dim=(2, 3))
    if proprio:
        expected += 0.5 * (rolled["predicted_proprio_emb"][:, :, -1] - goal["proprio_emb"]).square().mean(dim=2)
    torch.testing.assert_close(cost, expected)


def test_a_dreamer_without_an_actor_is_planned_with():
    model = debug_model("dreamer", behaviour=False).eval()
    assert debug_model("dreamer").has_actor
    assert not model.has_actor
    solver = CEMSolver(model, num_samples=8, topk=4, n_steps=2)
    solver.configure(action_space=Pool.action_space, n_envs=3, config=PlanConfig(4, 1))
    info = {key: value.numpy() for key, value in observation("dreamer").items()}
    assert solver.solve(info)["actions"].shape == (2, 4, 2)


@torch.no_grad()
def test_the_actor_of_tdmpc2_proposes_sequences_for_its_planner():
    model, info = debug_model("tdmpc2").eval(), observation("tdmpc2")
    still = model.propose(info, torch.zeros(2, 1, 4, 2))
    torch.testing.assert_close(still[:, 0], model.get_action(info, horizon=4))
    drawn = model.propose(info, torch.randn(2, 5, 4, 2))
    assert drawn.shape == (2, 5, 4, 2)
    assert (drawn.abs() <= 1).all()
    assert drawn.std(dim=1).min() > 1e-3
    solver = MPPISolver.tdmpc2(model, num_samples=32, topk=8)
    solver.configure(action_space=Pool.action_space, n_envs=3, config=PlanConfig(4, 1))
    result = solver.solve({key: value.numpy() for key, value in info.items()})
    assert solver.num_proposals == 24
    assert result["actions"].shape == (2, 4, 2)
    assert np.isfinite(result["costs"]).all()


@pytest.mark.parametrize("name", ["lewm", "prejepa"])
@torch.no_grad()
def test_the_goal_objective_suits_models_of_one_and_of_several_latents(name):
    inputs = {"inputs": {"proprio": 2}} if name == "prejepa" else {}
    model, batch, candidates = debug_model(name, **inputs).eval(), batch_for(name, 2), torch.rand(2, 3, 4, 2)
    info = {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}
    info |= {"proprio": batch["proprio"][:, :1], "goal_proprio": batch["goal_proprio"]} if inputs else {}
    objective = goal_objective(model)
    own = GoalMSE()
    if name == "prejepa":
        terms = [("predicted_pixels_emb", "pixels_goal_emb"), ("predicted_proprio_emb", "proprio_goal_emb")]
        own = WeightedSum([(1.0, GoalMSE(*keys, "mean")) for keys in terms])
    cost, expected = (ShootingCostEvaluator(model, each).get_cost(info, candidates) for each in (objective, own))
    assert torch.equal(cost, expected)


class Pool:
    """As much of a pool as a policy reads."""

    num_envs = 3
    single_action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (3, 2), np.float32)


@pytest.mark.parametrize("name", ["dreamer", "gcbc", "gciql", "gcivl", "hilp", "tdmpc2"])
def test_policies_act_in_every_env(name):
    size = batch_for(name, 1)["pixels"].shape[-1]
    policy = FeedForwardPolicy(debug_model(name))
    policy.set_env(Pool())
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 1, size, size, 3), dtype=np.uint8)
    actions = policy.get_action({"pixels": images[0], "goal": images[1]})
    assert actions.shape == (3, 2)
    assert np.isfinite(actions).all()
    assert (np.abs(actions) <= 1).all()
