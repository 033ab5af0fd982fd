"""Backbones by name: features of the right shape, frozen, offline, and from a folder of weights."""

import sys

import pytest
import torch

from stable_worldmodel.errors import ContractError, MissingDependencyError
from stable_worldmodel.wm import build_model, load_pretrained, preset_config, save_pretrained
from stable_worldmodel.wm.backbones import BACKBONES, create_backbone

TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TINY = {
    "dinov2_small": TINY_VIT,
    "dinov3_small": TINY_VIT,
    "mae_base": TINY_VIT,
    "ijepa_huge": TINY_VIT,
    "siglip2_base_224": TINY_VIT,
    "vjepa2_large": {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "pred_hidden_size": 24,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
        "frames_per_clip": 4,
    },
    "resnet_50": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]},
}
SCRATCH = {"patch_size": 16, "width": 8, "depth": 1, "heads": 2, "mlp_width": 16}


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (2, 3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def tiny(name, image_size, **options):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    return create_backbone(name, image_size=image_size, pretrained=False, options=TINY[name], **options).eval()


@pytest.mark.parametrize("name", TINY)
def test_features_have_one_token_per_patch(name, pixels):
    patch = {"dinov2_small": 14, "ijepa_huge": 14}.get(name, 16)
    backbone = tiny(name, 2 * patch)
    features = backbone(pixels)
    assert features.shape == (2, 3, backbone.patches, backbone.width)
    assert backbone.patches == (1 if name == "resnet_50" else 4)
    assert torch.isfinite(features).all()
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", ["dinov2_small", "mae_base"])
def test_features_are_a_function_of_the_frame(name, pixels):
    backbone = tiny(name, 28 if name == "dinov2_small" else 32)
    whole = backbone(pixels)
    torch.testing.assert_close(backbone(pixels), whole)
    torch.testing.assert_close(backbone(pixels[1:, 2:])[0, 0], whole[1, 2], atol=1e-5, rtol=1e-4)


def test_video_features_know_the_frames_before_and_none_after(pixels):
    backbone = tiny("vjepa2_large", 32)
    whole = backbone(pixels)
    torch.testing.assert_close(backbone(pixels[:, :2]), whole[:, :2], atol=1e-5, rtol=1e-4)
    other = pixels.clone()
    other[:, 0] = 255 - other[:, 0]
    assert not torch.allclose(backbone(other)[:, 2], whole[:, 2], atol=1e-5)


def test_normalised_floats_are_taken_as_they_are(pixels):
    backbone = tiny("dinov2_small", 28)
    small = pixels[..., :28, :28]
    normalised = (small / 255 - backbone.mean) / backbone.std
    torch.testing.assert_close(backbone(normalised), backbone(small))


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_alias_has_a_config(name):
    transformers = pytest.importorskip("transformers")
    spec = BACKBONES[name]
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.values)
    assert config.model_type == spec.model_type


def test_dinov2_small_has_the_published_width():
    transformers = pytest.importorskip("transformers")
    spec = BACKBONES["dinov2_small"]
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.values)
    assert (config.hidden_size, config.num_hidden_layers, config.patch_size) == (384, 12, 14)


def test_a_folder_of_weights_is_a_backbone(tmp_path, pixels):
    made = tiny("dinov2_small", 28)
    made.model.save_pretrained(tmp_path / "weights")
    loaded = create_backbone(str(tmp_path / "weights"), image_size=28).eval()
    torch.testing.assert_close(loaded(pixels), made(pixels))


def test_a_folder_of_weights_serves_other_image_sizes(tmp_path, pixels):
    tiny("dinov2_small", 28).model.save_pretrained(tmp_path / "weights")
    assert create_backbone(str(tmp_path / "weights"), image_size=42)(pixels).shape == (2, 3, 9, 16)


def test_loading_is_silent(tmp_path, capfd):
    tiny("dinov2_small", 28).model.save_pretrained(tmp_path / "weights")
    capfd.readouterr()
    create_backbone(str(tmp_path / "weights"), image_size=28)
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny("dinov2_small", 28).model.save_pretrained(tmp_path / "weights")
    path = tmp_path / "weights" / "model.safetensors"
    weights = load_file(path)
    del weights["layernorm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ContractError, match=r"'layernorm\.weight'\] are missing"):
        create_backbone(str(tmp_path / "weights"), image_size=28)


def test_folders_without_safetensors_are_refused(tmp_path):
    tiny("dinov2_small", 28).model.save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "weights" / "pytorch_model.bin")
    with pytest.raises(ContractError, match="could not be loaded"):
        create_backbone(str(tmp_path / "weights"), image_size=28)


def test_own_transformer_can_be_frozen_or_trained(pixels):
    frozen, trained = (create_backbone("vit", image_size=32, frozen=f, options=SCRATCH) for f in (True, False))
    assert not frozen(pixels).requires_grad
    assert trained.train()(pixels).requires_grad
    assert trained.training
    assert not frozen.train().training


def test_unknown_names_options_and_shapes_are_refused(pixels):
    with pytest.raises(ContractError, match=r"unknown backbone 'dinov9'.*dinov2_small"):
        create_backbone("dinov9")
    with pytest.raises(ContractError, match="colour"):
        create_backbone("vit", options={"colour": "red"})
    with pytest.raises(ContractError, match="multiple of patch_size"):
        create_backbone("vit", image_size=33, options=SCRATCH)
    with pytest.raises(ContractError, match="channels first"):
        create_backbone("vit", image_size=32, options=SCRATCH)(pixels.movedim(2, -1))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"stable-worldmodel\[backbones\]"):
        create_backbone("dinov2_small")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="pip install timm"):
        create_backbone("timm:vit_tiny_patch16_224")


def test_checkpoints_name_a_pretrained_backbone_instead_of_holding_it(tmp_path):
    tiny("dinov2_small", 28).model.save_pretrained(tmp_path / "weights")
    config = preset_config(
        "prejepa",
        "debug",
        action_dim=2,
        backbone=str(tmp_path / "weights"),
        backbone_options={},
        pretrained=True,
        image_size=28,
    )
    model = build_model(config)
    folders = [save_pretrained(model, tmp_path / str(with_), with_backbone=with_) for with_ in (False, True)]
    small, large = ((folder / "weights.safetensors").stat().st_size for folder in folders)
    assert small < large
    for folder in folders:
        loaded = load_pretrained(folder)
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_convolutions_halve_the_image_layer_by_layer(pixels):
    backbone = create_backbone("conv", image_size=32, frozen=False, options={"channels": [4, 8], "width": 6})
    assert (backbone.patches, backbone.width) == (16, 6)
    features = backbone(pixels)
    assert features.shape == (2, 3, 16, 6)
    features.sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    with pytest.raises(ContractError, match="multiple of 8"):
        create_backbone("conv", image_size=36, options={"channels": [4, 8]})
