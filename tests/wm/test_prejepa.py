"""PreJEPA: published size, a backbone that stays as it is, and rollouts that equal step-by-step prediction."""

import pytest
import torch
from toy_batches import clips, debug_model

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.wm import build_model, preset_config
from stable_worldmodel.wm.dinowm import DINOWM
from stable_worldmodel.wm.prejepa import CausalPredictor, Embedder, create_backbone
from stable_worldmodel.wm.pyro import PYRO


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def model():
    return debug_model("prejepa", inputs={"proprio": 2}).eval()


def step_by_step(model, tokens, act_emb):
    """Tokens (N, L + H, P, W) from tokens (N, L, P, W) and all embedded actions, one whole window at a time."""
    window, width = model.config.window, model.config.embed_dim
    for stop in range(tokens.shape[1], act_emb.shape[1] + 1):
        tokens = tokens.clone()
        tokens[:, :stop, :, -width:] = act_emb[:, :stop, None]
        predicted = model.predict(tokens[:, max(0, stop - window) : stop])
        tokens = torch.cat([tokens, predicted[:, -1:]], dim=1)
    return tokens


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patches", "count"), [(196, 20_122_600), (256, 20_195_320)])
def test_predictor_has_the_published_size(patches, count):
    with torch.device("meta"):
        predictor = CausalPredictor(3, patches, 404)
    assert sum(p.numel() for p in predictor.parameters()) == count


@pytest.mark.slow
def test_original_preset_has_196_tokens_of_404_numbers():
    pytest.importorskip("transformers")
    model = build_model(preset_config("prejepa", "original", pretrained=False, inputs={"proprio": 4}))
    assert (model.backbone.patches, model.backbone.width) == (196, 384)
    assert sum(p.numel() for p in model.predictor.parameters()) == 20_122_600


# -- training ---------------------------------------------------------------------------------------------------------


def test_backbone_gets_no_gradient_and_stays_in_eval_mode(model):
    model.train()
    model(clips())[0].backward()
    assert not model.backbone.training
    assert all(p.grad is None and not p.requires_grad for p in model.backbone.parameters())


def test_loss_leaves_out_the_action_part(model):
    _, metrics = model(clips())
    widths = {"pixels": 16, "proprio": 10}
    expected = sum(metrics[f"pred_{name}"] * width for name, width in widths.items()) / sum(widths.values())
    torch.testing.assert_close(metrics["pred"], expected)


def test_features_computed_before_give_the_same_loss(model):
    batch = clips()
    expected = model(batch)[0]
    cached = {name: value for name, value in batch.items() if name != "pixels"}
    cached["pixels_emb"] = model.backbone(batch["pixels"])
    torch.testing.assert_close(model(cached)[0], expected)
    with pytest.raises(ContractError, match=r"expected \(B, T, 4, 16\)"):
        model({**cached, "pixels_emb": torch.zeros(8, 4, 4, 5)})


def test_batches_of_one_and_inputs_of_width_one_work():
    model = debug_model("prejepa", inputs={"proprio": 1})
    batch = clips(1)
    batch["proprio"] = batch["proprio"][..., :1]
    assert torch.isfinite(model(batch)[0])


def test_inputs_must_have_a_row_for_each_frame(model):
    batch = clips()
    with pytest.raises(ContractError, match="one row for each frame"):
        model({**batch, "proprio": batch["proprio"][:, :3]})
    with pytest.raises(MissingKeyError, match="proprio"):
        model({name: value for name, value in batch.items() if name != "proprio"})


def test_short_clips_are_refused(model):
    with pytest.raises(ContractError, match="window \\+ 1 = 4"):
        model({name: value[:, :3] for name, value in clips().items() if name != "goal_step"})


def test_the_decoder_learns_beside_the_model_without_changing_it():
    model = debug_model("prejepa", decoder_weight=0.25, decoder_width=16)
    plain = debug_model("prejepa")
    loss, metrics = model(clips())
    torch.testing.assert_close(metrics["loss"], metrics["pred"] + 0.25 * metrics["decoder"])
    loss.backward()
    plain(clips())[0].backward()
    gradients = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad and "predictor.blocks" in name:
            assert gradients[name].grad is not None
    emb = model.encode({"pixels": clips()["pixels"]})["emb"]
    assert model.decode(emb).shape == (8, 4, 3, 32, 32)
    assert not hasattr(plain, "decode")


# -- the predictor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [1, 2])
def test_a_change_in_one_frame_leaves_earlier_predictions(model, rng, changed):
    tokens = torch.randn(1, 3, 4, 36, generator=rng)
    before = model.predict(tokens)
    tokens[:, changed, 0] = torch.randn(36, generator=rng)
    after = model.predict(tokens)
    torch.testing.assert_close(after[:, :changed], before[:, :changed])
    # All patches of the frame itself see the change.
    assert not torch.isclose(after[:, changed], before[:, changed]).all(dim=-1).any()


