"""Trained models on disk: a folder with `weights.safetensors` and `config.json`.

Nothing here unpickles unless told to: loading a checkpoint runs no code but this library's. `config.json` names one of
the registered models, its sizes, the scalers of its inputs, the split of its data, the protocol it is evaluated by, the
code that wrote it, and the hash of the weights it belongs to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stable_worldmodel.data.normalization import Scaler, scaler_from_dict
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.utils.files import write_atomically
from stable_worldmodel.utils.provenance import git_revision, package_versions
from stable_worldmodel.wm.hub import CONFIG_FILE, PUBLIC_WEIGHTS, WEIGHTS_FILE, locate, push_to_hub
from stable_worldmodel.wm.legacy import lewm_from_public, read_state_dict
from stable_worldmodel.wm.probes import PREFIX, Probe, attach_probe, probe_sizes
from stable_worldmodel.wm.registry import ModelConfig, build_model, config_from_dict

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Checkpoint",
    "checkpoint_info",
    "load_checkpoint",
    "load_pretrained",
    "push_to_hub",
    "save_pretrained",
]

logger = logging.getLogger(__name__)

_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, in eval mode on the CPU, and what was saved with it."""

    model: Any  # the nn.Module; Any, because each class promises protocols of its own
    scalers: dict[str, Scaler]  # by the column they scale
    extra: dict[str, Any]  # whatever the writer added
    split: dict[str, list[int]] = field(default_factory=dict)  # episode numbers by part of the data
    protocol: dict[str, Any] = field(default_factory=dict)  # how the model is evaluated
    code: dict[str, Any] = field(default_factory=dict)  # versions and git revision of what saved it


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    scalers: Mapping[str, Scaler] | None = None,
    split: Mapping[str, Sequence[int]] | None = None,
    protocol: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    with_backbone: bool = False,
) -> Path:
    """Write `model` with what it takes to use it into `folder` and return the folder.

    Each file is complete or not there, and one interrupted between the two is found by its hash when loaded.

    Args:
        split: episode numbers of the parts of the data, e.g. `train` and `val`.
        protocol, extra: JSON values; how the model is to be evaluated, and anything else.
        with_backbone: also store the weights of a pretrained, frozen backbone, of which otherwise only the name is
            stored.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model_config: Any = model.config
    probes = probe_sizes(model)
    left_out = () if with_backbone else tuple(getattr(model, "reference_prefixes", ()))
    tensors = {name: t.contiguous() for name, t in model.state_dict().items() if not name.startswith(left_out or "\0")}
    # Probes of other kinds cannot be built from their sizes: they are saved by `save_probe`.
    tensors = {n: t for n, t in tensors.items() if not n.startswith(PREFIX) or n.split(".")[1] in probes}
    weights = save(tensors)
    config = {
        "type": model_config.model_type,
        "config": asdict(model_config),
        "scalers": {column: scaler.to_dict() for column, scaler in (scalers or {}).items()},
        "split": {part: [int(episode) for episode in episodes] for part, episodes in (split or {}).items()},
        "protocol": dict(protocol or {}),
        "extra": dict(extra or {}),
        "probes": probes,
        "code": {"versions": package_versions(), "git_revision": git_revision()},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(config, indent=2)
    write_atomically(folder / WEIGHTS_FILE, weights)
    write_atomically(folder / CONFIG_FILE, text.encode())
    return folder


def load_pretrained(
    name: str | Path,
    cache_dir: str | Path | None = None,
    extra_args: Mapping[str, Any] | None = None,
    *,
    revision: str | None = None,
    trust_pickle: bool = False,
) -> nn.Module:
    """The model of a checkpoint, in eval mode on the CPU; see `load_checkpoint`."""
    return load_checkpoint(name, cache_dir, extra_args, revision=revision, trust_pickle=trust_pickle).model


def load_checkpoint(
    name: str | Path,
    cache_dir: str | Path | None = None,
    extra_args: Mapping[str, Any] | None = None,
    *,
    revision: str | None = None,
    trust_pickle: bool = False,
) -> Checkpoint:
    """A model with its scalers, split, protocol and extra values.

    Args:
        name: a folder, the name of a run below the cache root, or a hub id `<owner>/<repository>`. The published LeWM
            weights, a `weights.pt` in a folder or by itself, are recognised and read without unpickling objects.
        cache_dir: the cache root; None is the usual one.
        extra_args: config values to replace, e.g. {"rollout_rows": 64}; entries of a dict as {"inputs.proprio": 4}.
        revision: of a hub id: a commit, tag or branch.
        trust_pickle: allow a file in which an earlier release pickled a module. Unpickling runs whatever code it holds.

    Raises NotFoundError if there is no such checkpoint or one of its files is missing, and ContractError if it holds
    something else: a pickle that is not trusted, an unregistered model, weights of other shapes or of another config.
    """
    path = locate(name, cache_dir, revision)
    if path.is_file() or _is_public(path):
        return _load_file(path if path.is_file() else path / PUBLIC_WEIGHTS, trust_pickle)
    _require_files(path)
    config = _read_config(path / CONFIG_FILE)
    weights = _read_weights(path / WEIGHTS_FILE, config["weights_sha256"])
    model_config = _replaced(config_from_dict(config["type"], config["config"]), extra_args or {})
    model = build_model(model_config)
    for key, sizes in config.get("probes", {}).items():
        attach_probe(model, key, Probe(*sizes))
    _load(path / WEIGHTS_FILE, model, weights)
    scalers = {column: scaler_from_dict(values) for column, values in config["scalers"].items()}
    more = {key: config.get(key, {}) for key in ("split", "protocol", "code")}
    return Checkpoint(model.eval(), scalers, config["extra"], **more)


def checkpoint_info(
    name: str | Path, cache_dir: str | Path | None = None, *, revision: str | None = None
) -> dict[str, Any]:
    """What a checkpoint says about itself, without its weights: JSON values.

    `path`, `type` and `config` of the model, `scalers`, `split`, `protocol`, `code`, `extra` and `weights_sha256`;
    empty where it was written without. Names and errors are those of `load_checkpoint`.
    """
    path = locate(name, cache_dir, revision)
    if path.is_file() or _is_public(path):
        raise ContractError(f"{path} holds weights and nothing else: expected a checkpoint that save_pretrained wrote")
    _require_files(path)
    config = _read_config(path / CONFIG_FILE)
    return {"path": str(path), **{key: {} for key in ("split", "protocol", "code")}, **config}


def _is_public(folder: Path) -> bool:
    """Whether a folder has published weights and not those of this library."""
    return folder.is_dir() and (folder / PUBLIC_WEIGHTS).is_file() and not (folder / WEIGHTS_FILE).is_file()


def _load_file(path: Path, trust_pickle: bool) -> Checkpoint:
    """Published weights, or a module that an earlier release pickled."""
    if path.suffix not in _PICKLES:
        raise ContractError(f"{path} is not a checkpoint: expected its folder, or published weights ({PUBLIC_WEIGHTS})")
    if trust_pickle:
        return Checkpoint(read_module(path).eval(), {}, {})
    try:
        model_config, weights = lewm_from_public(read_state_dict(path))
    except ContractError as error:
        raise ContractError(
            f"{error}; a pickled module of an earlier release can run any code when loaded: pass trust_pickle=True if "
            "you trust where it comes from, and save it once with save_pretrained"
        ) from error
    model = build_model(model_config)
    _load(path, model, weights)
    return Checkpoint(model.eval(), {}, {"source": path.name})


def read_module(path: Path) -> nn.Module:
    """The module that an earlier release pickled into a file, on the CPU. Runs whatever code the file holds.

    Raises ContractError if its code is gone or the file holds something else.
    """
    logger.warning("unpickling %s, which runs the code it holds", path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise ContractError(f"{path} needs the code it was saved with: {error}") from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise ContractError(f"{path} is not a file that torch.save wrote: {error}") from error
    if not isinstance(loaded, torch.nn.Module):
        raise ContractError(
            f"{path} holds a {type(loaded).__name__}, not a module; if it is a state dict, build the model, call "
            "load_state_dict and save it with stable_worldmodel.wm.save_pretrained"
        )
    return loaded


def _replaced(config: ModelConfig, values: Mapping[str, Any]) -> ModelConfig:
    """`config` with single values replaced; ContractError for a value it does not have."""
    changes: dict[str, Any] = {}
    for name, value in values.items():
        first, _, key = name.partition(".")
        if first not in config.__dataclass_fields__:
            raise ContractError(
                f"{type(config).__name__} has no value {first!r}, only {sorted(config.__dataclass_fields__)}"
            )
        changes[first] = {**changes.get(first, getattr(config, first)), key: value} if key else value
    return dataclasses.replace(config, **changes)


def _require_files(folder: Path) -> None:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (folder / name).is_file():
            continue
        found = sorted(entry.name for entry in folder.iterdir())
        pickles = [file for file in found if Path(file).suffix in _PICKLES]
        hint = f"; {pickles[0]} is a PyTorch pickle, which is never loaded from a folder" if pickles else ""
        raise NotFoundError(f"checkpoint folder {folder} has no {name}, only {found[:8]}{hint}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ContractError(f"{path} is not JSON: {error}") from error
    expected = {"type", "config", "scalers", "extra", "weights_sha256"}
    if not isinstance(config, dict) or not expected <= config.keys():
        raise ContractError(
            f"{path} is not a checkpoint config of this library: expected the keys {sorted(expected)}; "
            "save the model with save_pretrained"
        )
    return config


def _read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ContractError(
            f"{path} is not the file {CONFIG_FILE} was written for (its hash differs); "
            "the copy is damaged or saving was interrupted: copy or save the checkpoint again"
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise ContractError(f"{path} is not a safetensors file: {error}") from error


def _load(path: Path, model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights into a model, all of them but those of a backbone that was stored by name."""
    expected = model.state_dict()
    by_name = tuple(getattr(model, "reference_prefixes", ()))
    if by_name and not any(name.startswith(by_name) for name in weights):
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith(by_name)}
    _check_shapes(path, expected, weights)
    model.load_state_dict(weights, strict=len(expected) == len(model.state_dict()))


def _check_shapes(path: Path, expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """ContractError that names the first tensors that are missing, left over or of another shape."""
    wrong = [
        f"{name}: expected {_shape(expected, name)}, found {_shape(found, name)}"
        for name in sorted({*expected, *found})
        if _shape(expected, name) != _shape(found, name)
    ]
    if wrong:
        raise ContractError(
            f"{path} does not fit the model in {CONFIG_FILE}, {len(wrong)} tensors differ: " + "; ".join(wrong[:3])
        )


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
