"""Where datasets live: the cache root, the lookup of a dataset by name, and which names may become paths."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.utils.files import cache_root
from stable_worldmodel.utils.suggest import nearest_entry

DATASET_SUFFIXES = (".h5", ".hdf5", ".lance")
DATASETS, CHECKPOINTS, PREVIEWS = FOLDERS = ("datasets", "checkpoints", "previews")  # of the cache root

PathLike = str | os.PathLike[str]


def ensure_dir_exists(path: PathLike) -> Path:
    """Create the directory `path` with its parents when it is missing, and return it."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def get_cache_dir(override_root: PathLike | None = None, sub_folder: str | None = None) -> Path:
    """Return the cache root, or `sub_folder` of it; the directory is created.

    The root is `override_root`, else the environment variable STABLEWM_HOME (read at every call, `~` expanded, empty
    means unset), else `~/.stable_worldmodel`. Raises ContractError for a `sub_folder` such as `..`.
    """
    root = cache_root(override_root)
    return ensure_dir_exists(root / validate_name(sub_folder) if sub_folder else root)


def validate_name(name: str, *, nested: bool = True) -> str:
    """Return `name` if a path joined from the cache root and it stays below that root; else ContractError.

    A name is not empty, not absolute, has no `..`, no control character and no backslash; `nested=False` also refuses
    folders in front of it. Symbolic links are not looked at, see `inside`.
    """
    parts = name.split("/") if isinstance(name, str) else []
    allowed = "relative name without '..'" if nested else "name without '/' and '..'"
    if (
        not parts
        or any(part.strip(" .") == "" for part in parts)  # also '', '.', '..' and what some systems make of '. .'
        or (not nested and len(parts) > 1)
        or "\\" in name
        or not name.isprintable()
        or name.startswith("~")
        or PureWindowsPath(name).drive
    ):
        raise ContractError(f"name {name!r}: expected a non-empty {allowed}")
    return name


def inside(root: Path, name: str) -> Path:
    """Return `root / name`; ContractError when that, or a symbolic link in it, leads out of `root`."""
    path = root / check_path(name)
    if root.resolve() not in path.resolve().parents:
        raise ContractError(f"{path} leads out of {root}, to {path.resolve()}; use that path itself")
    return path


def dataset_path(name: PathLike, cache_dir: PathLike | None = None) -> Path:
    """Return the existing file or directory that `name` means.

    The name is looked up as given and with the suffixes of datasets (`.h5`, `.hdf5`, `.lance`): under the working
    directory, then in the cache root, then in its `datasets` folder; an absolute path only where it points. The first
    place that holds a dataset counts, or else the first that holds anything. Raises NotFoundError with the places that
    were tried, and ContractError when a symbolic link leads out of the cache root.
    """
    path = check_path(name)
    folders, root = [Path.cwd()], None  # an absolute path replaces it
    if path.parts and not path.is_absolute() and ".." not in path.parts:
        root = get_cache_dir(cache_dir)
        folders += [root, root / DATASETS]
    tried = [place for folder in folders for place in dataset_places(folder / path)]
    found = first_dataset(tried) or next((place for place in tried if place.exists()), None)
    if found is None:
        places = "\n  ".join(map(str, tried))
        hint = nearest_entry(path.name, (place.parent for place in tried))
        raise NotFoundError(f"dataset {str(name)!r} was not found; looked for:\n  {places}{hint}")
    if root is not None and found.is_relative_to(root) and not found.is_relative_to(Path.cwd() / path.parent):
        inside(root, str(found.relative_to(root)))
    return found


def check_path(path: PathLike) -> Path:
    """Return `path` with `~` expanded; ContractError when no file can have such a name."""
    if "\0" in os.fspath(path):
        raise ContractError(f"path {os.fspath(path)!r}: a NUL character cannot be part of it")
    return Path(path).expanduser()


def dataset_places(path: Path) -> list[Path]:
    """What `path` may mean: itself, or with one of the suffixes of datasets, in the order in which they are tried."""
    from stable_worldmodel.data.registry import FORMATS  # which is built on this module

    suffixes = [*DATASET_SUFFIXES, *(suffix for fmt in FORMATS.values() for suffix in fmt.suffixes)]
    return [path.parent / f"{path.name}{suffix}" for suffix in ("", *dict.fromkeys(suffixes))]


def first_dataset(places: list[Path]) -> Path | None:
    """Return the first of `places` that exists and that a format recognises."""
    from stable_worldmodel.data.registry import detect_format

    return next((place for place in places if place.exists() and detect_format(place)), None)


def new_dataset_path(name: str, cache_dir: PathLike | None = None, suffix: str = ".h5") -> Path:
    """Return where a dataset recorded under `name` is written: `<root>/<name>.h5`.

    Raises ContractError for names that leave the root, also through symbolic links.
    """
    return inside(get_cache_dir(cache_dir), f"{validate_name(name)}{suffix}")


def features_path(dataset: Path) -> Path:
    """The folder beside `dataset` in which training keeps features of its images."""
    return dataset.with_name(f"{dataset.name}.features")
