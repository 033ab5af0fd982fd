"""TD-MPC2: targets that move, losses that reach only what they should, and costs that equal their formula."""

import pytest
import torch
from toy_batches import clips, debug_model

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.wm import build_model, preset_config
from stable_worldmodel.wm.mlp import EnsembleMLP, SimNorm, frozen, random_shift
from stable_worldmodel.wm.tdmpc import TDMPC
from stable_worldmodel.wm.tdmpc2 import TDMPC2, TDMPC2Config
from stable_worldmodel.wm.tdmpc2.config import episode_discount
from stable_worldmodel.wm.training import after_step, optimizer_groups


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def vector_model(**overrides):
    """A model of `proprio` alone, with networks that are not zero."""
    model = debug_model("tdmpc2", images=[], inputs={"proprio": 2}, **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def model():
    return vector_model()


def gradients(loss, model):
    """Names of parameters that a loss reaches with something else than zero."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [model.get_parameter(n) for n in names], allow_unused=True, retain_graph=True)
    return {name.split(".")[0] for name, g in zip(names, found, strict=True) if g is not None and g.abs().sum() > 0}


# -- parts ------------------------------------------------------------------------------------------------------------


def test_early_name_is_the_same_class():
    assert TDMPC is TDMPC2


def test_simnorm_groups_are_points_of_a_simplex(rng):
    x = SimNorm(8)(torch.randn(3, 32, generator=rng)).unflatten(-1, (4, 8))
    torch.testing.assert_close(x.sum(dim=-1), torch.ones(3, 4))
    assert (x > 0).all()


def test_an_ensemble_is_its_members_side_by_side(rng):
    ensemble, x = EnsembleMLP(3, [4, 8, 8, 2]), torch.randn(5, 4, generator=rng)
    whole = ensemble(x)
    for i in range(3):
        y = x
        for layer in ensemble:
            weights = {name: p[i] for name, p in layer.named_parameters()}
            if weights and weights["weight"].ndim == 2 and weights["weight"].shape[0] > 1:
                y = y @ weights["weight"] + weights["bias"]
            elif weights:
                y = torch.nn.functional.layer_norm(y, y.shape[-1:]) * weights["weight"] + weights["bias"]
            else:
                y = layer(y)
        torch.testing.assert_close(whole[i], y)


def test_frozen_calls_pass_gradients_to_their_input_only(rng):
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3, generator=rng, requires_grad=True)
    frozen(layer, x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


def test_shifted_images_keep_their_content(rng):
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    assert torch.equal(random_shift(images, 0, rng), images)
    shifted = random_shift(images, 2, rng)
    assert shifted.shape == images.shape
    # The middle of each image is there, moved by the same offset in all channels.
    for before, after in zip(images, shifted, strict=True):
        offsets = [
            (i, j)
            for i in range(-2, 3)
            for j in range(-2, 3)
            if torch.equal(after[:, 3:5, 3:5], before[:, 3 + i : 5 + i, 3 + j : 5 + j])
        ]
        assert len(offsets) == 1


@pytest.mark.parametrize(("steps", "discount"), [(10, 0.95), (500, 0.99), (10_000, 0.995)])
def test_discount_follows_the_episode_length(steps, discount):
    assert episode_discount(steps) == pytest.approx(discount)


def test_official_size_is_five_million():
    with torch.device("meta"):
        model = build_model(TDMPC2Config(images=[], inputs={"observation": 24}, action_dim=6))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == 4_960_618


# -- losses -----------------------------------------------------------------------------------------------------------


def test_targets_follow_the_critic_after_a_step_and_only_then(model):
    batch, before = clips(), [p.clone() for p in model.target_critic.parameters()]
    with torch.no_grad():
        for parameter in model.critic.parameters():
            parameter.add_(1.0)
    model(batch)[0].backward()
    assert all(torch.equal(p, b) for p, b in zip(model.target_critic.parameters(), before, strict=True))
    after_step(model)
    for target, source, b in zip(model.target_critic.parameters(), model.critic.parameters(), before, strict=True):
        torch.testing.assert_close(target, 0.99 * b + 0.01 * source)


def test_targets_have_no_dropout(model):
    model.train()
    assert model.critic.training
    assert not model.target_critic.training


def test_the_actor_loss_reaches_the_actor_alone(model, rng):
    z = model.encoder(clips())
    loss, _ = model._actor_loss(z.detach(), rng)
    assert gradients(loss, model) == {"actor"}


def test_no_other_loss_reaches_the_actor(model, rng):
    loss, metrics = model(clips(), rng)
    reached = gradients(loss, model)
    assert reached == {"encoder", "dynamics", "reward", "critic", "actor"}
    for name in ("consistency", "reward", "value"):
        assert not metrics[name].requires_grad


def test_values_regress_on_reward_and_the_smaller_of_two_targets(model, rng):
    z, rewards, ended = torch.randn(4, 3, 32, generator=rng), torch.ones(4, 3), torch.zeros(4, 3)
    going_on = model._td_target(z, rewards, ended, torch.Generator().manual_seed(1))
    action, _ = model._sampled_action(z, torch.Generator().manual_seed(1))
    logits = model.target_critic(torch.cat([z, action], dim=-1).flatten(0, 1)).unflatten(1, (4, 3))
    values = model.twohot.decode(logits)  # (5, 4, 3)
    implied = (going_on - 1) / model.config.discount
    assert ((implied >= values.amin(dim=0) - 1e-5) & (implied <= values.amax(dim=0) + 1e-5)).all()
    over = model._td_target(z, rewards, torch.ones(4, 3), torch.Generator().manual_seed(1))
    torch.testing.assert_close(over, rewards)


def test_cloning_pulls_the_actor_to_the_data(rng):
    model, batch = vector_model(bc_weight=5.0), clips()
    groups = optimizer_groups(model)
    optimizer = torch.optim.Adam([{"params": group["params"]} for group in groups], lr=5e-3)
    wanted = torch.full((8, 4, 2), 0.7)
    for _ in range(60):
        optimizer.zero_grad()
        model({**batch, "action": wanted}, rng)[0].backward()
        optimizer.step()
    action = model.eval().get_action({"proprio": batch["proprio"][:, :1]})
    torch.testing.assert_close(action, torch.full_like(action, 0.7), atol=0.15, rtol=0)


def test_cloning_shapes_the_latents_with_its_weight_alone(rng):
    weights = dict.fromkeys(("consistency_weight", "reward_weight", "value_weight"), 0.0)
    encoders = []
    for bc_weight in (0.0, 1.0):
        model = vector_model(bc_weight=bc_weight, **weights)
        loss, metrics = model(clips(), rng)
        loss.backward()
        assert ("cloning" in metrics) == bool(bc_weight)
        encoders.append(any(p.grad is not None and p.grad.any() for p in model.encoder.parameters()))
    assert encoders == [False, True]


def test_termination_is_learned_when_asked_for(rng):
    model, batch = vector_model(episodic=True), clips()
    batch["terminated"] = torch.zeros(8, 4, dtype=torch.bool)
    batch["terminated"][:, -1] = True
    _, metrics = model(batch, rng)
    assert metrics["terminal"] > 0
    assert model.get_cost({"proprio": batch["proprio"][:, :1]}, torch.zeros(8, 2, 3, 2)).shape == (8, 2)


def test_actions_outside_the_unit_box_are_refused(model):
    batch = clips()
    batch["action"] = 3 * batch["action"]
    with pytest.raises(ContractError, match=r"outside \[-1, 1\]"):
        model(batch)


def test_data_without_rewards_is_refused(model):
    with pytest.raises(MissingKeyError, match="reward"):
        model({name: value for name, value in clips().items() if name != "reward"})


def test_groups_have_the_official_rates(model):
    groups = {group["name"]: group for group in optimizer_groups(model)}
    assert groups[r"encoder\."]["lr_scale"] == 0.3
    assert groups[r"actor\."]["eps"] == 1e-5


@pytest.mark.parametrize("wrong", [{"latent_dim": 30}, {"critics": 1}, {"images": []}, {"image_size": 16}])
def test_configs_that_cannot_work_are_refused(wrong):
    with pytest.raises(ContractError):
        preset_config("tdmpc2", "debug", **wrong)


# -- planning ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_cost_is_minus_the_discounted_return(rng):
    model = vector_model(uncertainty_weight=0.5).eval()
    info, candidates = {"proprio": clips(2)["proprio"][:, :1]}, torch.rand(2, 3, 4, 2, generator=rng) * 2 - 1
    z = model.encode(info)["emb"].expand(-1, 3, -1).flatten(0, 1)
    total, c = torch.zeros(6), model.config
    for t, action in enumerate(candidates.flatten(0, 1).unbind(1)):
        joint = torch.cat([z, action], dim=-1)
        total += c.discount**t * model.twohot.decode(model.reward(joint))
        z = model.dynamics(joint)
    action = model.actor(z).chunk(2, dim=-1)[0].tanh()
    values = model.twohot.decode(model.target_critic(torch.cat([z, action], dim=-1)))  # (5, 6)
    mean = values.mean(dim=0)
    total += c.discount**4 * (mean - 0.5 * mean.abs() * values.std(dim=0))
    torch.testing.assert_close(model.get_cost(info, candidates), -total.unflatten(0, (2, 3)), atol=1e-4, rtol=1e-4)


def test_only_the_present_may_be_seen(model):
    with pytest.raises(ContractError, match="history_len=1"):
        model.get_cost({"proprio": clips(2)["proprio"][:, :2]}, torch.zeros(2, 3, 4, 2))


def test_several_columns_are_joined_and_goals_count_for_all_frames():
    model = debug_model("tdmpc2", inputs={"proprio": 2, "goal_proprio": 2})
    batch = clips(size=48)
    assert model.encode(batch)["emb"].shape == (8, 4, 3 * 32)
    assert torch.isfinite(model(batch)[0])


# -- goals ------------------------------------------------------------------------------------------------------------


def test_steps_cost_one_until_the_goal_where_the_episode_ends():
    model = vector_model(goals=True)
    batch = {"goal_step": torch.tensor([1, 3, -1, 0])}
    rewards, over = model._outcomes(batch, torch.zeros(4, 3, 2))
    assert rewards.tolist() == [[0, -1, -1], [-1, -1, 0], [-1, -1, -1], [-1, -1, -1]]
    assert over.tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_with_goals_recorded_rewards_are_not_read(rng):
    model = debug_model("tdmpc2", inputs={"proprio": 2}, goals=True)
    batch = {name: value for name, value in clips(size=48).items() if name != "reward"}
    goal = {"goal_pixels": batch["pixels"][:, -1:], "goal_proprio": batch["proprio"][:, -1:]}
    step = torch.full((8,), 3)
    loss, _ = model({**batch, **goal, "goal_step": step}, rng)
    assert gradients(loss, model) == {"encoder", "dynamics", "reward", "critic", "actor"}
    assert model.config.reads().goals is not None
    assert "reward" not in model.config.reads().columns
    without = {name: value for name, value in batch.items() if not name.startswith("goal")}
    with pytest.raises(MissingKeyError, match="goal_pixels"):
        model({**without, "goal_step": step}, rng)


def test_a_plan_costs_what_its_goal_says():
    model = debug_model("tdmpc2", goals=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    pixels, plans = clips(2, size=48)["pixels"], torch.zeros(2, 3, 4, 2)
    here = {"pixels": pixels[:, :1], "goal": pixels[:, :1]}  # as envs call the goal image
    there = {"pixels": pixels[:, :1], "goal_pixels": pixels[:, -1:]}
    assert not torch.equal(model.get_cost(here, plans), model.get_cost(there, plans))
    torch.testing.assert_close(
        model.get_cost({**here, "goal": pixels[:, -1:]}, plans), model.get_cost(there, plans), rtol=0, atol=0
    )
