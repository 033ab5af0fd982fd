"""LeWM weights as their authors published them: a state dict `weights.pt`, read without unpickling objects.

The image encoder has the tensor names of a ViT of the `transformers` package, of older or newer releases. The other
parts are recognised by shape, place and order, whatever their modules are called.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.lewm.config import LeWMConfig

Tensors = dict[str, torch.Tensor]

_VIT_HEAD_DIM = 64  # heads leave no trace in the weights; published encoders and predictors have 64 numbers per head

# Names within a layer of a ViT, older and newer, and ours.
_VIT_LAYER = {
    "attention.output.dense": "attention.out",
    "attention.o_proj": "attention.out",
    "intermediate.dense": "mlp.0",
    "mlp.fc1": "mlp.0",
    "output.dense": "mlp.3",
    "mlp.fc2": "mlp.3",
    "layernorm_before": "attention_norm",
    "layernorm_after": "mlp_norm",
}
_VIT_QKV = (
    ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
)


def read_state_dict(path: Path) -> Tensors:
    """The tensors of a file that `torch.save` wrote, read with `weights_only=True`; ContractError for anything else."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ContractError(
            f"{path} is a pickle that holds more than tensors, or is damaged, and was not loaded: {error}"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ContractError(f"{path} holds a {type(loaded).__name__}: expected a state dict, names with tensors")
    return dict(loaded)


def lewm_from_public(weights: Mapping[str, torch.Tensor]) -> tuple[LeWMConfig, Tensors]:
    """The config and state dict of the LeWM that published weights belong to. ContractError if they are of no LeWM."""
    try:
        parts = _parts(weights)
        encoder, config = _encoder(parts["encoder"])
        predictor, sizes = _predictor(parts["predictor"])
        embedder, action_dim = _action_embedder(parts["action_embedder"])
        projector, pred_projector = (_projector(parts[name]) for name in ("projector", "pred_projector"))
    except (KeyError, IndexError, StopIteration, ValueError) as error:
        raise ContractError(
            f"{len(weights)} tensors that are not those of a published LeWM ({type(error).__name__}: {error}), e.g. "
            f"{sorted(weights)[:3]}; if you know their model, load them into it (torch.load(path, weights_only=True)) "
            "and call save_pretrained(model, folder)"
        ) from error
    named = {"encoder": encoder, "predictor": predictor, "action_embedder": embedder}
    named |= {"projector": projector, "pred_projector": pred_projector}
    state = {
        f"{part}.{name}": tensor.contiguous() for part, tensors in named.items() for name, tensor in tensors.items()
    }
    latent, hidden = projector["down.weight"].shape
    values: dict[str, Any] = {
        **config,
        **sizes,
        "action_dim": action_dim,
        "latent_dim": latent,
        "projector_hidden": hidden,
    }
    return LeWMConfig(**values), state


def _parts(weights: Mapping[str, torch.Tensor]) -> dict[str, Tensors]:
    """The tensors of each part of the model, without the part's prefix."""
    while len(wrappers := {name.partition(".")[0] for name in weights}) == 1 and all("." in name for name in weights):
        prefix = f"{wrappers.pop()}."  # of a wrapper around the model
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    groups: dict[str, Tensors] = {}
    for name, tensor in weights.items():
        part, _, rest = name.partition(".")
        groups.setdefault(part, {})[rest] = tensor
    found: dict[str, Tensors] = {}
    for part, tensors in groups.items():
        if any("cls_token" in name for name in tensors):
            found["encoder"] = tensors
        elif any(name.endswith("running_mean") for name in tensors):
            found["pred_projector" if "pred" in part else "projector"] = tensors
        elif any(tensor.ndim == 3 and tensor.shape[2] == 1 and tensor.shape[0] > 1 for tensor in tensors.values()):
            found["action_embedder"] = tensors
        else:
            found["predictor"] = tensors
    return found


