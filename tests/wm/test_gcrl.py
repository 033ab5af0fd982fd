"""Goal-conditioned policies: what they may see, what their values mean, and that they find the goal's action."""

import pytest
import torch
from toy_batches import clips, debug_model, draw

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.wm import build_model, preset_config
from stable_worldmodel.wm.gcrl import MetricValuePredictor
from stable_worldmodel.wm.gcrl.networks import Trunk, TrunkSizes
from stable_worldmodel.wm.gcrl.skills import random_skills
from stable_worldmodel.wm.loss import expectile_loss
from stable_worldmodel.wm.training import after_step, optimizer_groups

SIZES = TrunkSizes(window=3, patches=4, width=16, depth=4, heads=2, head_dim=8, mlp_width=32)
VALUES = ["gcivl", "gciql", "hilp"]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


# -- the transformer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["query", "mean"])
@pytest.mark.parametrize("changed", [1, 2])
def test_a_frame_changes_nothing_of_what_came_before(pool, changed, rng):
    torch.manual_seed(0)
    trunk, frames, goal = Trunk(SIZES, pool=pool), torch.randn(2, 3, 4, 16, generator=rng), torch.randn(2, 4, 16)
    before = trunk(frames, goal)
    frames[:, changed, 1] = torch.randn(16, generator=rng)
    after = trunk(frames, goal)
    torch.testing.assert_close(after[:, :changed], before[:, :changed])
    assert not torch.isclose(after[:, changed:], before[:, changed:]).all(dim=-1).any()


def test_the_goal_changes_every_frame(rng):
    trunk, frames, goal = Trunk(SIZES), torch.randn(2, 3, 4, 16, generator=rng), torch.randn(2, 4, 16, generator=rng)
    before = trunk(frames, goal)
    goal[:, 0] = torch.randn(16, generator=rng)
    assert not torch.isclose(trunk(frames, goal), before).all(dim=-1).any()


def test_longer_histories_are_refused():
    with pytest.raises(ContractError, match="window=3"):
        Trunk(SIZES)(torch.zeros(1, 4, 4, 16), torch.zeros(1, 4, 16))


