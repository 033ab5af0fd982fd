"""Trained models on disk: a folder with `weights.safetensors` and `config.json`.

Nothing here unpickles: loading a checkpoint runs no code but this library's. `config.json` names one of the registered
models, its sizes, the scalers of its inputs and the hash of the weights it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from stable_worldmodel.data.normalization import Scaler, scaler_from_dict
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.utils.files import write_atomically
from stable_worldmodel.wm.registry import build_model, config_from_dict

if TYPE_CHECKING:
    import torch
    from torch import nn

WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, in eval mode on the CPU."""

    model: Any  # the nn.Module; Any, because each class promises protocols of its own
    scalers: dict[str, Scaler]  # by the column they scale
    extra: dict[str, Any]  # whatever the writer added


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    scalers: Mapping[str, Scaler] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model` with its scalers and JSON-able `extra` into `folder` and return the folder.

    Each file is complete or not there, and one interrupted between the two is found by its hash when loaded.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model_config: Any = model.config
    weights = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    config = {
        "type": model_config.model_type,
        "config": asdict(model_config),
        "scalers": {column: scaler.to_dict() for column, scaler in (scalers or {}).items()},
        "extra": dict(extra or {}),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(config, indent=2)
    write_atomically(folder / WEIGHTS_FILE, weights)
    write_atomically(folder / CONFIG_FILE, text.encode())
    return folder


def load_pretrained(path: str | Path) -> nn.Module:
    """The model saved in the folder `path`, in eval mode on the CPU."""
    return load_checkpoint(path).model


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The model saved in the folder `path`, with its scalers and extra values.

    Raises NotFoundError if the folder or one of its files is missing and ContractError if it holds something else: a
    pickle, an unregistered model, weights of other shapes or of another config.
    """
    folder = Path(path)
    _require_files(folder)
    config = _read_config(folder / CONFIG_FILE)
    data = (folder / WEIGHTS_FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != config["weights_sha256"]:
        raise ContractError(
            f"{folder / WEIGHTS_FILE} is not the file {CONFIG_FILE} was written for (its hash differs); "
            "the copy is damaged or saving was interrupted: copy or save the checkpoint again"
        )
    try:
        weights = load(data)
    except SafetensorError as error:
        raise ContractError(f"{folder / WEIGHTS_FILE} is not a safetensors file: {error}") from error
    model = build_model(config_from_dict(config["type"], config["config"]))
    _check_shapes(folder, model.state_dict(), weights)
    model.load_state_dict(weights)
    scalers = {column: scaler_from_dict(values) for column, values in config["scalers"].items()}
    return Checkpoint(model.eval(), scalers, config["extra"])


def _require_files(folder: Path) -> None:
    if folder.suffix in _PICKLES:
        raise ContractError(
            f"{folder} is a PyTorch pickle, which can run any code when loaded; if you trust it, read its state dict "
            "with torch.load(path, weights_only=True), load that into the model and call save_pretrained(model, folder)"
        )
    if not folder.is_dir():
        raise NotFoundError(f"no checkpoint folder {folder}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (folder / name).is_file():
            continue
        found = sorted(entry.name for entry in folder.iterdir())
        pickles = [file for file in found if Path(file).suffix in _PICKLES]
        hint = f"; {pickles[0]} is a PyTorch pickle, which is never loaded" if pickles else ""
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


def _check_shapes(folder: Path, expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """ContractError that names the first tensors that are missing, left over or of another shape."""
    wrong = [
        f"{name}: expected {_shape(expected, name)}, found {_shape(found, name)}"
        for name in sorted({*expected, *found})
        if _shape(expected, name) != _shape(found, name)
    ]
    if wrong:
        raise ContractError(
            f"{folder / WEIGHTS_FILE} does not fit the model in {CONFIG_FILE}, {len(wrong)} tensors differ: "
            + "; ".join(wrong[:3])
        )


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
