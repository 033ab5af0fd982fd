"""Where datasets live: the cache root and the lookup of a dataset by name."""

from __future__ import annotations

import os
from pathlib import Path

from stable_worldmodel.errors import ContractError, NotFoundError

DATASET_SUFFIXES = (".h5", ".hdf5", ".lance")


def ensure_dir_exists(path: str | os.PathLike[str]) -> Path:
    """Create the directory `path` with its parents when it is missing, and return it."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def get_cache_dir(override_root: str | os.PathLike[str] | None = None, sub_folder: str | None = None) -> Path:
    """Return the cache root, or `sub_folder` of it; the directory is created.

    The root is `override_root`, else the environment variable STABLEWM_HOME (read at every call, `~` expanded, empty
    means unset), else `~/.stable_worldmodel`.
    """
    root = Path(override_root or os.environ.get("STABLEWM_HOME") or "~/.stable_worldmodel").expanduser()
    return ensure_dir_exists(root / sub_folder if sub_folder else root)


def validate_name(name: str) -> str:
    """Return `name` if a path joined from the cache root and it stays below that root; else ContractError."""
    path = Path(name)
    if not name.strip() or not path.parts or path.is_absolute() or ".." in path.parts:
        raise ContractError(f"name {name!r}: expected a non-empty relative name without '..'")
    return name


def dataset_path(name: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the existing file or directory that `name` means.

    The name is looked up as given and with the suffixes `.h5`, `.hdf5` and `.lance`: under the working directory,
    then in the cache root, then in its `datasets` folder; an absolute path only where it points. Raises NotFoundError
    with the places that were tried.
    """
    path = Path(name).expanduser()
    folders = [Path.cwd()]  # an absolute path replaces it
    if path.parts and not path.is_absolute() and ".." not in path.parts:
        root = get_cache_dir(cache_dir)
        folders += [root, root / "datasets"]
    tried = [folder / f"{path}{suffix}" for folder in folders for suffix in ("", *DATASET_SUFFIXES)]
    for candidate in tried:
        if candidate.exists():
            return candidate
    places = "\n  ".join(map(str, tried))
    raise NotFoundError(f"dataset {str(name)!r} was not found; looked for:\n  {places}")


def new_dataset_path(name: str, cache_dir: str | os.PathLike[str] | None = None, suffix: str = ".h5") -> Path:
    """Return where a dataset recorded under `name` is written: `<root>/<name>.h5`."""
    return get_cache_dir(cache_dir) / f"{validate_name(name)}{suffix}"
