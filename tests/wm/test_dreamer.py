"""Dreamer: its recurrent core, its losses and its behaviour against the formulas of the paper."""

import pytest
import torch
from toy_batches import clips, debug_model

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm import build_model, preset_config
from stable_worldmodel.wm.dreamer import BlockGRU, Dreamer, lambda_returns
from stable_worldmodel.wm.dreamer.networks import BlockLinear
from stable_worldmodel.wm.dreamer.rssm import State
from stable_worldmodel.wm.training import after_step


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def model():
    return debug_model("dreamer", image_size=32)


def reached(loss, module):
    """Names of the parts of a module that a loss reaches."""
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [module.get_parameter(n) for n in names], allow_unused=True, retain_graph=True)
    return {name.split(".")[0] for name, g in zip(names, found, strict=True) if g is not None and g.abs().sum() > 0}


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "millions"), [("1m", 0.7), ("12m", 10.5), ("25m", 23.5), ("50m", 41.6), ("100m", 93.5), ("200m", 165.9)]
)
def test_sizes_are_near_their_names(size, millions):
    with torch.device("meta"):
        model = build_model(preset_config("dreamer", size))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6 == pytest.approx(millions, abs=0.06)


# -- the recurrent core -----------------------------------------------------------------------------------------------


def test_block_linear_is_a_block_diagonal_matrix(rng):
    layer = BlockLinear(6, 4, 2)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(3, 6, generator=rng)
    matrix = torch.block_diag(*layer.weight)  # (6, 4)
    torch.testing.assert_close(layer(x), x @ matrix + layer.bias)


def test_gru_of_one_block_is_the_dense_one(rng):
    gru = BlockGRU(4, 3, blocks=1)
    for parameter in gru.parameters():
        torch.nn.init.normal_(parameter)
    h, x = torch.randn(2, 4, generator=rng), torch.randn(2, 3, generator=rng)
    hidden = torch.cat([h, x], dim=-1) @ gru.hidden.weight[0] + gru.hidden.bias
    hidden = torch.nn.functional.silu(gru.norm(hidden))
    reset, candidate, update = (hidden @ gru.gates.weight[0] + gru.gates.bias).chunk(3, dim=-1)
    u = torch.sigmoid(update - 1)
    expected = u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * h
    torch.testing.assert_close(gru(h, x), expected)


def test_blocks_of_the_memory_do_not_see_each_other(rng):
    gru = BlockGRU(8, 3, blocks=2)
    for parameter in (gru.hidden.weight, gru.gates.weight):
        torch.nn.init.normal_(parameter)
    gru.norm = torch.nn.Identity()  # the norm is shared
    h, x = torch.randn(1, 8, generator=rng), torch.randn(1, 3, generator=rng)
    before = gru(h, x)
    h[:, :4] += torch.randn(4, generator=rng)
    after = gru(h, x)
    torch.testing.assert_close(after[:, 4:], before[:, 4:])
    assert not torch.allclose(after[:, :4], before[:, :4])


