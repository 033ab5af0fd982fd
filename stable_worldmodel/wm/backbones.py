"""Image backbones by name, as frozen or trainable sources of patch features.

A name is one of `BACKBONES`; `vit` or `conv`, networks of this library without pretrained weights; `timm:<model>`; a
folder of weights in the layout of the `transformers` package; or a hub id `<owner>/<model>`. Weights are read from
safetensors only, and no code from a hub is run.

Shapes: B clips, T frames, P patches, W feature width.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stable_worldmodel.errors import ContractError, MissingDependencyError, require
from stable_worldmodel.wm.blocks import VisionTransformer, keep_scale
from stable_worldmodel.wm.tensors import IMAGE_MEAN, IMAGE_STD

_HALF = (0.5, 0.5, 0.5)
EXTRA = "backbones"


@dataclass(frozen=True)
class BackboneSpec:
    """A published backbone: where its weights are, and what it takes to build it without them."""

    hub_id: str
    model_type: str  # of the `transformers` package
    values: Mapping[str, Any] = field(default_factory=dict)  # of its config
    half: bool = False  # images normalised to [-1, 1] instead of by ImageNet's statistics


def _vit(hub_id: str, size: str, patch: int, model_type: str = "vit", half: bool = False, **more: Any) -> BackboneSpec:
    width, depth, heads, mlp = _VIT_SIZES[size]
    values = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "patch_size": patch}
    if model_type in ("vit", "ijepa", "siglip_vision_model", "dinov3_vit"):
        values["intermediate_size"] = mlp  # the others know the ratio
    return BackboneSpec(hub_id, model_type, {**values, **more}, half)


_VIT_SIZES = {  # width, depth, heads, MLP width
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
    "giant": (1536, 40, 24, 6144),
}
_VJEPA = {"patch_size": 16, "crop_size": 256, "tubelet_size": 2}
_RESNET = {"hidden_sizes": [256, 512, 1024, 2048]}
BACKBONES: dict[str, BackboneSpec] = {
    "dinov2_small": _vit("facebook/dinov2-small", "small", 14, "dinov2"),
    "dinov2_base": _vit("facebook/dinov2-base", "base", 14, "dinov2"),
    "dinov2_large": _vit("facebook/dinov2-large", "large", 14, "dinov2"),
    "dinov2_giant": _vit("facebook/dinov2-giant", "giant", 14, "dinov2", use_swiglu_ffn=True),
    "dinov3_small": _vit("facebook/dinov3-vits16-pretrain-lvd1689m", "small", 16, "dinov3_vit", num_register_tokens=4),
    "dino_vits16": _vit("facebook/dino-vits16", "small", 16),
    "dino_vits8": _vit("facebook/dino-vits8", "small", 8),
    "dino_vitb16": _vit("facebook/dino-vitb16", "base", 16),
    "dino_vitb8": _vit("facebook/dino-vitb8", "base", 8),
    "mae_base": _vit("facebook/vit-mae-base", "base", 16),
    "mae_large": _vit("facebook/vit-mae-large", "large", 16),
    "mae_huge": _vit("facebook/vit-mae-huge", "huge", 14),
    "ijepa_huge": _vit("facebook/ijepa_vith14_1k", "huge", 14, "ijepa"),
    "vjepa2_large": BackboneSpec("facebook/vjepa2-vitl-fpc64-256", "vjepa2", _VJEPA),
    "vjepa2_huge": BackboneSpec(
        "facebook/vjepa2-vith-fpc64-256",
        "vjepa2",
        {**_VJEPA, "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16},
    ),
    "webssl_large": _vit("facebook/webssl-dino300m-full2b-224", "large", 14, "dinov2"),
    "vit_base_patch16": _vit("google/vit-base-patch16-224", "base", 16, half=True),
    "vit_large_patch16": _vit("google/vit-large-patch16-224", "large", 16, half=True),
    "siglip2_base_224": _vit("google/siglip2-base-patch16-224", "base", 16, "siglip_vision_model", half=True),
    "siglip2_large_256": _vit("google/siglip2-large-patch16-256", "large", 16, "siglip_vision_model", half=True),
    "resnet_50": BackboneSpec("microsoft/resnet-50", "resnet", {**_RESNET, "depths": [3, 4, 6, 3]}),
    "resnet_101": BackboneSpec("microsoft/resnet-101", "resnet", {**_RESNET, "depths": [3, 4, 23, 3]}),
}


_LOADERS = {"vit": "ViTModel", "siglip_vision_model": "SiglipVisionModel"}


class Backbone(nn.Module):
    """Features of frames: `(B, T, 3, h, w)` uint8, or floats already normalised, to `(B, T, patches, width)`.

    Images of another size are resized on the device. A frozen backbone is always in eval mode and has no gradient.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, image_size: int, frozen: bool, mean: Any = IMAGE_MEAN, std: Any = IMAGE_STD) -> None:
        super().__init__()
        self.image_size = image_size
        self.frozen = frozen
        self.patches = 0
        self.width = 0
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.ndim != 5 or pixels.shape[2] != 3:
            raise ContractError(f"pixels {tuple(pixels.shape)}: expected (B, T, 3, h, w), channels first")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._features(self._frames(pixels))  # (B, T, P, W)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode and not self.frozen)
        return self

    def _freeze(self) -> None:
        if self.frozen:
            self.requires_grad_(False)
        self.train(self.training)

    def _frames(self, pixels: torch.Tensor) -> torch.Tensor:
        frames = pixels.flatten(0, 1).to(self.mean)  # (B * T, 3, h, w)
        size = (self.image_size, self.image_size)
        if frames.shape[2:] != size:
            frames = nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
        if pixels.dtype == torch.uint8:
            frames = (frames / 255 - self.mean) / self.std
        return frames.unflatten(0, pixels.shape[:2])  # (B, T, 3, s, s)

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T, P, W) of normalised frames (B, T, 3, s, s)."""
        raise NotImplementedError


class ScratchViT(Backbone):
    """The transformer of this library, for training from scratch or, frozen, as random features."""

    def __init__(
        self,
        image_size: int,
        frozen: bool,
        patch_size: int = 14,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_width: int = 768,
    ) -> None:
        super().__init__(image_size, frozen)
        if image_size % patch_size:
            raise ContractError(f"image_size={image_size}: expected a multiple of patch_size={patch_size}")
        self.model = VisionTransformer(image_size, patch_size, width, depth, heads, mlp_width)
        self.patches, self.width = (image_size // patch_size) ** 2, width
        self._freeze()

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        return self.model.patch_features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


class ScratchConv(Backbone):
    """Strided convolutions, each of half the resolution, for training from scratch: the quickest to learn from little.

    Args:
        channels: of the layers before the last.
        width: channels of the last layer, the features of a patch; with n layers, patches are 2^n px wide.
    """

    def __init__(self, image_size: int, frozen: bool, channels: Sequence[int] = (16, 32, 64), width: int = 16) -> None:
        super().__init__(image_size, frozen)
        patch_size = 2 ** (len(channels) + 1)
        if image_size % patch_size:
            raise ContractError(f"image_size={image_size}: expected a multiple of {patch_size}, for {channels=}")
        layers: list[nn.Module] = []
        for before, after in pairwise([3, *channels, width]):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GELU()]
        self.model = nn.Sequential(*layers[:-1])
        keep_scale(self.model)
        self.patches, self.width = (image_size // patch_size) ** 2, width
        self._freeze()

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        found = self.model(frames.flatten(0, 1))  # (B * T, W, s, s)
        return found.flatten(2).transpose(1, 2).unflatten(0, frames.shape[:2])


class TransformersBackbone(Backbone):
    """A model of the `transformers` package; class and register tokens are dropped, ResNets give one token."""

    def __init__(self, model: nn.Module, image_size: int, frozen: bool, mean: Any, std: Any) -> None:
        super().__init__(image_size, frozen, mean, std)
        self.model = model
        config: Any = model.config
        self.is_video = config.model_type == "vjepa2"
        self.is_convolutional = config.model_type == "resnet"
        if self.is_convolutional:
            self.patches, self.width = 1, config.hidden_sizes[-1]
            self.norm = nn.LayerNorm(self.width, elementwise_affine=False)  # in place of the classifier
        else:
            self.patches, self.width = (image_size // config.patch_size) ** 2, config.hidden_size
        interpolates = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        resized = getattr(config, "image_size", image_size) not in (image_size, [image_size, image_size])
        self._options = {"interpolate_pos_encoding": True} if interpolates and resized else {}
        self._freeze()

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        if self.is_video:
            return torch.stack([self._video(frames[:, : t + 1]) for t in range(frames.shape[1])], dim=1)
        output = self.model(pixel_values=frames.flatten(0, 1), **self._options)
        if self.is_convolutional:
            features = self.norm(output.pooler_output.flatten(1))[:, None]  # (B * T, 1, W)
        else:
            features = output.last_hidden_state[:, -self.patches :]  # (B * T, P, W)
        return features.unflatten(0, frames.shape[:2])

    def _video(self, frames: torch.Tensor) -> torch.Tensor:
        """Features (B, P, W) of the newest of frames (B, t, 3, s, s), seen after the others."""
        config: Any = self.model.config
        missing = -frames.shape[1] % config.tubelet_size
        padded = torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
        output = self.model(pixel_values_videos=padded, skip_predictor=True)
        return output.last_hidden_state[:, -self.patches :]  # tokens of the last tubelet


class TimmBackbone(Backbone):
    """A vision transformer of the `timm` package."""

    def __init__(self, name: str, pretrained: bool, image_size: int, frozen: bool, options: Mapping[str, Any]) -> None:
        try:
            timm = importlib.import_module("timm")
        except ImportError as error:
            raise MissingDependencyError(
                f"backbone 'timm:{name}' needs the package timm ({error}); install it with: pip install timm"
            ) from error
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=image_size, **options)
        super().__init__(image_size, frozen, model.default_cfg["mean"], model.default_cfg["std"])
        self.model = model
        self.patches, self.width = model.patch_embed.num_patches, model.num_features
        self._freeze()

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        features = self.model.forward_features(frames.flatten(0, 1))  # (B * T, 1 + P, W)
        return features[:, -self.patches :].unflatten(0, frames.shape[:2])


_SCRATCH: dict[str, type[Backbone]] = {"vit": ScratchViT, "conv": ScratchConv}


def create_backbone(
    name: str,
    *,
    image_size: int = 224,
    pretrained: bool = True,
    frozen: bool = True,
    revision: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """The backbone `name`, see above.

    Args:
        pretrained: load weights; otherwise they are random and nothing is read or downloaded.
        revision: of a hub id: a commit, tag or branch.
        options: values of the architecture's config, for backbones without pretrained weights.

    Raises:
        ContractError: for an unknown name or option.
        MissingDependencyError: the package it comes from is not installed.
    """
    values = dict(options or {})
    try:
        if name in _SCRATCH:
            return _SCRATCH[name](image_size, frozen, **values)
        if name.startswith("timm:"):
            return TimmBackbone(name.removeprefix("timm:"), pretrained, image_size, frozen, values)
        return _from_transformers(name, image_size, pretrained, frozen, revision, values)
    except TypeError as error:
        raise ContractError(f"backbone {name!r} with options {values}: {error}") from error


def _from_transformers(
    name: str, image_size: int, pretrained: bool, frozen: bool, revision: str | None, values: dict[str, Any]
) -> Backbone:
    spec, folder = BACKBONES.get(name), Path(name).expanduser()
    if spec is None and not folder.is_dir() and name.count("/") != 1:
        raise ContractError(
            f"unknown backbone {name!r}: expected 'vit', 'conv', 'timm:<model>', a folder, a hub id '<owner>/<model>' "
            f"or one of {sorted(BACKBONES)}"
        )
    transformers = require("transformers", EXTRA)
    mean, std = (_HALF, _HALF) if spec is not None and spec.half else (IMAGE_MEAN, IMAGE_STD)
    if not pretrained:
        if spec is None:
            raise ContractError(
                f"backbone {name!r} without weights: expected one of {sorted(BACKBONES)} or 'vit', 'conv'"
            )
        size_name = "crop_size" if spec.model_type == "vjepa2" else "image_size"
        config = transformers.AutoConfig.for_model(spec.model_type, **{**spec.values, size_name: image_size, **values})
        return TransformersBackbone(transformers.AutoModel.from_config(config), image_size, frozen, mean, std)
    if spec is not None:
        # By class: MAE weights in their own one would mask and shuffle patches, those of SigLIP bring a text model.
        loader = getattr(transformers, _LOADERS.get(spec.model_type, "AutoModel"))
        model = _loaded(transformers, loader, name, spec.hub_id, revision)
        return TransformersBackbone(model, image_size, frozen, mean, std)
    source = str(folder) if folder.is_dir() else name
    model = _loaded(transformers, transformers.AutoModel, name, source, revision)
    if folder.is_dir():
        mean, std = _normalisation(folder, mean, std)
    return TransformersBackbone(model, image_size, frozen, mean, std)


def _loaded(transformers: Any, loader: Any, name: str, source: str, revision: str | None) -> nn.Module:
    """The model with its weights. ContractError if they cannot be had, or not all of them are there."""
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        model, report = loader.from_pretrained(
            source, revision=revision or "main", use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        raise ContractError(f"backbone {name!r} could not be loaded from {source}: {error}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    # What is missing would be random without a word; no feature is read behind the pooler.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ContractError(f"{source} does not hold the weights of backbone {name!r}: {missing[:3]} are missing")
    return model


def _normalisation(folder: Path, mean: Any, std: Any) -> tuple[Any, Any]:
    """Mean and standard deviation that a folder of weights asks for."""
    path = folder / "preprocessor_config.json"
    values = json.loads(path.read_text()) if path.is_file() else {}
    return values.get("image_mean", mean), values.get("image_std", std)
