"""Environments whose code lives on the Hugging Face hub: fetched, checked, imported, called.

Nothing is fetched or run without `trust_remote_code=True`. A repository has a file (default `env.py`) with
`make_env(n_envs, use_async_envs[, cfg])`.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import cloudpickle
import gymnasium as gym
from gymnasium.vector import SyncVectorEnv, VectorEnv

from stable_worldmodel.data.cache import get_cache_dir
from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.lerobot.closing import close_envs
from stable_worldmodel.lerobot.lazy_env import autoreset_options

logger = logging.getLogger(__name__)

DEFAULT_FILE = "env.py"
HUB_SUITE = "hub_env"  # of a vector env without a spec
CACHE_FOLDER = "hub"  # of the cache root
_ENTRY = "make_env"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]*", re.ASCII)


class Snapshot(NamedTuple):
    """Where a file of the hub's cache belongs."""

    storage: Path  # folder of the repository
    commit: str
    folder: Path  # of that commit's files


def parse_hub_url(hub_uri: str) -> tuple[str, str | None, str]:
    """Split `owner/repo[@revision][:path]` into repository, revision (None: the main branch) and path (`env.py`).

    Raises ContractError if one of them is empty or malformed, or if the path is absolute or has `..`.
    """
    left, colon, path = hub_uri.partition(":")
    repo_id, at, revision = left.partition("@")
    expected = "expected owner/repo[@revision][:path]"
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise ContractError(f"hub address {hub_uri!r}: no repository {repo_id!r}; {expected}")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ContractError(f"hub address {hub_uri!r}: no revision {revision!r}; {expected}")
    if colon and not path:
        raise ContractError(f"hub address {hub_uri!r}: the path is empty; {expected}")
    path = path or DEFAULT_FILE
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path or "\0" in path:
        raise ContractError(f"hub address {hub_uri!r}: path {path!r} leaves the repository; {expected}")
    return repo_id, revision or None, path


def download_hub_file(
    cfg_str: str, trust_remote_code: bool, hub_cache_dir: str | Path | None
) -> tuple[str, str, str, str | None]:
    """Fetch the file that a hub address names; return repository, path, local file and revision.

    If the file is not listed under its name the whole snapshot is fetched. HF_ENDPOINT and HF_TOKEN are respected.

    Args:
        hub_cache_dir: None is `hub` below the cache root of this library.

    Raises:
        ContractError: the address is malformed, or the cached files lead out of the cache.
        RuntimeError: the code is not trusted; before any network access.
        FileNotFoundError: the repository has no such file.
        Network and permission errors of the hub's client are passed on.
    """
    repo_id, revision, path = parse_hub_url(cfg_str)
    if not trust_remote_code:
        raise RuntimeError(
            f"{repo_id!r} is code from the Hugging Face hub, which runs with your rights. Read it first; then pass "
            f"trust_remote_code=True and pin what you read: '{repo_id}@<commit>:{path}'"
        )
    hub: Any = require("huggingface_hub", "lerobot")
    where: dict[str, Any] = {
        "revision": revision,
        "cache_dir": str(_cache(hub_cache_dir)),
        "endpoint": os.environ.get("HF_ENDPOINT"),
    }
    try:
        local = hub.hf_hub_download(repo_id, path, **where)
    except hub.errors.LocalEntryNotFoundError:
        raise  # the hub cannot be reached, so there is nothing else to try
    except hub.errors.EntryNotFoundError as error:
        local = str(Path(hub.snapshot_download(repo_id, **where)) / path)
        if not Path(local).is_file():
            raise FileNotFoundError(f"{repo_id!r} has no file {path!r} at revision {revision or 'main'}") from error
    _check_inside_cache(Path(local))
    return repo_id, path, local, revision


def download_rest(repo_id: str, local_file: str) -> None:
    """Fetch the other files of the commit that `local_file` belongs to."""
    hub: Any = require("huggingface_hub", "lerobot")
    snapshot = snapshot_of(Path(local_file))
    if snapshot is None:
        raise ContractError(f"{local_file} lies in no snapshot of the hub's cache")
    endpoint = os.environ.get("HF_ENDPOINT")
    hub.snapshot_download(repo_id, revision=snapshot.commit, cache_dir=str(snapshot.storage.parent), endpoint=endpoint)
    _check_inside_cache(Path(local_file))


