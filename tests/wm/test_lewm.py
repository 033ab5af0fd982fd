"""LeWM: its sizes, what its predictor may look at, and that planning rolls out what training learned."""

import dataclasses

import pytest
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.protocols import Dynamics
from stable_worldmodel.wm.lewm import LeWM, LeWMConfig

SMALL = LeWMConfig.preset("small", image_size=32, action_dim=4)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def model():
    """A small model whose action conditioning is not zero, as it is after some training."""
    torch.manual_seed(0)
    model = LeWM(SMALL)
    torch.nn.init.normal_(model.predictor.modulate.weight, std=0.3)
    return model.eval()


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(1)


def images(n, frames, rng, size=32):
    return torch.randint(0, 256, (n, frames, 3, size, size), dtype=torch.uint8, generator=rng)


def step_by_step(model, emb, blocks):
    """Latents (N, L + H, D) from emb (N, L, D) and all action blocks (N, L - 1 + H, A), one whole window at a time."""
    window = model.config.window
    for stop in range(emb.shape[1], blocks.shape[1] + 1):
        seen = slice(max(0, stop - window), stop)
        predicted = model.predict(emb[:, seen], model.embed_actions(blocks[:, seen]))
        emb = torch.cat([emb, predicted[:, -1:]], dim=1)
    return emb


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    return LeWM(LeWMConfig())


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("encoder", 5_501_376),
        ("projector", 792_768),
        ("action_embedder", 156_206),
        ("predictor", 10_791_360),
        ("pred_projector", 792_768),
    ],
)
def test_parts_of_the_default_model_have_the_published_sizes(published, part, count):
    assert parameters(getattr(published, part)) == count


def test_default_model_has_the_published_size(published):
    assert parameters(published) == 18_034_478


def test_wider_actions_only_widen_the_action_embedder():
    assert parameters(LeWM(LeWMConfig(action_dim=25))) == 18_034_628


def test_paper_preset_is_the_default():
    assert LeWMConfig.preset("paper") == LeWMConfig()


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_small_presets_have_less_than_a_million_parameters(name):
    assert parameters(LeWM(LeWMConfig.preset(name))) < 1_000_000


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ContractError, match=r"huge.*debug.*paper.*small.*tiny"):
        LeWMConfig.preset("huge")


