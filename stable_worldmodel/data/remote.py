"""Datasets that are elsewhere: repositories of the Hugging Face Hub, and folders behind a URL.

A repository is downloaded once, into `<root>/datasets/<owner>--<repo>`. That folder appears when everything is there;
until then the files are in `<owner>--<repo>.partial`, where an interrupted download continues.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stable_worldmodel.data.cache import DATASETS, PathLike, dataset_path, get_cache_dir
from stable_worldmodel.data.lock import WriterLock
from stable_worldmodel.errors import ContractError, NotFoundError, require
from stable_worldmodel.utils.files import write_json

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"(?P<owner>\w[\w.-]*)/(?P<repo>\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
_HDF5 = (".h5", ".hdf5")
_SIDE_TABLES = ("_episodes.lance", "_videos.lance")
_LEROBOT = "lerobot:"
_LEROBOT_INFO = ("meta/info.json", "meta_data/info.json")
_LEROBOT_FOLDERS = ("meta", "data", "videos")


def is_hub_id(name: PathLike) -> bool:
    """Whether `name` can mean a repository: `owner/repo`, or `owner/repo@revision`."""
    return isinstance(name, str) and _HUB_ID.fullmatch(name) is not None and ".." not in name


def record_path(folder: Path) -> Path:
    """Where it is noted from which commit `folder` was downloaded: JSON with `repo`, `revision` and `commit`."""
    return folder.with_name(folder.name + ".hub.json")


def is_lerobot_name(name: PathLike) -> bool:
    """Whether `name` means a LeRobot dataset: `lerobot:` before a path, a name or a repository, or `lerobot://` before
    a repository.
    """
    return str(name).startswith(_LEROBOT)


def locate_lerobot(name: str, cache_dir: PathLike | None = None) -> Path:
    """Return the directory of the LeRobot dataset `name`, see `is_lerobot_name`.

    A path or name is looked up as `cache.dataset_path` says; a repository in LeRobot's own folder (HF_LEROBOT_HOME),
    then among the downloaded ones, then on the hub. Raises NotFoundError with everything that was tried, ContractError
    when what is there is no LeRobot dataset.
    """
    rest = name.removeprefix(_LEROBOT)
    only_hub = rest.startswith("//")
    rest = rest.removeprefix("//") if only_hub else rest
    is_repository = is_hub_id(rest)
    if only_hub and not is_repository:
        raise ContractError(f"{name!r}: expected 'lerobot://owner/repo' or 'lerobot://owner/repo@revision'")
    try:
        found = None if only_hub else dataset_path(rest, cache_dir)
    except NotFoundError:
        if not is_repository:
            raise
        found = None
    home = os.environ.get("HF_LEROBOT_HOME") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "lerobot"
    recorded = Path(home).expanduser() / rest
    if found is None and is_repository and any((recorded / info).is_file() for info in _LEROBOT_INFO):
        found = recorded
    found = found or download_dataset(rest, cache_dir, files_of_lerobot)
    if not any((found / info).is_file() for info in _LEROBOT_INFO):
        raise ContractError(f"{found} is not a LeRobot dataset: it has no {_LEROBOT_INFO[0]}")
    return found


def files_of_lerobot(sizes: Mapping[str, Any], repo: str) -> list[str]:
    """Return the files of a repository that are a LeRobot dataset, sorted. Raises ContractError when it is none."""
    if not any(info in sizes for info in _LEROBOT_INFO):
        top = sorted({file.partition("/")[0] for file in sizes})
        raise ContractError(f"the repository {repo!r} holds no LeRobot dataset, only {top[:8]}")
    known = {*_LEROBOT_FOLDERS, *(info.partition("/")[0] for info in _LEROBOT_INFO)}
    return sorted(file for file in sizes if file.partition("/")[0] in known)


def download_dataset(
    name: str,
    cache_dir: PathLike | None = None,
    choose: Callable[[Mapping[str, Any], str], list[str]] | None = None,
) -> Path:
    """Return the local copy of the dataset repository `name`, see `is_hub_id`; download it if there is none.

    choose: which files of the repository are wanted, from their names; default: `files_of_dataset`.

    HF_TOKEN and HF_ENDPOINT are respected. Raises NotFoundError when the repository cannot be reached, ContractError
    when it holds no dataset, MissingDependencyError without huggingface_hub.
    """
    match = _HUB_ID.fullmatch(name)
    if match is None:
        raise ContractError(f"{name!r}: expected 'owner/repo' or 'owner/repo@revision'")
    revision = match["revision"]
    folder_name = f"{match['owner']}--{match['repo']}" + (f"@{revision.replace('/', '--')}" if revision else "")
    folder = get_cache_dir(cache_dir, DATASETS) / folder_name
    if folder.exists():
        return folder
    hub = require("huggingface_hub", "lerobot")
    with WriterLock(folder):
        try:
            _download(hub, f"{match['owner']}/{match['repo']}", revision or "main", folder, choose or files_of_dataset)
        except (RuntimeError, *hub.errors.HfHubHTTPError.__bases__) as error:  # its bases also cover lost connections
            raise NotFoundError(f"{name!r} could not be downloaded from the hub: {error}") from error
    return folder


def _download(
    hub: Any, repo: str, revision: str, folder: Path, choose: Callable[[Mapping[str, Any], str], list[str]]
) -> None:
    endpoint = os.environ.get("HF_ENDPOINT")
    info = hub.HfApi(endpoint=endpoint).dataset_info(repo, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings}
    partial = folder.with_name(folder.name + ".partial")
    logger.info("downloading %s at %s into %s", repo, info.sha, folder)
    wanted = choose(sizes, repo)
    for file in wanted:
        hub.hf_hub_download(repo, file, repo_type="dataset", revision=info.sha, local_dir=partial, endpoint=endpoint)
        found = (partial / file).stat().st_size
        if sizes[file] is not None and found != sizes[file]:
            raise RuntimeError(f"{file} has {found} bytes: expected {sizes[file]}")
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # where the client keeps the state of its downloads
    for path in [path for path in partial.rglob("*") if path.is_file()]:
        if path.relative_to(partial).as_posix() not in wanted:  # of an attempt at another commit
            path.unlink()
    write_json(record_path(folder), {"repo": repo, "revision": revision, "commit": info.sha})
    partial.rename(folder)


def files_of_dataset(sizes: Mapping[str, Any], repo: str) -> list[str]:
    """Return which files of a repository are its dataset, sorted. Raises ContractError when there is none.

    Of several datasets the first is taken: Lance tables, else a file of HDF5, else a folder of columns.
    """
    top = {file.partition("/")[0] for file in sizes}
    dataset = choose_dataset(top)
    if dataset is not None and dataset.endswith(".lance"):
        stem = dataset.removesuffix(".lance")
        tables = {dataset, *(stem + side for side in _SIDE_TABLES)}
        return sorted(file for file in sizes if file.partition("/")[0] in tables)
    if dataset is not None:
        return [dataset]
    if "ep_len.npz" in sizes:  # a folder of columns, in which every other file counts as one
        return sorted(file for file in sizes if not file.startswith(".") and not file.endswith(".md"))
    hint = f"; it looks like LeRobot's: load 'lerobot://{repo}'" if "meta/info.json" in sizes else ""
    raise ContractError(f"the repository {repo!r} holds no dataset, only {sorted(top)[:8]}{hint}")


def choose_dataset(names: Iterable[str]) -> str | None:
    """Return the first Lance table of a directory's `names`, else its first HDF5 file, else None."""
    ordered = sorted(names)
    tables = [name for name in ordered if name.endswith(".lance") and not name.endswith(_SIDE_TABLES)]
    return next(iter([*tables, *(name for name in ordered if name.endswith(_HDF5))]), None)


def dataset_in_url(url: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """Return the URL of the dataset in the folder `url`, or `url` itself when it is none or holds none."""
    fsspec = require("fsspec", "cluster")
    files, path = fsspec.core.url_to_fs(url, **(storage_options or {}))
    if not files.isdir(path):
        return url
    found = choose_dataset(entry.rstrip("/").rpartition("/")[2] for entry in files.ls(path, detail=False))
    return f"{url.rstrip('/')}/{found}" if found else url
