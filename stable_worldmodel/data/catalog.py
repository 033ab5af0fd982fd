"""What there is: the datasets and models of the data root, the registered worlds, and what they are like.

`delete_dataset` and `delete_model` are meant for people at a prompt and print what they did, as they always have.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from stable_worldmodel.data.cache import (
    CHECKPOINTS,
    DATASETS,
    FOLDERS,
    dataset_places,
    features_path,
    first_dataset,
    get_cache_dir,
    inside,
    validate_name,
)
from stable_worldmodel.data.columns import DERIVED_COLUMNS
from stable_worldmodel.data.lock import DatasetLockedError, WriterLock
from stable_worldmodel.data.registry import FORMATS, PathLike, detect_format, format_of, load_dataset
from stable_worldmodel.errors import ContractError

VARIATION_PREFIX = "variation."
WEIGHTS = ("weights.safetensors", "weights.pt")  # in the folder of a trained model
_OBJECT = re.compile(r"(?P<name>.+)_object\.ckpt")
_STATE = re.compile(r"(?P<name>.+)_weights.*\.ckpt")  # greedy: the last `_weights` ends the name


class SpaceInfo(TypedDict, total=False):
    """A space in plain values. `shape`, `low`, `high` and `n` are there where the space has them."""

    shape: tuple[int, ...]
    type: str  # name of the class
    dtype: str
    low: Any  # array
    high: Any  # array
    n: int


class VariationInfo(TypedDict):
    """The factors of variation of a world; `type` is the class of their space, `names` their dotted names."""

    has_variation: bool
    type: str | None
    names: list[str] | None


class WorldInfo(TypedDict):
    """What a world is like. The two spaces are mappings for Dict spaces and lists for Tuple spaces."""

    name: str
    observation_space: Any
    action_space: Any
    variation: VariationInfo
    config: dict[str, Any]  # image_shape, render_mode, max_episode_steps (the registered limit, None if there is none)


# -- datasets ---------------------------------------------------------------------------------------------------------


def list_datasets() -> list[str]:
    """Return the names of the datasets in the data root and in its folder `datasets`, sorted.

    A name is what `load_dataset` and `delete_dataset` take. It has no suffix, unless two datasets differ in it only.
    A dataset in `datasets` that one of the same full name in the root hides is left out.
    """
    return sorted(name for name, _ in local_datasets())


def local_datasets() -> Iterator[tuple[str, Path]]:
    """Yield name and path of each dataset that `list_datasets` names."""
    for path in _dataset_entries():
        if name := _name_of(path):
            yield name, path


def dataset_info(name: PathLike) -> dict[str, Any]:
    """Describe a dataset by name or path.

    Returns `name`, `num_episodes`, `num_steps` (rows of all episodes), `columns` (derived ones included), `obs_shape`,
    `action_shape` and `goal_shape` (of one row of `pixels`, `action` and `goal`; None without the column), `variation`
    (`has_variation`, and `names` without the prefix) and `metadata` (what the recording run noted about itself).

    Raises NotFoundError when there is no such dataset, ContractError when it has no `action` or no episode index.
    """
    dataset = load_dataset(name)
    if "action" not in dataset.columns:
        raise ContractError(f"dataset {str(name)!r} has no column 'action', only {sorted(dataset.columns)}")
    factors = [key.removeprefix(VARIATION_PREFIX) for key in dataset.columns if key.startswith(VARIATION_PREFIX)]
    shapes = {key: column.shape for key, column in dataset.columns.items()}
    return {
        "name": str(name),
        "num_episodes": dataset.num_episodes,
        "num_steps": int(dataset.lengths.sum()),
        "columns": [*dataset.columns, *(key for key in DERIVED_COLUMNS if key not in dataset.columns)],
        "obs_shape": shapes.get("pixels"),
        "action_shape": shapes["action"],
        "goal_shape": shapes.get("goal"),
        "variation": {"has_variation": bool(factors), "names": factors},
        "metadata": dict(dataset.metadata),
    }


def delete_dataset(name: str) -> bool:
    """Delete a dataset of the data root, with the files beside it that belong to it, and print the outcome.

    Returns False, and deletes nothing, when there is no such dataset or a writer holds it. Raises ContractError for
    names with folders, and for what symbolic links lead out of the data root.
    """
    validate_name(name, nested=False)
    root = get_cache_dir()
    path = None if name in FOLDERS else _find(name, root)
    if path is None:
        print(f"Error: no dataset {name!r} in {root}; there are {list_datasets()}")
        return False
    inside(path.parent, path.name)
    # Of a link only the link goes.
    beside = [] if path.is_symlink() else [*format_of(path).side_files(path), features_path(path)]
    try:
        with WriterLock(path):
            for part in [path, *beside]:  # the dataset first: what is beside it means nothing without it
                _remove(part)
    except DatasetLockedError as error:
        print(f"Error: {error}")
        return False
    print(f"Deleted dataset {name!r}: {path}")
    return True


def _find(name: str, root: Path) -> Path | None:
    """Return the dataset that `name` means in the data root, or None."""
    return first_dataset([place for folder in (root, root / DATASETS) for place in dataset_places(folder / name)])


def _dataset_entries() -> Iterator[Path]:
    root = get_cache_dir()
    for folder in (root, root / DATASETS):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            hidden = path.name.startswith(".") or path.name.endswith((".partial", ".shards"))
            if not hidden and not (folder == root and path.name in FOLDERS) and detect_format(path):
                yield path


def _name_of(path: Path) -> str | None:
    """Return the shortest name that means `path`, or None."""
    suffixes = [suffix for fmt in FORMATS.values() for suffix in fmt.suffixes]
    short = [path.name.removesuffix(suffix) for suffix in suffixes if path.name.endswith(suffix)]
    return next((name for name in (*short, path.name) if name and _find(name, get_cache_dir()) == path), None)


# -- models -----------------------------------------------------------------------------------------------------------


def list_models() -> list[str]:
    """Return the names of the models in the data root, sorted.

    A model is a folder with weights in `checkpoints`, or files `<name>_object.ckpt` and `<name>_weights*.ckpt` of
    earlier releases, in `checkpoints` or in the root itself.
    """
    return sorted({name for name, _ in _model_entries()})


def delete_model(name: str) -> bool:
    """Delete exactly the files and the folder of one model, and print a line for each.

    Returns False when there is no such model. Raises ContractError for names with folders, and for what symbolic links
    lead out of the data root.
    """
    validate_name(name, nested=False)
    paths = [path for model, path in _model_entries() if model == name]
    for path in paths:
        inside(path.parent, path.name)  # all of them before the first is gone
    for path in paths:
        _remove(path)
        print(f"Deleted {path}")
    if not paths:
        print(f"Error: no model {name!r} in {get_cache_dir()}; there are {list_models()}")
    return bool(paths)


def _model_entries() -> Iterator[tuple[str, Path]]:
    """Yield the name of a model with each file or folder of it."""
    root = get_cache_dir()
    for folder in (root, root / CHECKPOINTS):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _OBJECT.fullmatch(path.name) or _STATE.fullmatch(path.name)
            if match and not path.is_dir():
                yield match["name"], path
            elif folder != root and path.is_dir() and _holds_weights(path):
                yield path.name, path


def _holds_weights(folder: Path) -> bool:
    names = {path.name for place in (folder, folder / "checkpoint") if place.is_dir() for path in place.iterdir()}
    return not names.isdisjoint(WEIGHTS) or any(name.endswith((".ckpt", ".safetensors")) for name in names)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- worlds -----------------------------------------------------------------------------------------------------------


def list_worlds() -> list[str]:
    """Return the ids of the worlds of this library, and of those registered with `envs.register`, sorted."""
    from stable_worldmodel.envs import WORLDS

    return sorted(WORLDS)


def world_info(
    name: str, *, image_shape: tuple[int, int] = (224, 224), render_mode: str | None = "rgb_array"
) -> WorldInfo:
    """Describe a world: spaces, factors of variation, configuration. Builds one env for it, and closes that.

    name: any id registered with Gymnasium; a bare one means `swm/<name>`. image_shape: size of the images of a World
    with these settings, (H, W) or (H, W, C). Every call returns a copy of its own. Raises ContractError for an unknown
    id, naming the known ones, and for an impossible `image_shape`.
    """
    import gymnasium

    from stable_worldmodel.envs import resolve_id
    from stable_worldmodel.wrappers.images import parse_image_shape

    parse_image_shape(image_shape)
    try:
        id = resolve_id(name)
        spec = repr(gymnasium.spec(id))
    except gymnasium.error.Error as error:
        raise ContractError(f"{error}; the worlds are {list_worlds()}") from error
    return copy.deepcopy(_describe_world(id, spec, tuple(image_shape), render_mode))


@lru_cache(maxsize=64)
def _describe_world(id: str, spec: str, image_shape: tuple[int, ...], render_mode: str | None) -> WorldInfo:
    """Build and describe a world. `spec` is part of the key: an id may be registered again."""
    import gymnasium

    env = gymnasium.make(id, render_mode=render_mode, disable_env_checker=True)
    try:
        variation = getattr(env.unwrapped, "variation_space", None)
        limit = env.spec.max_episode_steps if env.spec else None
        return {
            "name": id,
            "observation_space": _describe_space(env.observation_space),
            "action_space": _describe_space(env.action_space),
            "variation": {
                "has_variation": variation is not None,
                "type": None if variation is None else type(variation).__name__,
                "names": None if variation is None else [*_factor_names(variation)],
            },
            "config": {"image_shape": image_shape, "render_mode": render_mode, "max_episode_steps": limit},
        }
    finally:
        env.close()


def _describe_space(space: Any) -> Any:
    """Return a SpaceInfo; a dict of them for a Dict space, a list for a Tuple space."""
    if isinstance(getattr(space, "spaces", None), dict):
        return {key: _describe_space(child) for key, child in space.spaces.items()}
    if hasattr(space, "spaces"):
        return [_describe_space(child) for child in space.spaces]
    info: SpaceInfo = {"type": type(space).__name__}
    if space.shape is not None:
        info["shape"] = tuple(space.shape)
    if space.dtype is not None:
        info["dtype"] = str(space.dtype)
    if hasattr(space, "low"):
        info["low"], info["high"] = space.low, space.high
    if hasattr(space, "n"):
        info["n"] = int(space.n)
    return info


def _factor_names(space: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the leaves of a Dict space."""
    if not prefix and hasattr(space, "names"):
        yield from space.names()
        return
    for key, child in getattr(space, "spaces", {}).items():
        if hasattr(child, "spaces"):
            yield from _factor_names(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
