"""Parts of transformers: what they may look at, and that kept keys and values change nothing."""

import pytest
import torch

from stable_worldmodel.wm.blocks import (
    BatchNorm,
    ConditionalPredictor,
    Projector,
    VisionTransformer,
    frame_mask,
    keep_scale,
    rotate,
)
from stable_worldmodel.wm.lewm import LeWM, LeWMConfig
from stable_worldmodel.wm.tensors import windows


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def predictor(window=3, rotary=True, depth=2):
    torch.manual_seed(0)
    made = ConditionalPredictor(window, 16, depth, 2, 8, 32, dropout=0.0, branch_norm=False, rotary=rotary)
    torch.nn.init.normal_(made.modulate.weight, std=0.3)
    return made.eval()


@pytest.mark.parametrize("window", [1, 2, 3, 8])
def test_rotary_predictor_continues_from_kept_keys_as_if_it_saw_the_whole_clip(window, rng):
    model, frames = predictor(window), 7
    x, actions = torch.randn(2, frames, 16, generator=rng), torch.randn(2, frames, 16, generator=rng)
    modulations = model.modulations(actions)
    whole, _ = model(x, modulations)
    past, outputs = None, []
    for t in range(frames):
        y, past = model(x[:, t : t + 1], modulations[:, t : t + 1], past)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, atol=1e-5, rtol=1e-4)


def test_a_rotary_layer_looks_back_one_window(rng):
    model = predictor(window=3, depth=1)
    x, modulations = torch.randn(1, 6, 16, generator=rng), model.modulations(torch.randn(1, 6, 16, generator=rng))
    before, _ = model(x, modulations)
    x[:, 1] = torch.randn(16, generator=rng)
    after, _ = model(x, modulations)
    changed = ~torch.isclose(before, after, atol=1e-6).all(dim=-1)[0]
    assert changed.tolist() == [False, True, True, True, False, False]


def test_rotary_positions_are_distances(rng):
    q, k = torch.randn(1, 1, 1, 8, generator=rng), torch.randn(1, 1, 1, 8, generator=rng)
    scores = [(rotate(q, start + 3) * rotate(k, start)).sum() for start in (0, 5, 40)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores[0], scores[2], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(rotate(q, 7).norm(), q.norm())


@pytest.mark.parametrize("context", [1, 3, 5])
def test_rotary_rollout_equals_predicting_the_whole_clip_again(context, rng):
    torch.manual_seed(0)
    model = LeWM(LeWMConfig.preset("debug", action_dim=2, rotary=True, window=3)).eval()
    torch.nn.init.normal_(model.predictor.modulate.weight, std=0.3)
    info = {
        "pixels": torch.randint(0, 256, (2, context, 3, 32, 32), dtype=torch.uint8, generator=rng),
        "action_history": torch.randn(2, context - 1, 2, generator=rng),
    }
    candidates = torch.randn(2, 3, 5, 2, generator=rng)
    rolled = model.rollout(info, candidates)["predicted_emb"].flatten(0, 1)
    emb = model.encode({"pixels": info["pixels"]})["emb"].repeat_interleave(3, dim=0)
    blocks = torch.cat([info["action_history"].repeat_interleave(3, dim=0), candidates.flatten(0, 1)], dim=1)
    for stop in range(context, blocks.shape[1] + 1):
        predicted = model.predict(emb, model.embed_actions(blocks[:, :stop]))
        emb = torch.cat([emb, predicted[:, -1:]], dim=1)
    torch.testing.assert_close(rolled, emb, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "values",
    [{"rotary": True}, {"rollout_weight": 1.0}, {"encoder_tokens": 3}, {"projector_norm": "layer"}],
    ids=lambda values: next(iter(values)),
)
def test_variants_of_the_joint_embedding_model_give_finite_losses(values, rng):
    model = LeWM(LeWMConfig.preset("debug", action_dim=2, **values))
    batch = {
        "pixels": torch.randint(0, 256, (4, 5, 3, 32, 32), dtype=torch.uint8, generator=rng),
        "action": torch.randn(4, 5, 2, generator=rng),
    }
    loss, metrics = model(batch, rng)
    loss.backward()
    assert all(torch.isfinite(value) for value in metrics.values())
    assert ("rollout" in metrics) == ("rollout_weight" in values)


def test_layer_norm_keeps_the_frames_of_a_batch_apart(rng):
    projector, x = Projector(8, 16, 4, norm="layer"), torch.randn(3, 2, 8, generator=rng)
    torch.testing.assert_close(projector(x)[:1], projector(x[:1]))


def test_several_class_tokens_are_joined(rng):
    encoder = VisionTransformer(16, 8, 8, 1, 2, 16, tokens=3)
    images = torch.randn(2, 3, 16, 16, generator=rng)
    assert encoder(images).shape == (2, 24)
    assert encoder.patch_features(images).shape == (2, 4, 8)


def test_frame_mask_shows_a_patch_its_own_frame_and_those_before():
    assert frame_mask(2, 2, torch.device("cpu")).int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
    ]


def test_batch_norm_of_one_process_is_that_of_torch(rng):
    ours, theirs, x = BatchNorm(4), torch.nn.BatchNorm1d(4), torch.randn(8, 4, generator=rng)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_windows_are_all_runs_of_each_clip():
    x = torch.arange(10).view(2, 5)
    assert windows(x, 3).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8], [7, 8, 9]]
    assert windows(x[..., None, None].expand(2, 5, 4, 2), 2).shape == (8, 2, 4, 2)


@torch.no_grad()
def test_a_network_that_keeps_the_scale_passes_on_what_differs_between_inputs():
    made = [torch.nn.Conv2d(8, 64, 3), *(torch.nn.Conv2d(64, 64, 3) for _ in range(3)), torch.nn.Linear(64, 64)]
    layers = [part for layer in made for part in (layer, torch.nn.ReLU())]
    network = torch.nn.Sequential(
        *layers[:-2], torch.nn.Flatten(2), torch.nn.AvgPool1d(4), torch.nn.Flatten(), made[-1]
    )
    torch.manual_seed(0)
    frames = torch.randn(256, 8, 10, 10)
    before = network(frames).std(dim=0).mean()
    keep_scale(network)
    kept = network(frames).std(dim=0).mean()
    assert kept > 10 * before
    assert 0.2 < kept < 5
    assert not any(layer.bias.any() for layer in made)