def test_states_are_one_hot_with_a_uniform_share(model, rng):
    logits = model.rssm.prior(torch.randn(5, 64, generator=rng))
    p = logits.exp()
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(5, 8))
    assert p.min() >= 0.01 / 4 - 1e-7
    stoch = model.rssm.draw(logits, rng).unflatten(-1, (8, 4))
    torch.testing.assert_close(stoch.detach().round(), stoch.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(stoch.sum(dim=-1), torch.ones(5, 8))


def test_draws_follow_the_probabilities(model, rng):
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(4000, 8, 4)
    mean = model.rssm.draw(logits, rng).unflatten(-1, (8, 4)).mean(dim=(0, 1))
    torch.testing.assert_close(mean, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.02, rtol=0)


def test_an_episode_start_forgets_what_came_before(model, rng):
    tokens, previous = torch.randn(1, 4, model.encoder.width, generator=rng), torch.randn(1, 4, 2, generator=rng)
    first = torch.tensor([[True, False, True, False]])
    whole = model.rssm.observe(tokens, previous, first, sample=False)
    second = model.rssm.observe(tokens[:, 2:], previous[:, 2:], first[:, 2:], sample=False)
    torch.testing.assert_close(whole.deter[:, 2:], second.deter)


def test_large_actions_are_scaled_back(model, rng):
    state = model.rssm.initial(1, torch.zeros(1))
    one, ten = (model.rssm.advance(state, torch.full((1, 2), value)) for value in (1.0, 10.0))
    torch.testing.assert_close(one, ten)


# -- losses -----------------------------------------------------------------------------------------------------------


def test_kl_below_the_free_nats_counts_as_them_and_has_no_gradient(model, rng):
    batch = clips(4, 5)
    states = model.rssm.observe(model.encoder(batch), torch.zeros(4, 5, 2), torch.zeros(4, 5, dtype=torch.bool), rng)
    same = states._replace(logits=model.rssm.prior(states.deter))
    terms, metrics = model._world_losses(batch, same)
    assert metrics["kl"].item() == pytest.approx(0, abs=1e-5)
    assert terms["dynamics"][1].item() == 1.0
    assert reached(terms["dynamics"][1] + terms["representation"][1], model) == set()


def test_the_two_halves_of_the_kl_train_prior_and_posterior(model, rng):
    batch = clips(4, 5)
    model.config.__dict__["free_nats"] = 0.0
    states = model.rssm.observe(model.encoder(batch), torch.zeros(4, 5, 2), torch.zeros(4, 5, dtype=torch.bool), rng)
    terms, _ = model._world_losses(batch, states)
    assert terms["dynamics"][0] == 1.0
    assert terms["representation"][0] == 0.1
    assert "prior_head" in reached(terms["dynamics"][1], model.rssm)
    assert "prior_head" not in reached(terms["representation"][1], model.rssm)
    assert "posterior_head" in reached(terms["representation"][1], model.rssm)


def test_lambda_returns_are_those_computed_by_hand():
    rewards = torch.tensor([9.0, 1.0, 2.0])
    continues = torch.tensor([1.0, 0.5, 1.0])
    values = torch.tensor([9.0, 4.0, 8.0])
    # R_1 = 2 + 1 * 8 = 10; R_0 = 1 + 0.5 * (0.25 * 4 + 0.75 * 10) = 5.25.
    torch.testing.assert_close(lambda_returns(rewards, continues, values, 0.75), torch.tensor([5.25, 10.0]))
    # With another end: R_1 = 2 + (0.25 * 8 + 0.75 * 4) = 7.
    end = lambda_returns(rewards, continues, values, 0.75, torch.tensor(4.0))
    torch.testing.assert_close(end, torch.tensor([1 + 0.5 * (0.25 * 4 + 0.75 * 7), 7.0]))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_lambda_zero_is_one_step_and_lambda_one_the_whole_sum(lam):
    rewards, continues, values = torch.ones(6), torch.full((6,), 0.9), torch.arange(6.0)
    returns = lambda_returns(rewards, continues, values, lam)
    if lam == 0:
        torch.testing.assert_close(returns, 1 + 0.9 * values[1:])
    else:
        assert returns[0].item() == pytest.approx(sum(0.9**i for i in range(5)) + 0.9**5 * 5)


def test_actor_and_critic_do_not_reach_the_world_model(model, rng):
    latents = torch.randn(6, 4, 64 + 32, generator=rng)
    losses, _, returns = model.behaviour(
        latents, torch.randn(6, 3, 2, generator=rng), torch.ones(6, 4), torch.ones(6, 4)
    )
    assert returns.shape == (6, 3)
    assert reached(losses["actor"], model) <= {"behaviour"}
    assert reached(losses["actor"], model.behaviour) == {"actor"}
    assert reached(losses["critic"], model.behaviour) == {"critic"}


def test_imagined_latents_carry_no_gradient(model, rng):
    state = State(*(part.unflatten(0, (3, 2)) for part in model.rssm.initial(6, torch.zeros(1))))
    with torch.no_grad():
        latents, actions = model._imagine(state, rng)
    assert latents.shape == (6, 1 + 3, 96)
    assert actions.shape == (6, 3, 2)
    assert not latents.requires_grad


def test_critic_and_slow_critic_start_at_zero_and_the_slow_one_follows(model):
    critic, slow = model.behaviour.critic, model.behaviour.slow_critic
    latent = torch.randn(2, 96)
    assert model.behaviour.twohot.decode(critic(latent)).abs().max() < 1e-6
    with torch.no_grad():
        critic[-1].bias.add_(1.0)
    after_step(model)
    torch.testing.assert_close(slow[-1].bias, torch.full_like(slow[-1].bias, 0.02))


def test_better_actions_become_more_likely(rng):
    model = debug_model("dreamer", image_size=32, entropy_weight=0.0)
    actor, latents = model.behaviour.actor, torch.randn(256, 2, 96, generator=rng)
    optimizer = torch.optim.Adam(actor.parameters(), 3e-3)
    for _ in range(100):
        actions = actor.sample(latents[:, :-1], rng)
        rewards = torch.cat([torch.zeros(256, 1), 1 - (actions[..., 0] - 0.5).square()], dim=1)
        losses, _, _ = model.behaviour(latents, actions.detach(), rewards, torch.ones(256, 2))
        optimizer.zero_grad()
        losses["actor"].backward()
        optimizer.step()
    assert actor.mode(latents)[..., 0].mean().item() == pytest.approx(0.5, abs=0.2)


def test_discrete_actions_are_one_hot(rng):
    model = debug_model("dreamer", image_size=32, discrete=True)
    latent = torch.randn(50, 96, generator=rng)
    action = model.behaviour.actor.sample(latent, rng)
    assert (action.sum(dim=-1) == 1).all()
    log_p, entropy = model.behaviour.actor.log_prob_entropy(latent, action)
    assert log_p.max() <= 0
    assert (entropy <= torch.log(torch.tensor(2.0)) + 1e-6).all()


def test_terminated_clips_and_vectors_are_learned(rng):
    model = debug_model("dreamer", image_size=32, inputs={"proprio": 2})
    batch = clips(4, 5)
    batch["terminated"] = torch.zeros(4, 5, dtype=torch.bool)
    batch["terminated"][:, -1] = True
    loss, metrics = model(batch, rng)
    assert torch.isfinite(loss)
    assert metrics["vector"] > 0


# -- without rewards --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_models_of_data_without_rewards_plan_towards_a_goal(rng):
    model = debug_model("dreamer", image_size=32, behaviour=False).eval()
    batch = clips(2, 5)
    del batch["reward"]
    loss, metrics = model(batch, rng)
    assert torch.isfinite(loss)
    assert metrics.keys().isdisjoint({"reward", "actor", "critic"})
    info = {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}
    assert model.get_cost(info, torch.zeros(2, 3, 4, 2)).shape == (2, 3)
    with pytest.raises(ContractError, match="no actor"):
        model.get_action(info)


# -- planning ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_context_frames_are_filtered_through_the_posterior(model, rng):
    model.eval()
    batch = clips(2, 3)
    info = {"pixels": batch["pixels"], "action_history": batch["action"][:, :2]}
    candidates = torch.rand(2, 3, 4, 2, generator=rng)
    rolled = model.rollout(info, candidates)["predicted_emb"]
    encoded = model.encode({"pixels": batch["pixels"], "action": batch["action"]})["emb"]
    assert rolled.shape == (2, 3, 7, encoded.shape[-1])
    torch.testing.assert_close(rolled[:, 0, :3], encoded)
    other = model.rollout({**info, "action_history": -info["action_history"]}, candidates)["predicted_emb"]
    assert not torch.allclose(other[:, :, 2], rolled[:, :, 2], atol=1e-6)


@torch.no_grad()
def test_rollouts_from_latents_equal_those_from_images(model, rng):
    model.eval()
    info, candidates = {"pixels": clips(2, 1)["pixels"]}, torch.rand(2, 3, 4, 2, generator=rng)
    expected = model.rollout(info, candidates)["predicted_emb"]
    from_latents = model.rollout({"emb": model.encode(info)["emb"]}, candidates)["predicted_emb"]
    torch.testing.assert_close(from_latents, expected)


@torch.no_grad()
def test_latents_decode_to_images(model):
    emb = model.eval().encode({"pixels": clips(2, 3)["pixels"]})["emb"]
    images = model.decode(emb)
    assert images.shape == (2, 3, 3, 32, 32)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_history_of_the_wrong_length_is_refused(model):
    with pytest.raises(ContractError, match="2 context frames: expected 1"):
        model.get_cost({"pixels": clips(2, 2)["pixels"]}, torch.zeros(2, 1, 1, 2))


def test_dreamer_is_registered_under_its_name(model):
    assert isinstance(model, Dreamer)
