"""Published LeWM weights, a state dict of other names, become the same model here."""

import dataclasses

import pytest
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm import LeWM, LeWMConfig, load_pretrained
from stable_worldmodel.wm.legacy import lewm_from_public

CONFIG = LeWMConfig(
    action_dim=4,
    image_size=28,
    latent_dim=128,
    encoder_width=128,
    encoder_heads=2,
    encoder_depth=2,
    encoder_mlp=64,
    projector_hidden=32,
    predictor_width=128,
    predictor_depth=2,
    predictor_heads=2,
    predictor_mlp=96,
)
OLD_VIT = {
    "attention.out": "attention.output.dense",
    "mlp.0": "intermediate.dense",
    "mlp.3": "output.dense",
    "attention_norm": "layernorm_before",
    "mlp_norm": "layernorm_after",
}


def published(model, prefix=""):
    """The tensors of a model under names like those of its authors' code."""
    ours = model.state_dict()
    named = {}
    for part, tensors in (("encoder", encoder(model, ours)), ("predictor", predictor(model, ours))):
        named |= {f"{part}.{name}": tensor for name, tensor in tensors.items()}
    named["action_encoder.patch_embed.weight"] = ours["action_embedder.smooth.weight"][:, :, None]
    named["action_encoder.patch_embed.bias"] = ours["action_embedder.smooth.bias"]
    for i, name in ((0, "up"), (2, "down")):
        for kind in ("weight", "bias"):
            named[f"action_encoder.embed.{i}.{kind}"] = ours[f"action_embedder.{name}.{kind}"]
    for theirs, part in (("projector", "projector"), ("pred_proj", "pred_projector")):
        for i, name in ((0, "up"), (1, "norm"), (3, "down")):
            start = f"{part}.{name}."
            named |= {f"{theirs}.net.{i}.{k.removeprefix(start)}": v for k, v in ours.items() if k.startswith(start)}
    return {prefix + name: tensor.clone() for name, tensor in named.items()}


def encoder(model, ours):
    patch, size = ours["encoder.embed_patch.weight"], model.config.patch_size
    tensors = {
        "embeddings.cls_token": ours["encoder.cls"],
        "embeddings.position_embeddings": ours["encoder.positions"],
        "embeddings.patch_embeddings.projection.weight": patch.unflatten(1, (3, size, size)),
        "embeddings.patch_embeddings.projection.bias": ours["encoder.embed_patch.bias"],
    }
    for i in range(model.config.encoder_depth):
        for kind in ("weight", "bias"):
            qkv = ours[f"encoder.blocks.{i}.attention.qkv.{kind}"].chunk(3)
            for name, tensor in zip(("query", "key", "value"), qkv, strict=True):
                tensors[f"encoder.layer.{i}.attention.attention.{name}.{kind}"] = tensor
            for name, theirs in OLD_VIT.items():
                tensors[f"encoder.layer.{i}.{theirs}.{kind}"] = ours[f"encoder.blocks.{i}.{name}.{kind}"]
    return tensors | {f"layernorm.{kind}": ours[f"encoder.norm.{kind}"] for kind in ("weight", "bias")}


def predictor(model, ours):
    tensors = {"pos_embedding": ours["predictor.positions"]}
    depth = model.config.predictor_depth
    names = {
        "attn.norm": "attention_norm",
        "attn.to_qkv": "attention.qkv",
        "attn.to_out.0": "attention.out",
        "mlp.net.0": "mlp_norm",
        "mlp.net.1": "mlp.0",
        "mlp.net.4": "mlp.3",
    }
    for i in range(depth):
        for theirs, name in names.items():
            for kind in ("weight", "bias"):
                if f"predictor.blocks.{i}.{name}.{kind}" in ours:
                    tensors[f"transformer.layers.{i}.{theirs}.{kind}"] = ours[f"predictor.blocks.{i}.{name}.{kind}"]
        for kind in ("weight", "bias"):
            modulation = ours[f"predictor.modulate.{kind}"].chunk(depth)[i]
            tensors[f"transformer.layers.{i}.adaLN_modulation.1.{kind}"] = modulation
    return tensors | {f"transformer.norm.{kind}": ours[f"predictor.norm.{kind}"] for kind in ("weight", "bias")}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = LeWM(CONFIG)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape))  # nothing is zero, nothing equal
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.abs_()
    return model.eval()


def assert_equal_models(model, loaded):
    assert loaded.config == dataclasses.replace(model.config, sigreg_directions=loaded.config.sigreg_directions)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=0, rtol=0, msg=name)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_published_weights_load_from_their_file(model, tmp_path, prefix):
    torch.save(published(model, prefix), tmp_path / "weights.pt")
    assert_equal_models(model, load_pretrained(tmp_path / "weights.pt"))


def test_published_weights_load_from_their_folder(model, tmp_path):
    torch.save({"state_dict": published(model)}, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text('{"_target_": "os.system", "command": "false"}')
    assert_equal_models(model, load_pretrained(tmp_path))


def test_the_published_model_has_303_tensors():
    assert len(published(LeWM(LeWMConfig()))) == 303


def test_an_encoder_of_the_transformers_package_computes_the_same(model):
    transformers = pytest.importorskip("transformers")
    c = model.config
    vit = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=c.encoder_width,
            num_hidden_layers=c.encoder_depth,
            num_attention_heads=c.encoder_heads,
            intermediate_size=c.encoder_mlp,
            image_size=c.image_size,
            patch_size=c.patch_size,
            layer_norm_eps=1e-6,
        ),
        add_pooling_layer=False,
    ).eval()
    weights = {name: tensor for name, tensor in published(model).items() if not name.startswith("encoder.")}
    weights = {f"encoder.{name}": tensor for name, tensor in vit.state_dict().items()} | weights
    config, state = lewm_from_public(weights)
    ours = LeWM(config).eval()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, c.image_size, c.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vit(pixel_values=images).last_hidden_state[:, 0]
        torch.testing.assert_close(ours.encoder(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weights", [{"weight": torch.zeros(1)}, {"a.weight": torch.zeros(2, 2)}, {}])
def test_other_weights_are_refused(weights):
    with pytest.raises(ContractError, match="not those of a published LeWM"):
        lewm_from_public(weights)
