"""Costs by name: find a checkpoint, load it, and pick the part of the model that scores action sequences."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from stable_worldmodel.data.cache import get_cache_dir
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.wm.checkpoint import CONFIG_FILE, load_pretrained, read_module


def AutoCostModel(model_name: str | Path, cache_dir: str | Path | None = None, *, trust_pickle: bool = False) -> Any:
    """The first module with `get_cost` in a saved model, depth first, in eval mode on the CPU.

    Args:
        model_name: an existing path, or a name below `checkpoints` of the data root or below the root itself. It means
            a folder with `config.json` and `weights.safetensors` (or its parent, the folder of a training run), or of
            earlier releases `<name>_object.ckpt`, `<name>_weights*.ckpt`, or a folder of such objects, the newest.
        cache_dir: data root; None is the usual one.
        trust_pickle: allow files of earlier releases. They are pickled modules, and unpickling runs whatever code they
            hold.

    Raises:
        NotFoundError: there is no such model; the message lists where it was looked for.
        RuntimeError: no module has `get_cost`, or the file is a pickle that is not trusted or holds no module.
    """
    path = _find(model_name, cache_dir)
    model = load_pretrained(path) if path.is_dir() else _unpickle(path, trust_pickle)
    for module in model.modules():  # parents before children: depth first
        if callable(getattr(module, "get_cost", None)):
            return module.eval()
    raise RuntimeError(
        f"no module of the {type(model).__name__} in {path} has get_cost; if it is a world model, load it with "
        "stable_worldmodel.wm.load_pretrained and wrap it in stable_worldmodel.planning.ShootingCostEvaluator"
    )


def _find(model_name: str | Path, cache_dir: str | Path | None) -> Path:
    """The folder of a checkpoint, or a pickle of earlier releases."""
    name = Path(model_name).expanduser()
    if not name.parts or not str(model_name).strip():
        raise ContractError(f"model_name={str(model_name)!r}: expected a name or a path")
    places = [Path.cwd() / name]  # an absolute path replaces the working directory
    if not name.is_absolute() and ".." not in name.parts:
        root = get_cache_dir(cache_dir)
        places += [root / "checkpoints" / name, root / name]
    for place in places:
        for found in _checkpoints_at(place):
            return found
    tried = "\n  ".join(map(str, places))
    raise NotFoundError(
        f"model {str(model_name)!r} was not found; looked for a checkpoint folder, <name>_object.ckpt and "
        f"<name>_weights*.ckpt at:\n  {tried}"
    )


def _checkpoints_at(place: Path) -> Iterator[Path]:
    """What `place` may mean, the best first."""
    if place.is_file():
        yield place
    for folder in (place, place / "checkpoint"):
        if (folder / CONFIG_FILE).is_file():
            yield folder
    if place.is_dir():
        yield from _newest_first(place.glob("*_object.ckpt"))
    name = glob.escape(place.name)
    yield from _newest_first(place.parent.glob(f"{name}_object.ckpt"))
    yield from _newest_first(place.parent.glob(f"{name}_weights*.ckpt"))


def _newest_first(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def _unpickle(path: Path, trust_pickle: bool) -> nn.Module:
    if not trust_pickle:
        raise RuntimeError(
            f"{path} is a pickled module, which can run any code when loaded; if you trust where it comes from, pass "
            "trust_pickle=True, and save it once as weights with stable_worldmodel.wm.save_pretrained"
        )
    try:
        return read_module(path)
    except ContractError as error:
        raise RuntimeError(str(error)) from error
