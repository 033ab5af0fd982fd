"""Saving and loading by the name of a run, as earlier releases did it.

A run is the folder `checkpoints/<run>` of the cache root; its layout is that of `wm.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_worldmodel.data.cache import CHECKPOINTS, get_cache_dir, validate_name
from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm import checkpoint
from stable_worldmodel.wm.checkpoint import load_pretrained

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_pretrained", "save_pretrained"]


def save_pretrained(
    model: nn.Module,
    run_name: str,
    config: Mapping[str, Any] | None = None,
    config_key: str | None = None,
    filename: str = checkpoint.WEIGHTS_FILE,
    cache_dir: str | Path | None = None,
) -> Path:
    """Write the checkpoint of run `run_name` and return its folder.

    The model's own config says what it is; `config`, or its entry `config_key`, is stored beside it as what the run
    was.
    Weights have one file name: ContractError for another `filename`.
    """
    if filename not in (checkpoint.WEIGHTS_FILE, "weights.pt"):
        raise ContractError(f"filename={filename!r}: expected {checkpoint.WEIGHTS_FILE!r}")
    if config_key is not None and config_key not in (config or {}):
        raise ContractError(f"config_key={config_key!r}: expected one of {sorted(config or {})}")
    run = config if config_key is None else (config or {})[config_key]
    folder = get_cache_dir(cache_dir, CHECKPOINTS) / validate_name(run_name)
    return checkpoint.save_pretrained(model, folder, extra={} if run is None else {"run": run})
