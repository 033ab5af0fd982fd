"""What is not computed twice gives the same numbers."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch

from stable_worldmodel.planning import CEMSolver, GoalMSE, PathMSE, ShootingCostEvaluator
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.wm.blocks import ActionEmbedder
from stable_worldmodel.wm.lewm import LeWM, LeWMConfig


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = LeWM(LeWMConfig.preset("tiny", action_dim=4)).eval()
    for parameter in model.predictor.modulate.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # it starts at zero, where actions have no effect
    return model


def seen(model, n=2, frames=1):
    size = model.config.image_size
    draw = np.random.default_rng(0)
    info = {
        key: torch.from_numpy(draw.integers(0, 256, (n, frames, 3, size, size), np.uint8)) for key in ("pixels", "goal")
    }
    info["goal"] = info["goal"][:, -1:]
    if frames > 1:
        info["action_history"] = torch.from_numpy(draw.normal(size=(n, frames - 1, 4)).astype(np.float32))
    return info


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_rollout_with_kept_keys_and_values_is_one_without(model, frames):
    """Every prediction equals that of the whole window, computed from the latents before it."""
    info, candidates = seen(model, frames=frames), torch.randn(2, 5, 4, 4)
    latents = model.rollout(info, candidates)["predicted_emb"]  # (n, S, L + H, D)
    history = info.get("action_history", torch.zeros(2, 0, 4))[:, None].expand(-1, 5, -1, -1)
    act_emb = model.embed_actions(torch.cat([history, candidates], dim=2).flatten(0, 1))
    flat, window = latents.flatten(0, 1), model.config.window
    for t in range(frames, frames + 4):
        start = max(0, t - window)
        expected = model.predict(flat[:, start:t], act_emb[:, start:t])[:, -1]
        torch.testing.assert_close(flat[:, t], expected, rtol=1e-4, atol=1e-5)
    assert (latents[:, 0, -1] - latents[:, 1, -1]).norm() > 1e-3  # the actions matter


@torch.no_grad()
def test_the_last_prediction_alone_is_the_last_of_all(model):
    info, candidates = seen(model), torch.randn(2, 5, 4, 4)
    context = ShootingCostEvaluator(model, GoalMSE()).prepare(info)
    whole = model.rollout(context, candidates)["predicted_emb"]
    last = model.rollout(context, candidates, last_only=True)["predicted_emb"]
    assert torch.equal(last, whole[:, :, -1:])


@torch.no_grad()
def test_a_prepared_context_gives_the_costs_of_the_raw_info(model):
    info, candidates = seen(model), torch.randn(2, 5, 4, 4)
    for objective in (GoalMSE(), PathMSE()):
        evaluator = ShootingCostEvaluator(model, objective)
        assert torch.equal(evaluator.cost(evaluator.prepare(info), candidates), evaluator.get_cost(info, candidates))


def test_a_plan_with_a_network_is_the_same_to_the_last_bit_in_every_batch(model):
    solver = CEMSolver(cost=ShootingCostEvaluator(model, GoalMSE()), num_samples=16, topk=4, n_steps=3)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (4, 2)), n_envs=4, config=PlanConfig(4, 1, action_block=2))
    info, keys = seen(model, n=4), np.arange(8).reshape(4, 2)
    together = solver.solve(info, keys=keys)["actions"]
    for rows in ([2], [3, 0], [1, 3, 2]):
        part = solver.solve({key: value[rows] for key, value in info.items()}, keys=keys[rows])["actions"]
        assert torch.equal(part, together[rows])


@torch.no_grad()
def test_a_model_may_compute_in_bfloat16_and_costs_stay_float32(model):
    info, candidates = seen(model), torch.randn(2, 5, 4, 4)
    exact = ShootingCostEvaluator(model, GoalMSE())
    low = ShootingCostEvaluator(model, GoalMSE(), autocast=torch.bfloat16)
    context = low.prepare(info)
    costs = low.cost(context, candidates)
    assert context["emb"].dtype == torch.bfloat16
    assert costs.dtype == torch.float32
    expected = exact.get_cost(info, candidates)
    torch.testing.assert_close(costs, expected, rtol=0.1, atol=0.05 * expected.max().item())
    assert not torch.equal(costs, expected)


@torch.no_grad()
def test_a_model_with_bfloat16_weights_gives_float32_costs_and_plans(model):
    info, candidates = seen(model), torch.randn(2, 5, 4, 4)
    expected = ShootingCostEvaluator(model, GoalMSE()).get_cost(info, candidates)
    low = ShootingCostEvaluator(copy.deepcopy(model).bfloat16(), GoalMSE())
    context = low.prepare(info)
    assert context["emb"].dtype == torch.bfloat16
    costs = low.cost(context, candidates.bfloat16())
    assert costs.dtype == torch.float32
    torch.testing.assert_close(costs, expected, rtol=0.1, atol=0.05 * expected.max().item())
    solver = CEMSolver(cost=low, num_samples=16, topk=4, n_steps=3)
    solver.configure(action_space=gym.spaces.Box(-1, 1, (2, 2)), n_envs=2, config=PlanConfig(4, 1, action_block=2))
    result = solver.solve(info)
    assert result["actions"].dtype == torch.float32
    assert np.isfinite(result["costs"]).all()


@torch.no_grad()
def test_actions_are_embedded_in_float32_whatever_the_weights():
    torch.manual_seed(0)
    embedder = ActionEmbedder(2, 16).bfloat16()
    near = torch.tensor([[[1.0, 1.0]], [[1.0 + 2**-10, 1.0]]])  # the same in bfloat16
    assert embedder(near).dtype == torch.bfloat16
    exact = copy.deepcopy(embedder).float()
    torch.testing.assert_close(embedder(near), exact(near).bfloat16(), rtol=0, atol=0)
