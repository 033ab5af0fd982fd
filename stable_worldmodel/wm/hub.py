"""Where a named checkpoint is: a path, a run of the cache root, or a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from stable_worldmodel.data.cache import CHECKPOINTS, get_cache_dir
from stable_worldmodel.errors import ContractError, NotFoundError, require
from stable_worldmodel.utils.suggest import nearest_entry

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
PUBLIC_WEIGHTS = "weights.pt"  # of published models, a state dict
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EXTRA = "hub"


def locate(name: str | Path, cache_dir: str | Path | None = None, revision: str | None = None) -> Path:
    """The folder or file that `name` means.

    That is a path; else a run below `checkpoints` of the cache root or below the root itself; else, for
    `<owner>/<repository>`, a download from the hub at `revision` (a commit, tag or branch). A folder that holds a
    folder `checkpoint`, as training runs do, stands for it. Raises NotFoundError that lists where it was looked for.
    """
    path = Path(name).expanduser()
    if not str(name).strip() or "\0" in str(name):
        raise ContractError(f"name={str(name)!r}: expected a path, the name of a run or a hub id")
    places = [path]
    if revision is None and not path.is_absolute() and ".." not in path.parts:
        root = get_cache_dir(cache_dir)
        places += [root / CHECKPOINTS / path, root / path]
    for place in places:
        if place.is_file():
            return place
        for folder in (place, place / "checkpoint"):
            if any((folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE, PUBLIC_WEIGHTS)):
                return folder
    for place in places:
        if place.is_dir():
            return place  # of which can be said what it lacks
    if isinstance(name, str) and _HUB_ID.fullmatch(name):
        try:
            return _download(name, cache_dir, revision)
        except NotFoundError as error:
            raise NotFoundError(f"{error}{nearest_entry(path.name, (place.parent for place in places))}") from error
    tried = "\n  ".join(map(str, places))
    hint = nearest_entry(path.name, (place.parent for place in places))
    raise NotFoundError(f"no checkpoint folder {str(name)!r}; looked for:\n  {tried}{hint}")


def _download(repo_id: str, cache_dir: str | Path | None, revision: str | None) -> Path:
    """The folder of a hub repository at a revision; only what a checkpoint consists of is fetched."""
    hub: Any = require("huggingface_hub", _EXTRA)
    try:
        folder = hub.snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=str(get_cache_dir(cache_dir, CHECKPOINTS)),
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, PUBLIC_WEIGHTS],
        )
    except Exception as error:
        raise NotFoundError(
            f"{repo_id!r} is neither a local checkpoint nor could it be fetched from the hub"
            f"{f' at {revision}' if revision else ''}: {error}"
        ) from error
    logger.info("checkpoint %s is %s", repo_id, folder)
    return Path(folder)


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = True, revision: str | None = None) -> str:
    """Upload the checkpoint in `folder` to the hub repository `repo_id`, made if missing, and return the commit's URL.

    `revision` is a branch, made if missing; default: the main one.
    Needs a login (`hf auth login`). NotFoundError if the folder holds no checkpoint.
    """
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise NotFoundError(f"checkpoint folder {folder} has no {name}; write it with save_pretrained")
    hub: Any = require("huggingface_hub", _EXTRA)
    api = hub.HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id, folder_path=str(folder), revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]
    )
    return str(commit.commit_url)