@pytest.mark.parametrize("wrong", [{"image_size": 65}, {"encoder_heads": 5}, {"window": 0}])
def test_config_refuses_sizes_that_do_not_fit(wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


# -- the predictor ----------------------------------------------------------------------------------------------------


def test_fresh_predictor_ignores_actions(rng):
    model = LeWM(SMALL).eval()
    z = torch.randn(2, 3, 16, generator=rng)
    a, b = (model.embed_actions(torch.randn(2, 3, 4, generator=rng)) for _ in range(2))
    torch.testing.assert_close(model.predict(z, a), model.predict(z, b))


def test_fresh_predictor_is_positions_and_norm_only(rng):
    predictor = LeWM(SMALL).predictor
    x = torch.randn(2, 3, predictor.positions.shape[-1], generator=rng)
    y, _ = predictor(x, predictor.modulations(torch.randn(x.shape, generator=rng)))
    torch.testing.assert_close(y, predictor.norm(x + predictor.positions))


@pytest.mark.parametrize("changed", [1, 2])
@pytest.mark.parametrize("what", ["frame", "action"])
def test_a_change_at_one_position_leaves_earlier_predictions(model, rng, changed, what):
    z, a = torch.randn(1, 3, 16, generator=rng), torch.randn(1, 3, 4, generator=rng)
    before = model.predict(z, model.embed_actions(a))
    (z if what == "frame" else a)[:, changed] += 1.0
    after = model.predict(z, model.embed_actions(a))
    torch.testing.assert_close(after[:, :changed], before[:, :changed])
    assert not torch.allclose(after[:, changed:], before[:, changed:])


def test_more_frames_than_the_window_are_refused(model):
    with pytest.raises(ContractError, match="window=3"):
        model.predict(torch.zeros(1, 4, 16), torch.zeros(1, 4, 64))


# -- encoding ---------------------------------------------------------------------------------------------------------


def test_lewm_is_a_dynamics(model):
    assert isinstance(model, Dynamics)


def test_encode_adds_latents_and_leaves_its_input(model, rng):
    info = {"pixels": images(2, 3, rng), "action": torch.zeros(2, 3, 4), "other": "kept"}
    encoded = model.encode(info)
    assert encoded["emb"].shape == (2, 3, 16)
    assert encoded["act_emb"].shape == (2, 3, 64)
    assert encoded["other"] == "kept"
    assert info.keys() == {"pixels", "action", "other"}


def test_uint8_images_equal_the_normalised_ones(model, rng):
    pixels = images(1, 2, rng)
    normalised = (pixels / 255 - model.image_mean) / model.image_std
    torch.testing.assert_close(model.encode({"pixels": pixels})["emb"], model.encode({"pixels": normalised})["emb"])


def test_images_of_another_size_are_refused_with_the_remedy(model, rng):
    with pytest.raises(ContractError, match=r"image_shape=\(32, 32\)"):
        model.encode({"pixels": images(1, 1, rng, size=48)})


def test_missing_pixels_are_named(model):
    with pytest.raises(MissingKeyError, match="pixels"):
        model.encode({"proprio": torch.zeros(1)})


def test_actions_of_another_width_are_refused(model):
    with pytest.raises(ContractError, match="action_dim=4"):
        model.embed_actions(torch.zeros(1, 1, 2))


def test_encoder_is_the_whole_transformer_read_at_its_first_token(model, rng):
    encoder, frames = model.encoder, torch.randn(2, 3, 32, 32, generator=rng)
    x = torch.cat([encoder.cls.expand(2, -1, -1), encoder.embed_patch(encoder._patches(frames))], 1) + encoder.positions
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(encoder(frames), encoder.norm(x)[:, 0])


# -- rollout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [1, 2, 3, 4])
@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_rollout_equals_predicting_step_by_step(model, rng, context, horizon):
    info = {"pixels": images(2, context, rng), "action_history": torch.randn(2, context - 1, 4, generator=rng)}
    candidates = torch.randn(2, 3, horizon, 4, generator=rng)
    rolled = model.rollout(info, candidates)["predicted_emb"]
    emb = model.encode({"pixels": info["pixels"]})["emb"].repeat_interleave(3, dim=0)
    blocks = torch.cat([info["action_history"].repeat_interleave(3, dim=0), candidates.flatten(0, 1)], dim=1)
    assert rolled.shape == (2, 3, context + horizon, 16)
    torch.testing.assert_close(rolled.flatten(0, 1), step_by_step(model, emb, blocks), atol=1e-5, rtol=1e-4)


def test_rollout_takes_infos_with_a_sample_axis(model, rng):
    info = {"pixels": images(2, 2, rng), "action_history": torch.randn(2, 1, 4, generator=rng)}
    expanded = {key: value[:, None].expand(-1, 3, *value.shape[1:]) for key, value in info.items()}
    candidates = torch.randn(2, 3, 4, 4, generator=rng)
    plain, from_expanded = (model.rollout(i, candidates)["predicted_emb"] for i in (info, expanded))
    torch.testing.assert_close(from_expanded, plain)


def test_rollout_uses_latents_that_are_already_there(model, rng):
    info = model.encode({"pixels": images(2, 1, rng)})
    candidates = torch.randn(2, 3, 4, 4, generator=rng)
    expected = model.rollout(info, candidates)["predicted_emb"]
    del info["pixels"]
    torch.testing.assert_close(model.rollout(info, candidates)["predicted_emb"], expected)


def test_past_actions_change_the_rollout(model, rng):
    info = {"pixels": images(1, 2, rng), "action_history": torch.zeros(1, 1, 4)}
    candidates = torch.zeros(1, 1, 1, 4)
    before = model.rollout(info, candidates)["predicted_emb"]
    after = model.rollout({**info, "action_history": torch.ones(1, 1, 4)}, candidates)["predicted_emb"]
    torch.testing.assert_close(after[:, :, :2], before[:, :, :2])
    assert not torch.allclose(after[:, :, 2], before[:, :, 2])


def test_an_empty_history_is_no_history(model, rng):
    pixels, candidates = images(1, 1, rng), torch.zeros(1, 2, 3, 4)
    without = model.rollout({"pixels": pixels}, candidates)["predicted_emb"]
    empty = model.rollout({"pixels": pixels, "action_history": torch.zeros(1, 0, 4)}, candidates)["predicted_emb"]
    torch.testing.assert_close(empty, without)


@pytest.mark.parametrize("blocks", [None, 0, 2])
def test_a_history_of_the_wrong_length_is_refused(model, rng, blocks):
    info = {"pixels": images(1, 2, rng)}
    if blocks is not None:
        info["action_history"] = torch.zeros(1, blocks, 4)
    with pytest.raises(ContractError, match="2 context frames: expected 1"):
        model.rollout(info, torch.zeros(1, 1, 1, 4))


def test_gradients_reach_the_candidates_through_a_sliding_window(model, rng):
    candidates = torch.zeros(1, 2, 5, 4, requires_grad=True)
    model.rollout({"pixels": images(1, 1, rng)}, candidates)["predicted_emb"][:, :, -1].sum().backward()
    assert candidates.grad is not None
    assert (candidates.grad.abs().sum(dim=-1) > 0).all()


# -- training loss ----------------------------------------------------------------------------------------------------


def clip(rng, frames=5):
    return {"pixels": images(4, frames, rng), "action": torch.randn(4, frames, 4, generator=rng)}


def test_loss_is_the_weighted_sum_of_its_metrics(rng):
    model = LeWM(SMALL)
    loss, metrics = model(clip(rng), torch.Generator().manual_seed(0))
    expected = metrics["pred"] + SMALL.sigreg_weight * metrics["sigreg"] + SMALL.alignment_weight * metrics["align"]
    torch.testing.assert_close(loss.detach(), expected)
    assert all(not metric.requires_grad for metric in metrics.values())


def test_prediction_loss_of_a_long_clip_is_the_mean_over_its_windows(model, rng):
    batch = clip(rng, frames=6)
    whole = model(batch)[1]["pred"]
    parts = [model({key: value[:, i : i + 4] for key, value in batch.items()})[1]["pred"] for i in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_nan_actions_count_as_zero(model, rng):
    batch = clip(rng)
    batch["action"][:, -2] = float("nan")
    zeros = {**batch, "action": batch["action"].nan_to_num(0.0)}
    assert model(batch, torch.Generator().manual_seed(0))[0] == model(zeros, torch.Generator().manual_seed(0))[0]


def test_every_parameter_learns(rng):
    model = LeWM(SMALL)
    torch.nn.init.normal_(model.predictor.modulate.weight)
    model(clip(rng))[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_clips_shorter_than_window_and_target_are_refused(model, rng):
    with pytest.raises(ContractError, match="at least window \\+ 1 = 4"):
        model(clip(rng, frames=3))