def snapshot_of(local_file: Path) -> Snapshot | None:
    """The snapshot a file of the hub's cache is in: `<storage>/snapshots/<commit>/…`."""
    for folder in local_file.parents:
        if folder.parent.name == "snapshots":
            return Snapshot(folder.parent.parent, folder.name, folder)
    return None


def _cache(hub_cache_dir: str | Path | None) -> Path:
    return get_cache_dir(None, CACHE_FOLDER) if hub_cache_dir is None else Path(hub_cache_dir).expanduser()


def _check_inside_cache(local_file: Path) -> None:
    """ContractError if a file of the snapshot is a link that leaves the hub's cache, or leads to another repository."""
    snapshot = snapshot_of(local_file)
    if snapshot is None:
        return
    cache = snapshot.storage.parent.resolve()
    for path in [local_file, *snapshot.folder.rglob("*")]:
        target = path.resolve()
        inside = target.is_relative_to(cache) and target != cache
        owner = target.relative_to(cache).parts[0] if inside else ""
        if not inside or ("--" in owner and owner != snapshot.storage.name):
            raise ContractError(
                f"{path} leads to {target}, outside of its repository; delete {snapshot.storage} and download it again"
            )


# ---------------------------------------------------------------------- import
class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Reads source and nothing else: no bytecode that lies beside it, and writes none into the cache."""

    def path_stats(self, path: str) -> Any:
        raise OSError("bytecode is not used")


def load_module_from_path(path: str | Path, module_name: str | None = None) -> ModuleType:
    """Import one Python file and return the module, which is also entered in `sys.modules`.

    Relative imports find the files beside it. If the import fails nothing of it stays in `sys.modules`.

    Args:
        module_name: None takes `hub_env_<file name with dots replaced>`.

    Raises ImportError for a file that is no Python source; what the module raises is passed on.
    """
    path = Path(path)
    name = module_name or "hub_env_" + re.sub(r"\W", "_", path.name)
    spec = None
    if path.suffix == ".py":
        loader = _SourceLoader(name, str(path))
        spec = importlib.util.spec_from_file_location(
            name, path, loader=loader, submodule_search_locations=[str(path.parent)]
        )
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported: expected a Python file (.py)", name=name, path=str(path))
    module = importlib.util.module_from_spec(spec)
    before = _taken_out(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _taken_out(name)
        sys.modules.update(before)
        raise
    return module


def _taken_out(name: str) -> dict[str, ModuleType]:
    """Remove a module and those below it from `sys.modules`; return them."""
    return {key: sys.modules.pop(key) for key in list(sys.modules) if key == name or key.startswith(f"{name}.")}


def hub_module_name(local_file: str | Path, repo_id: str) -> str:
    """`hub_env_<repository>_<file>`, with everything but letters and digits replaced."""
    local = Path(local_file)
    snapshot = snapshot_of(local)
    file = local.relative_to(snapshot.folder) if snapshot else Path(local.name)
    return "hub_env_" + re.sub(r"\W", "_", f"{repo_id}_{file.with_suffix('').as_posix()}")


def import_hub_module(local_file: str | Path, repo_id: str) -> ModuleType:
    """Import a downloaded file; what it defines also works in worker processes.

    Raises ModuleNotFoundError naming a package that the code needs and that is not installed, ImportError naming
    repository and file for every other failure.
    """
    name = hub_module_name(local_file, repo_id)
    try:
        module = load_module_from_path(local_file, name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(name):
            file = (error.name or "").removeprefix(name).strip(".")
            raise ModuleNotFoundError(
                f"{repo_id} has no file {file!r} that {local_file} imports", name=error.name
            ) from error
        raise ModuleNotFoundError(
            f"{repo_id} needs the package {error.name!r}, which is not installed; its requirements.txt, if it has one, "
            "says which version",
            name=error.name,
        ) from error
    except (Exception, SystemExit) as error:
        raise ImportError(
            f"{Path(local_file).name} of {repo_id} failed on import with {type(error).__name__}: {error} ({local_file})"
        ) from error
    # Workers cannot import it by name, so its functions and classes travel by value.
    cloudpickle.register_pickle_by_value(module)
    return module


# ---------------------------------------------------------------------- call
def call_make_env(module: Any, n_envs: int, use_async_envs: bool, cfg: Any) -> Any:
    """What the module's `make_env` returns; `cfg` is passed only if it is not None. AttributeError if there is none."""
    make = getattr(module, _ENTRY, None)
    if not callable(make):
        raise AttributeError(f"{module.__name__} has no function {_ENTRY}(n_envs, use_async_envs)")
    more = {} if cfg is None else {"cfg": cfg}
    return make(n_envs=n_envs, use_async_envs=use_async_envs, **more)