def _encoder(tensors: Tensors) -> tuple[Tensors, dict[str, int]]:
    """Tensors of our VisionTransformer, and its sizes."""
    patch = tensors["embeddings.patch_embeddings.projection.weight"]  # (W, 3, p, p)
    positions = tensors["embeddings.position_embeddings"]  # (1, 1 + P, W)
    state = {
        "cls": tensors["embeddings.cls_token"],
        "positions": positions,
        "embed_patch.weight": patch.flatten(1),
        "embed_patch.bias": tensors["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": tensors["layernorm.weight"],
        "norm.bias": tensors["layernorm.bias"],
    }
    layers: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        match = re.match(r"(?:encoder\.)?layers?\.(\d+)\.(.+)", name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = tensor
    for i, layer in layers.items():
        qkv = next(names for names in _VIT_QKV if f"{names[0]}.weight" in layer)
        for kind in ("weight", "bias"):
            state[f"blocks.{i}.attention.qkv.{kind}"] = torch.cat([layer[f"{name}.{kind}"] for name in qkv])
            for theirs, ours in _VIT_LAYER.items():
                if f"{theirs}.{kind}" in layer:
                    state[f"blocks.{i}.{ours}.{kind}"] = layer[f"{theirs}.{kind}"]
    width, size = patch.shape[0], patch.shape[2]
    side = round((positions.shape[1] - 1) ** 0.5)
    return state, {
        "image_size": side * size,
        "patch_size": size,
        "encoder_width": width,
        "encoder_depth": len(layers),
        "encoder_heads": max(1, width // _VIT_HEAD_DIM),
        "encoder_mlp": state["blocks.0.mlp.0.weight"].shape[0],
    }


def _modules(tensors: Tensors) -> dict[str, Tensors]:
    """Tensors by the module they belong to, in order."""
    modules: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        modules.setdefault(module, {})[kind] = tensor
    return modules


def _projector(tensors: Tensors) -> Tensors:
    """Tensors of our Projector: two linear modules around a norm."""
    modules = list(_modules(tensors).values())
    up, down = (module for module in modules if "weight" in module and module["weight"].ndim == 2)
    norm = next(module for module in modules if "running_mean" in module)
    return {f"{name}.{kind}": t for name, m in (("up", up), ("norm", norm), ("down", down)) for kind, t in m.items()}


def _action_embedder(tensors: Tensors) -> tuple[Tensors, int]:
    """Tensors of our ActionEmbedder, a convolution of width 1 and two linear modules, and the width of an action."""
    modules = list(_modules(tensors).values())
    smooth = next(module for module in modules if module["weight"].ndim == 3)
    up, down = (module for module in modules if module["weight"].ndim == 2)
    smooth = {"weight": smooth["weight"][:, :, 0], "bias": smooth["bias"]}
    named = (("smooth", smooth), ("up", up), ("down", down))
    return {f"{name}.{kind}": t for name, m in named for kind, t in m.items()}, smooth["weight"].shape[1]


def _predictor(tensors: Tensors) -> tuple[Tensors, dict[str, int]]:
    """Tensors of our ConditionalPredictor, and its sizes."""
    blocks: dict[int, Tensors] = {}
    outside: Tensors = {}
    for name, tensor in tensors.items():
        match = re.match(r"(?:.*?\.)?(\d+)\.(.+)", name)
        (blocks.setdefault(int(match[1]), {}) if match else outside)[match[2] if match else name] = tensor
    positions = next(tensor for tensor in outside.values() if tensor.ndim == 3)  # (1, window, W)
    norm = next(module for module in _modules(outside).values() if "weight" in module)
    state = {"positions": positions, "norm.weight": norm["weight"], "norm.bias": norm["bias"]}
    width = positions.shape[2]
    modulations = []
    for i, block in sorted(blocks.items()):
        tensors_of_block, modulation = _block(block, width)
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in tensors_of_block.items()}
        modulations.append(modulation)
    for kind in ("weight", "bias"):
        state[f"modulate.{kind}"] = torch.cat([modulation[kind] for modulation in modulations])
    inner = state["blocks.0.attention.out.weight"].shape[1]
    return state, {
        "window": positions.shape[1],
        "predictor_width": width,
        "predictor_depth": len(blocks),
        "predictor_heads": max(1, inner // _VIT_HEAD_DIM),
        "predictor_head_dim": min(inner, _VIT_HEAD_DIM),
        "predictor_mlp": state["blocks.0.mlp.0.weight"].shape[0],
    }


def _block(tensors: Tensors, width: int) -> tuple[Tensors, Tensors]:
    """Tensors of our ConditionalBlock, and of the linear module that modulates it."""
    modules = _modules(tensors)
    linear = {name: module for name, module in modules.items() if module["weight"].ndim == 2}
    qkv_name = next(name for name, module in linear.items() if "bias" not in module)
    inner = linear[qkv_name]["weight"].shape[0] // 3
    modulation_name = next(name for name, m in linear.items() if m["weight"].shape == (6 * width, width))
    rest = [m for name, m in linear.items() if name not in (qkv_name, modulation_name)]
    out = next(module for module in rest if module["weight"].shape == (width, inner))
    up, down = (module for module in rest if module is not out)
    norms = {name: module for name, module in modules.items() if module["weight"].ndim == 1}
    attention_norm = max(norms, key=lambda name: _shared_parents(name, qkv_name))
    mlp_norm = next(name for name in norms if name != attention_norm)
    named = {"attention.qkv": linear[qkv_name], "attention.out": out, "mlp.0": up, "mlp.3": down}
    named |= {"attention_norm": norms[attention_norm], "mlp_norm": norms[mlp_norm]}
    state = {f"{name}.{kind}": tensor for name, module in named.items() for kind, tensor in module.items()}
    return state, linear[modulation_name]


def _shared_parents(a: str, b: str) -> int:
    """How many leading parts two module names share."""
    shared = 0
    for left, right in zip(a.split("."), b.split("."), strict=False):
        if left != right:
            break
        shared += 1
    return shared