@pytest.mark.parametrize("context", [1, 2, 3, 4])
@pytest.mark.parametrize("horizon", [1, 2, 5])
@torch.no_grad()
def test_rollout_equals_predicting_step_by_step(model, rng, context, horizon):
    batch = clips(2, 4)
    info = {name: batch[name][:, :context] for name in ("pixels", "proprio")}
    info["action_history"] = torch.randn(2, context - 1, 2, generator=rng)
    candidates = torch.randn(2, 3, horizon, 2, generator=rng)
    rolled = model.rollout(info, candidates)
    blocks = torch.cat([info["action_history"].repeat_interleave(3, 0), candidates.flatten(0, 1)], dim=1)
    tokens = model.encode({name: info[name] for name in ("pixels", "proprio")})["emb"].repeat_interleave(3, 0)
    expected = step_by_step(model, tokens, model.embed_actions(blocks)).unflatten(0, (2, 3))
    torch.testing.assert_close(rolled["predicted_emb"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rolled["predicted_pixels_emb"], rolled["predicted_emb"][..., :16])
    torch.testing.assert_close(rolled["predicted_proprio_emb"], rolled["predicted_emb"][..., 16:26].mean(dim=3))
    last = model.rollout(info, candidates, last_only=True)["predicted_emb"]
    torch.testing.assert_close(last, expected[:, :, -1:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rollouts_in_several_parts_are_the_same(rng):
    whole, parts = (debug_model("prejepa", rollout_rows=rows).eval() for rows in (512, 2))
    info, candidates = {"pixels": clips(2, 1)["pixels"]}, torch.randn(2, 3, 4, 2, generator=rng)
    expected = whole.rollout(info, candidates)["predicted_emb"]
    torch.testing.assert_close(parts.rollout(info, candidates)["predicted_emb"], expected)


def test_context_tokens_hold_the_actions_that_left_them(model, rng):
    batch = clips(1, 2)
    info = {"pixels": batch["pixels"], "proprio": batch["proprio"], "action_history": torch.ones(1, 1, 2)}
    candidates = torch.zeros(1, 1, 1, 2)
    rolled = model.rollout(info, candidates)["predicted_emb"][0, 0]
    expected = model.embed_actions(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]))[0]
    torch.testing.assert_close(rolled[:2, 0, -10:], expected)


# -- early names ------------------------------------------------------------------------------------------------------


def dinowm(proprio=True):
    torch.manual_seed(0)
    backbone = create_backbone(
        "vit",
        image_size=32,
        pretrained=False,
        options={"patch_size": 16, "width": 16, "depth": 1, "heads": 2, "mlp_width": 32},
    )
    width = 16 + 10 * (1 + proprio)
    predictor = CausalPredictor(3, 4, width, depth=1, heads=2, head_dim=8, mlp_width=32)
    return DINOWM(backbone, predictor, Embedder(2, 10), Embedder(2, 10) if proprio else None).eval()


def goal_info():
    batch = clips(2, 1)
    return {
        "pixels": batch["pixels"],
        "proprio": batch["proprio"],
        "goal": batch["goal_pixels"],
        "goal_proprio": batch["goal_proprio"],
    }


def test_pyro_is_prejepa(model):
    assert isinstance(model, PYRO)


@torch.no_grad()
def test_dinowm_is_prejepa_of_given_parts(rng):
    model, info, candidates = dinowm(), goal_info(), torch.randn(2, 3, 4, 2, generator=rng)
    rolled = model.rollout(info, candidates)
    torch.testing.assert_close(rolled["predicted_embedding"], rolled["predicted_emb"])
    cost = model.get_cost(info, candidates)
    goal = model.encode({"pixels": info["goal"], "proprio": info["goal_proprio"]})
    pixels = rolled["predicted_pixels_emb"][:, :, -1] - goal["pixels_emb"][:, -1:]
    proprio = rolled["predicted_proprio_emb"][:, :, -1] - goal["proprio_emb"][:, -1:]
    torch.testing.assert_close(cost, pixels.square().mean(dim=(2, 3)) + proprio.square().mean(dim=2))


@torch.no_grad()
def test_dinowm_works_without_proprioception(rng):
    info = {name: value for name, value in goal_info().items() if "proprio" not in name}
    assert dinowm(proprio=False).get_cost(info, torch.randn(2, 3, 4, 2, generator=rng)).shape == (2, 3)


def test_early_encode_reads_and_writes_the_columns_named():
    model, info = dinowm(), goal_info()
    renamed = {"view": info["pixels"], "joints": info["proprio"], "block": torch.ones(2, 1, 2)}
    encoded = model.encode(renamed, pixels_key="view", proprio_key="joints", action_key="block", target="tokens")
    expected = model.encode({"pixels": info["pixels"], "proprio": info["proprio"], "action": torch.ones(2, 1, 2)})
    torch.testing.assert_close(encoded["tokens"], expected["emb"])


def test_embeddings_split_into_their_parts_and_take_other_actions(rng):
    model, tokens = dinowm(), torch.randn(2, 3, 4, 36, generator=rng)
    features, proprio, action = model.split_embedding(tokens, 10, 10)
    torch.testing.assert_close(torch.cat([features, proprio, action], dim=-1), tokens)
    assert features.shape[-1] == 16
    blocks = torch.randn(2, 3, 2, generator=rng)
    replaced = model.replace_action_in_embedding(tokens, blocks)
    torch.testing.assert_close(replaced[..., :26], tokens[..., :26])
    torch.testing.assert_close(replaced[:, :, 2, 26:], model.embed_actions(blocks))


def test_dinowm_without_a_decoder_cannot_decode():
    with pytest.raises(ContractError, match="no decoder"):
        dinowm().decode({})