def test_metric_values_are_distances(rng):
    value, frames = MetricValuePredictor(SIZES, metric_dim=8, critics=2), torch.randn(3, 1, 4, 16, generator=rng)
    goal = torch.randn(3, 4, 16, generator=rng)
    v = value(frames, goal)
    assert v.shape == (3, 1, 2)
    assert (v < 0).all()
    # Of a frame from itself it is 0, and the way back is as long; the frame stands at the first position both times.
    assert value(frames, frames[:, 0]).abs().max() <= 1e-3 + 1e-6
    torch.testing.assert_close(value(goal[:, None], frames[:, 0]), v)


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gcbc", *VALUES])
def test_every_trainable_parameter_has_a_group(name):
    model = debug_model(name)
    grouped = sum(len(group["params"]) for group in optimizer_groups(model))
    assert grouped == sum(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", VALUES)
def test_the_deviation_of_the_actions_is_learned(name):
    model = debug_model(name)
    model(clips())[0].backward()
    assert model.log_std.grad is not None
    assert model.log_std.grad.abs().sum() > 0


@pytest.mark.parametrize("name", VALUES)
def test_targets_move_after_a_step(name):
    model = debug_model(name)
    with torch.no_grad():
        next(model.value.parameters()).add_(1.0)
    before = next(model.target_value.parameters()).clone()
    after_step(model)
    torch.testing.assert_close(next(model.target_value.parameters()), before + 0.005)
    assert not any(p.requires_grad for p in model.target_value.parameters())


@pytest.mark.parametrize("name", VALUES)
def test_the_actor_loss_shapes_the_backbone_but_not_the_value(name):
    model = debug_model(name)
    batch = clips()
    frames, actions = model._tokens(batch), batch["action"][:, :-1]
    terms, _ = model.losses(batch, frames, actions)

    def reached(part):
        weights = [p for p in part.parameters() if p.requires_grad]
        return [g is not None for g in torch.autograd.grad(terms["actor"][1], weights, None, True, allow_unused=True)]

    assert not any(reached(model.value))
    assert any(reached(model.backbone))


@torch.no_grad()
def test_the_target_is_one_step_of_the_bellman_equation():
    model = debug_model("gcivl")
    reached, value = torch.tensor([[0.0, 1.0]]), torch.tensor([[-10.0, -10.0]])
    torch.testing.assert_close(model._target(reached, value), torch.tensor([[-1 - 9.9, 0.0]]))


def test_the_goal_is_reached_at_its_index():
    model = debug_model("gcivl")
    reached = model._reached({"goal_step": torch.tensor([0, 2, 3, -1])}, 3)
    assert reached.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_value_loss_is_the_expectile_of_the_smallest_target():
    model = debug_model("gcivl")
    batch = clips()
    frames = model._tokens(batch)
    now, later, goal = frames[:, :-1], frames[:, 1:], model._goal(batch)
    reached = model._reached(batch, 3)
    terms, _ = model.value_losses(now, later, goal, batch["action"][:, :-1], reached)
    target = (reached - 1) + 0.99 * (1 - reached) * model.target_value(later, goal).amin(dim=-1)
    expected = expectile_loss(target[..., None], model.value(now, goal), 0.9).mean()
    torch.testing.assert_close(terms["value"][1], expected)


@pytest.mark.parametrize("preset", ["debug", "small"])
@pytest.mark.parametrize(("name", "more"), [("gciql", {}), ("hilp", {"skills": True})])
def test_no_action_has_an_advantage_before_values_are_learned(name, preset, more):
    model = build_model(preset_config(name, preset, action_dim=2, **more))
    metrics = model(clips(size=model.config.image_size))[1]
    assert (metrics["advantage"], metrics["weight"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcivl", "hilp"])
def test_values_count_the_steps_to_the_goal(name):
    # With an expectile of 1/2 and one way to the goal: V = -(1 + 0.9 + ...), a reward of -1 per step.
    model = debug_model(name, discount=0.9, expectile=0.5, target_rate=0.1, window=1)
    path = clips(4, 6)
    batch = {key: path[key].unfold(1, 2, 1).movedim(-1, 2).flatten(0, 1) for key in ("pixels", "action")}
    batch["goal_pixels"] = path["pixels"][:, 3:4].repeat_interleave(5, dim=0)
    batch["goal_step"] = torch.tensor([3, 2, 1, 0, -1]).repeat(4)
    batch = {key: value.unflatten(0, (4, 5))[:, :4].flatten(0, 1) for key, value in batch.items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        model(batch)[0].backward()
        optimizer.step()
        after_step(model)
    with torch.no_grad():
        values = model.value(model._tokens(batch)[:, :1], model._goal(batch)).mean(dim=(1, 2)).view(4, 4)
    expected = torch.tensor([-(1 + 0.9 + 0.81), -1.9, -1.0, 0.0])
    torch.testing.assert_close(values.mean(dim=0), expected, atol=0.4, rtol=0)


def test_actors_may_have_goals_of_their_own():
    model, batch = debug_model("gcivl"), clips()
    same = model(batch)[1]
    batch["actor_goal_pixels"] = batch["pixels"][:, :1]
    other = model(batch)[1]
    torch.testing.assert_close(other["value"], same["value"])
    assert not torch.allclose(other["actor"], same["actor"])


@pytest.mark.parametrize("policy", ["mse", "gaussian"])
def test_cloning_counts_only_the_actions_that_follow(policy):
    model = debug_model("gcbc", chunk=3, policy=policy)
    batch = clips()
    frames, goal, actions = model._tokens(batch)[:, :-1], model._goal(batch), batch["action"][:, :-1]
    loss = model._cloning(frames, goal, actions)  # (8, 3)
    if policy == "mse":
        predicted = model._chunk(frames, goal)  # (8, 3, 3, 2)
        first = (predicted[:, 0] - actions).square().mean(dim=(1, 2))
        last = (predicted[:, 2, 0] - actions[:, 2]).square().mean(dim=1)
        torch.testing.assert_close(loss[:, 0], first)
        torch.testing.assert_close(loss[:, 2], last)
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize("name", VALUES)
def test_values_need_to_know_where_the_goal_is(name):
    batch = clips()
    del batch["goal_step"]
    with pytest.raises(MissingKeyError, match="goal_step"):
        debug_model(name)(batch)


def test_clips_without_goals_are_refused():
    batch = {name: value for name, value in clips().items() if not name.startswith("goal")}
    with pytest.raises(MissingKeyError, match="GoalDataset"):
        debug_model("gcbc")(batch)


@pytest.mark.parametrize("frames", [1, 5])
def test_clips_of_other_lengths_are_refused(frames):
    with pytest.raises(ContractError, match=r"expected 2 to window \+ 1 = 4"):
        debug_model("gcbc")(clips(2, frames))


# -- acting -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_chunks_are_returned_up_to_the_horizon():
    model, batch = debug_model("gcbc", chunk=3).eval(), clips(2)
    info = {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}
    chunk = model.get_action(info, horizon=3)
    assert chunk.shape == (2, 3, 2)
    torch.testing.assert_close(model.get_action(info), chunk[:, 0])
    with pytest.raises(ContractError, match="chunk=3"):
        model.get_action(info, horizon=4)
    with pytest.raises(ContractError, match="prefix_actions"):
        model.get_action(info, prefix_actions=torch.zeros(2, 1, 2))


@torch.no_grad()
def test_long_histories_count_by_their_newest_frames():
    model, batch = debug_model("gcbc").eval(), clips(2, 6)
    info = {"pixels": batch["pixels"], "goal": batch["goal_pixels"]}
    recent = {**info, "pixels": batch["pixels"][:, -3:]}
    torch.testing.assert_close(model.get_action(info), model.get_action(recent))


@torch.no_grad()
def test_hilp_embeds_states():
    model = debug_model("hilp", metric_dim=8).eval()
    assert model.embed({"pixels": clips(2, 3)["pixels"]})["phi"].shape == (2, 3, 8)


# -- skills -----------------------------------------------------------------------------------------------------------


def test_skills_are_unit_vectors_of_the_generator(rng):
    skills = random_skills(50, 8, torch.zeros(1), rng)
    torch.testing.assert_close(skills.norm(dim=1), torch.ones(50))
    again = random_skills(50, 8, torch.zeros(1), torch.Generator().manual_seed(0))
    assert torch.equal(skills, again)


def test_a_skill_is_worth_the_progress_along_it(rng):
    model = debug_model("hilp", skills=True, metric_dim=8)
    tokens = model._tokens(clips())
    now, later = tokens[:, :-1], tokens[:, 1:]
    progress, skill = torch.randn(8, 3, 8, generator=rng), random_skills(8, 8, tokens, rng)
    terms = model.skills.losses(now, later, progress, skill, clips()["action"][:, :-1], discount=0.0)
    q = model.skills.q(now, model.skills.token(skill), clips()["action"][:, :-1])
    reward = torch.einsum("btd,bd->bt", progress, skill)
    torch.testing.assert_close(terms["skill_q"][1], (q - reward).square().mean())


def test_skill_policies_learn_act_and_keep_the_embedding_to_the_value(rng):
    model, batch = debug_model("hilp", skills=True, metric_dim=8), clips()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    history = []
    for _ in range(30):
        loss, metrics = model(batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(model)
        history.append(metrics["value"].item())
    assert history[-1] < 0.2 * history[0]
    assert all(torch.isfinite(value) for value in metrics.values())
    skill_terms, _ = model.losses(batch, model._tokens(batch), batch["action"][:, :-1], rng)
    parameters = [*model.value.parameters()]
    grads = torch.autograd.grad(skill_terms["skill_q"][1], parameters, allow_unused=True)
    assert all(grad is None for grad in grads)
    info = {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}
    assert model.eval().get_action(info).shape == (8, 2)


@torch.no_grad()
def test_the_way_to_a_goal_is_the_direction_of_its_embedding():
    model, batch = debug_model("hilp", skills=True, metric_dim=8).eval(), clips(2)
    frames, goal = model._tokens({"pixels": batch["pixels"][:, :1]}), model._goal(batch)
    direction = model._phi(goal[:, None])[:, 0] - model._phi(frames)[:, 0]
    expected = model.skills.token(direction / direction.norm(dim=1, keepdim=True))
    torch.testing.assert_close(model._aims(frames, goal)[1], expected)


@pytest.mark.slow
def test_published_sizes():
    pytest.importorskip("transformers")
    counts = {}
    for name in ("gcbc", *VALUES):
        model = build_model(preset_config(name, "paper", pretrained=False))
        counts[name] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts == {"gcbc": 20871170, "gcivl": 40168710, "gciql": 59797383, "hilp": 40116612}


# -- the trunk of the preset `small` ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in ("gcbc", *VALUES)), ("hilp", {"skills": True})])
def test_an_mlp_over_convolutions_serves_every_policy(name, more):
    model = build_model(preset_config(name, "small", action_dim=2, **more))
    batch = clips(4, 3, size=64)
    loss, _ = model(batch)
    loss.backward()
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    info = {"pixels": batch["pixels"], "goal": batch["goal_pixels"]}
    other = {**info, "goal": 255 - batch["goal_pixels"]}
    actions = model.eval().get_action(info)
    assert actions.shape == (4, 2)
    assert not torch.equal(actions, model.get_action(other))


@pytest.mark.slow
def test_the_small_policy_learns_to_point_at_the_goal():
    torch.manual_seed(0)
    options = {"channels": [16, 32], "width": 16}
    model = build_model(preset_config("gcbc", "small", action_dim=2, image_size=32, backbone_options=options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(700):
        place, goal = torch.rand(64, 2), torch.rand(64, 2)
        action = torch.nn.functional.normalize(goal - place, dim=1)[:, None].expand(-1, 2, -1)
        frames, goals = (torch.stack([draw(p, 32) for p in points])[:, None] for points in (place, goal))
        loss, _ = model({"pixels": frames.expand(-1, 2, -1, -1, -1), "goal_pixels": goals, "action": action})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-50:]) / 50 < 0.1, "0.5 is what the mean action has"