def normalize_hub_result(result: Any) -> dict[str, dict[int, Any]]:
    """What a hub's `make_env` returned as {suite: {task id: vector env}}.

    A vector env becomes one task of the suite `env.spec.id`, else `hub_env`; a single env is put into a synchronous
    vector env first. Raises ValueError for anything else.
    """
    if isinstance(result, Mapping):
        _check_tasks(result)
        return {suite: dict(tasks) for suite, tasks in result.items()}
    if isinstance(result, gym.Env):
        env = result
        result = SyncVectorEnv([lambda: env], **autoreset_options())
        spec = env.spec
    elif _is_vector(result):
        spec = getattr(result, "spec", None)
    else:
        raise _wrong_result(type(result).__name__)
    return {(spec.id if spec is not None else HUB_SUITE): {0: result}}


def _check_tasks(result: Mapping[Any, Any]) -> None:
    if not result:
        raise _wrong_result("an empty mapping")
    for suite, tasks in result.items():
        if not isinstance(suite, str) or not isinstance(tasks, Mapping) or not tasks:
            raise _wrong_result(f"a mapping with {suite!r}: {type(tasks).__name__}")
        for task, env in tasks.items():
            if isinstance(task, bool) or not isinstance(task, int) or not _is_vector(env):
                raise _wrong_result(f"a mapping with {suite!r}: {{{task!r}: {type(env).__name__}}}")


def _wrong_result(found: str) -> ValueError:
    return ContractError(
        f"make_env returned {found}: expected a vector env, a single gymnasium env, or "
        "{suite name: {task number: vector env}}"
    )


def _is_vector(env: Any) -> bool:
    needed = ("num_envs", "single_action_space", "reset", "step", "close")
    return isinstance(env, VectorEnv) or (not isinstance(env, gym.Env) and all(hasattr(env, name) for name in needed))


def build_hub_envs(
    address: str,
    n_envs: int,
    use_async_envs: bool,
    hub_cache_dir: str | Path | None,
    trust_remote_code: bool,
    cfg: Any = None,
) -> tuple[dict[str, dict[int, Any]], dict[str, Any]]:
    """The envs a hub address builds, and where they come from: `repo_id`, `path`, `revision`, `commit`, `sha256`."""
    repo_id, path, local, revision = download_hub_file(address, trust_remote_code, hub_cache_dir)
    snapshot = snapshot_of(Path(local))
    commit = snapshot.commit if snapshot else None
    if commit is not None and revision != commit:
        logger.info("%s at %s is commit %s", repo_id, revision or "main", commit)
    try:
        module = import_hub_module(local, repo_id)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(hub_module_name(local, repo_id)):
            raise
        download_rest(repo_id, local)  # it imports other files of its repository
        module = import_hub_module(local, repo_id)
    result = call_make_env(module, n_envs, use_async_envs, cfg)
    try:
        envs = normalize_hub_result(result)
    except ValueError as error:
        if isinstance(result, Mapping):
            close_envs(result)
        raise ContractError(f"{repo_id}:{path}: {error}") from error
    digest = hashlib.sha256(Path(local).read_bytes()).hexdigest()
    return envs, {"repo_id": repo_id, "path": path, "revision": revision, "commit": commit, "sha256": digest}
