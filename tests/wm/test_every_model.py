"""What holds for every registered model: it learns, it plans or acts, and it comes back from a checkpoint."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from toy_batches import batch_for, debug_model

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Actionable, Costable, Dynamics, Preparable
from stable_worldmodel.wm.checkpoint import load_checkpoint, save_pretrained
from stable_worldmodel.wm.registry import ALIASES, MODELS, build_model, config_from_dict, preset_config
from stable_worldmodel.wm.training import after_step, optimizer_groups

ALL = sorted(MODELS)
PLANNERS = ["dreamer", "dummy", "frame", "lewm", "pldm", "prejepa", "tdmpc2"]
WITH_COST = ["dreamer", "dummy", "frame", "tdmpc2"]
POLICIES = ["dreamer", "gcbc", "gciql", "gcivl", "hilp", "tdmpc2"]
# How far the named metric of each model falls on one small batch, as a share of its first value, in how many steps.
FALLS = {
    "dreamer": ("image", 0.7, 40),
    "dummy": ("loss", 0.5, 40),
    "frame": ("mse", 0.1, 40),
    "gcbc": ("actor", 0.7, 80),
    "gciql": ("q", 0.3, 60),
    "gcivl": ("value", 0.3, 60),
    "hilp": ("value", 0.2, 40),
    "lewm": ("loss", 0.4, 40),
    "pldm": ("loss", 0.4, 40),
    "prejepa": ("pred", 0.5, 40),
    "tdmpc2": ("reward", 0.4, 40),  # the sum has the actor in it, and the consistency of latents that begin to differ
}
LEARNING_RATE = 2e-3


def optimizer_of(model):
    return torch.optim.AdamW([{**group, "lr": LEARNING_RATE * group["lr_scale"]} for group in optimizer_groups(model)])


def train(model, batch, steps):
    rng, optimizer, history = torch.Generator().manual_seed(0), optimizer_of(model), []
    model.train()
    for _ in range(steps):
        loss, metrics = model(batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(model)
        history.append({name: value.item() for name, value in metrics.items()})
    return history


def observation(name, n=2):
    batch = batch_for(name, n)
    return {"pixels": batch["pixels"][:, :1], "goal": batch["goal_pixels"]}


@pytest.mark.parametrize("name", ALL)
def test_the_loss_of_one_small_batch_falls(name):
    metric, share, steps = FALLS[name]
    history = train(debug_model(name), batch_for(name), steps)
    assert history[-1][metric] < share * history[0][metric], history[-1]


@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_a_scalar_with_detached_finite_metrics(name):
    loss, metrics = debug_model(name)(batch_for(name), torch.Generator().manual_seed(0))
    assert loss.shape == ()
    assert loss.requires_grad
    assert loss.item() == pytest.approx(metrics["loss"].item())
    for key, value in metrics.items():
        assert value.shape == (), key
        assert not value.requires_grad, key
        assert torch.isfinite(value), key


@pytest.mark.parametrize("name", ALL)
def test_every_trainable_parameter_gets_a_gradient(name):
    model = debug_model(name)
    for _ in range(2):  # what starts behind a zero weight gets one in the second step
        train(model, batch_for(name), 1)
        model(batch_for(name), torch.Generator().manual_seed(0))[0].backward()
    without = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not without


@pytest.mark.parametrize("name", ALL)
def test_equal_generators_give_equal_losses(name):
    model, batch = debug_model(name), batch_for(name)
    values = []
    for _ in range(2):
        torch.manual_seed(5)  # dropout
        values.append(model(batch, torch.Generator().manual_seed(3))[0].item())
    assert values[0] == values[1]


@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_finite_under_autocast(name):
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = debug_model(name)(batch_for(name), torch.Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", ALL)
def test_a_model_of_bfloat16_has_nearly_the_same_float32_loss_and_learns(name):
    exact, batch = debug_model(name).eval(), batch_for(name)
    model = debug_model(name).eval().bfloat16()
    expected, _ = exact(batch, torch.Generator().manual_seed(0))
    loss, _ = model(batch, torch.Generator().manual_seed(0))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.1)
    train(model, batch, 2)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted({*PLANNERS, *POLICIES}))
def test_a_model_of_bfloat16_plans_and_acts(name):
    model, info = debug_model(name).eval().bfloat16(), observation(name)
    info["goal_pixels"] = info["goal"]
    candidates = torch.rand(2, 3, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    results = [getattr(model, act)(info) for act in ("get_action", "explore") if hasattr(model, act)]
    if hasattr(model, "rollout"):
        results.append(model.rollout(info, candidates)["predicted_emb"])
    if hasattr(model, "get_cost"):
        results.append(model.get_cost(info, candidates))
    if hasattr(model, "propose"):
        results.append(model.propose(info, torch.zeros(2, 3, 4, 2)))
    assert results
    assert all(torch.isfinite(result).all() for result in results)


def test_constants_of_losses_stay_exact_when_the_model_changes_its_dtype():
    model = debug_model("dreamer")
    exact = {name: value.clone() for name, value in model.named_buffers()}
    model.bfloat16()
    assert next(model.parameters()).dtype == torch.bfloat16
    for name, value in model.named_buffers():
        assert value.dtype == exact[name].dtype == torch.float32
        assert torch.equal(value, exact[name])
    with torch.device("meta"):
        assert debug_model("dreamer").to_empty(device="cpu").twohot.centres.device.type == "cpu"


@pytest.mark.parametrize("name", ALL)
def test_evaluating_changes_nothing_of_the_model(name):
    model, batch = debug_model(name).eval(), batch_for(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(batch, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ALL)
def test_a_batch_without_actions_is_refused(name):
    batch = batch_for(name)
    del batch["action"]
    with pytest.raises(MissingKeyError, match="action"):
        debug_model(name)(batch)


@pytest.mark.parametrize("name", ALL)
def test_actions_of_another_width_are_refused_with_the_remedy(name):
    batch = batch_for(name)
    batch["action"] = torch.zeros(8, batch["action"].shape[1], 3)
    with pytest.raises(ContractError, match="width 3: expected action_dim=2"):
        debug_model(name)(batch)


# -- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_config_survives_json(name):
    config = preset_config(name, "debug", action_dim=3)
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert config_from_dict(name, values) == config


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("preset", ["debug", "small", "paper"])
def test_every_model_has_the_three_presets(name, preset):
    assert preset_config(name, preset, action_dim=3).action_dim == 3


@pytest.mark.parametrize("name", ALL)
def test_paper_preset_is_the_default_of_most(name):
    expected = {"image_size": 224} if name == "dummy" else {}
    config = preset_config(name, "paper")
    assert config == type(config)(**expected)


@pytest.mark.parametrize("name", ALL)
def test_small_models_have_at_most_two_million_parameters(name):
    model = build_model(preset_config(name, "small"))
    assert sum(p.numel() for p in model.parameters()) < 2_000_000


@pytest.mark.parametrize("name", ALL)
def test_unknown_presets_and_values_are_refused(name):
    with pytest.raises(ContractError, match="huge"):
        preset_config(name, "huge")
    with pytest.raises(ContractError, match="colour"):
        preset_config(name, "debug", colour="red")


@pytest.mark.parametrize(("early", "name"), ALIASES.items())
def test_early_names_mean_the_same_config(early, name):
    assert preset_config(early, "debug") == preset_config(name, "debug")


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_checkpoints_bring_models_back(name, tmp_path):
    model = debug_model(name)
    train(model, batch_for(name), 1)
    loaded = load_checkpoint(save_pretrained(model, tmp_path / name)).model
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    batch = batch_for(name)
    losses = [m.eval()(batch, torch.Generator().manual_seed(1))[0].item() for m in (model, loaded)]
    assert losses[0] == losses[1]


# -- planning and acting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANNERS)
@torch.no_grad()
def test_rollouts_begin_with_the_context_and_depend_on_the_actions(name):
    model = debug_model(name)
    train_briefly(model, name)
    info, candidates = observation(name), torch.rand(2, 3, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert isinstance(model, Dynamics)
    emb = model.encode({"pixels": info["pixels"]})["emb"]
    rolled = model.rollout(info, candidates)["predicted_emb"]
    assert rolled.shape == (2, 3, 5, *emb.shape[2:])
    observed = slice(None, -10) if name == "prejepa" else slice(None)  # the action part of a frame is filled in
    context = emb[:, None].expand(-1, 3, *emb.shape[1:])
    torch.testing.assert_close(rolled[:, :, :1, ..., observed], context[..., observed])
    assert not torch.allclose(rolled[:, 0, -1], rolled[:, 1, -1], atol=1e-7)
    assert info.keys() == {"pixels", "goal"}


@pytest.mark.parametrize("name", [name for name in PLANNERS if name != "dummy"])
@torch.no_grad()
def test_the_last_prediction_alone_is_that_of_the_whole_rollout(name):
    model = debug_model(name).eval()
    info, candidates = observation(name), torch.rand(2, 3, 5, 2)
    whole = model.rollout(info, candidates)["predicted_emb"]
    last = model.rollout(info, candidates, last_only=True)["predicted_emb"]
    torch.testing.assert_close(last, whole[:, :, -1:])


@pytest.mark.parametrize("name", PLANNERS)
@torch.no_grad()
def test_a_candidate_is_rolled_out_the_same_alone_and_among_others(name):
    model = debug_model(name).eval()
    info, candidates = observation(name), torch.rand(2, 4, 3, 2)
    among = model.rollout(info, candidates)["predicted_emb"][1, 2]
    one = {key: value[1:] for key, value in info.items()}
    alone = model.rollout(one, candidates[1:, 2:3])["predicted_emb"][0, 0]
    torch.testing.assert_close(alone, among, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", WITH_COST)
@torch.no_grad()
def test_costs_are_one_number_per_candidate_and_prepared_costs_are_equal(name):
    model = debug_model(name).eval()
    assert isinstance(model, Costable)
    assert isinstance(model, Preparable)
    info, candidates = observation(name), torch.rand(2, 3, 4, 2)
    cost = model.get_cost(info, candidates)
    assert cost.shape == (2, 3)
    torch.testing.assert_close(model.cost(model.prepare(info), candidates), cost)


@pytest.mark.parametrize("name", POLICIES)
@torch.no_grad()
def test_policies_return_one_action_per_env(name):
    model = debug_model(name).eval()
    assert isinstance(model, Actionable)
    action = model.get_action(observation(name, 3))
    assert action.shape == (3, 2)
    assert torch.isfinite(action).all()


@pytest.mark.parametrize("name", ["dreamer", "tdmpc2"])
@torch.no_grad()
def test_proposals_continue_where_the_prefix_ends(name):
    model = debug_model(name)
    train_briefly(model, name)
    info = observation(name)
    proposed = model.get_action(info, horizon=3)
    assert proposed.shape == (2, 3, 2)
    torch.testing.assert_close(model.get_action(info, prefix_actions=proposed[:, :2]), proposed[:, 2])
    assert model.get_action(info, prefix_actions=proposed[:, :0]).shape == (2, 2)


def train_briefly(model, name):
    with torch.enable_grad():
        train(model, batch_for(name), 5)
    model.eval()


# -- documentation ----------------------------------------------------------------------------------------------------

PAGES = {"dummy": "baselines", "frame": "baselines", **dict.fromkeys(("gcbc", "gciql", "gcivl", "hilp"), "gcrl")}


@pytest.mark.parametrize("name", ALL)
def test_every_model_has_a_page_with_a_figure(name):
    page = Path(__file__).parents[2] / "docs" / "models" / f"{PAGES.get(name, name)}.md"
    text = page.read_text(encoding="utf-8")
    assert name in text.lower()
    models = sum(other in PAGES and PAGES[other] == "baselines" for other in ALL) if page.stem == "baselines" else 1
    figures = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    assert sum("►" in figure for figure in figures) >= models
