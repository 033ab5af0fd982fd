"""Shards in object storage, such as `s3://bucket/data.h5`: recorded on a local disk, uploaded whole, fetched to be
merged.

    s3://bucket/data.h5.shards/run.json
    s3://bucket/data.h5.shards/00003-of-00064.h5.done, 5f1c-00003-of-00064.h5, 5f1c-00003-of-00064.h5.journal

Object stores have neither locks nor renames, but an object appears whole or not at all. A shard is there when its
`done` is, which goes last and names the files. Two machines that record the same shard upload the same episodes under
names of their own, and the later `done` counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_worldmodel.cluster.shards import RUN_FILE, ShardedRun, differing, shards_folder
from stable_worldmodel.data.cache import get_cache_dir
from stable_worldmodel.data.journal import journal_path
from stable_worldmodel.data.registry import writer_target
from stable_worldmodel.errors import ContractError, NotFoundError, require
from stable_worldmodel.utils.files import write_atomically

FORMAT = "hdf5"  # one file per dataset, which is read from where it lies
MERGED = "merged.json"


def is_remote(path: Any) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


@dataclass(frozen=True)
class Store:
    """The shards of the dataset `url`, and the dataset itself, through fsspec.

    Credentials and other options are those of fsspec's own configuration. Raises ContractError for a dataset that is
    not a single file, MissingDependencyError without fsspec.
    """

    url: str

    def __post_init__(self) -> None:
        name = self.url.rpartition("/")[2]
        if not name or writer_target(name)[0].name != FORMAT or not name.endswith((".h5", ".hdf5")):
            raise ContractError(f"{self.url}: object storage takes HDF5 datasets: expected a URL that ends in .h5")
        require("fsspec", "cluster")

    def staging(self, *key: Any) -> Path:
        """Where this machine keeps what belongs to `key`, JSON values: the path of the dataset there."""
        digest = hashlib.blake2b(json.dumps([self.url, *key], sort_keys=True).encode(), digest_size=8).hexdigest()
        return get_cache_dir(sub_folder="staging") / digest / self.url.rpartition("/")[2]

    def exists(self) -> bool:
        """Whether the dataset is there."""
        files, path = self._open(self.url)
        return files.exists(path)

    # -- the run ------------------------------------------------------------------------------------------------------

    def join(self, run: ShardedRun) -> None:
        """Write the run down, or compare it with the one that is there: ContractError if they differ."""
        files, folder = self._open(f"{self.url}.shards")
        place = f"{folder}/{RUN_FILE}"
        if not files.exists(place):
            files.makedirs(folder, exist_ok=True)  # does nothing where there are no folders
            files.pipe_file(place, json.dumps(dict(run.content), indent=2).encode() + b"\n")
        found = differing(json.loads(files.cat_file(place)), run.content)
        if found:
            raise ContractError(f"{self.url}.shards holds shards of another run, with {found}; use another path")

    def fetch_run(self) -> ShardedRun:
        """The run that is written down, with a folder for its shards on this machine. NotFoundError if none is."""
        files, folder = self._open(f"{self.url}.shards")
        try:
            content = files.cat_file(f"{folder}/{RUN_FILE}")
        except FileNotFoundError:
            raise NotFoundError(f"{self.url} has no shards: expected {self.url}.shards/{RUN_FILE}") from None
        target = self.staging(json.loads(content))
        if not target.exists():  # else it was merged here already
            shards_folder(target).mkdir(parents=True, exist_ok=True)
            write_atomically(shards_folder(target) / RUN_FILE, content)
        return ShardedRun(target, json.loads(content))

    # -- shards -------------------------------------------------------------------------------------------------------

    def has(self, run: ShardedRun, number: int) -> bool:
        """Whether shard `number` was uploaded."""
        files, folder = self._open(f"{self.url}.shards")
        return files.exists(f"{folder}/{run.path_of(number).name}.done")

    def put(self, run: ShardedRun, number: int) -> None:
        """Upload a finished shard, and delete it here."""
        files, folder = self._open(f"{self.url}.shards")
        path, token = run.path_of(number), uuid.uuid4().hex[:12]
        parts = [path, journal_path(path)]
        for part in parts:
            _upload(files, part, f"{folder}/{token}-{part.name}")
        files.pipe_file(f"{folder}/{path.name}.done", json.dumps([f"{token}-{part.name}" for part in parts]).encode())
        self.forget(run, number)

    def forget(self, run: ShardedRun, number: int) -> None:
        """Delete what there is of a shard here."""
        path = run.path_of(number)
        for part in (path, journal_path(path)):
            part.unlink(missing_ok=True)

    def fetch(self, run: ShardedRun, number: int) -> None:
        """Download a shard, unless it is here."""
        files, folder = self._open(f"{self.url}.shards")
        path = run.path_of(number)
        names = json.loads(files.cat_file(f"{folder}/{path.name}.done"))
        for part, name in zip((path, journal_path(path)), names, strict=True):
            if not part.exists():
                partial = part.with_name(f".{part.name}.partial")
                files.get_file(f"{folder}/{name}", str(partial))
                partial.replace(part)

    # -- the dataset --------------------------------------------------------------------------------------------------

    def publish(self, run: ShardedRun) -> None:
        """Upload the merged dataset with its journal, then delete the shards there and everything here."""
        files, folder = self._open(f"{self.url}.shards")
        _, target = self._open(self.url)
        files.pipe_file(f"{folder}/{MERGED}", b"{}")  # what is at the target from here on is ours
        _upload(files, journal_path(run.target), f"{target}.journal")
        _upload(files, run.target, target)
        files.rm(folder, recursive=True)
        files.invalidate_cache()
        shutil.rmtree(run.target.parent)

    def is_publishing(self) -> bool:
        """Whether an upload of the dataset was begun, and not ended."""
        files, folder = self._open(f"{self.url}.shards")
        return files.exists(f"{folder}/{MERGED}")

    def _open(self, url: str) -> tuple[Any, str]:
        """File system, the one that readers of this process use, and path; what others wrote is looked at anew."""
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
        files.invalidate_cache()
        return files, path


def _upload(files: Any, path: Path, target: str) -> None:
    files.put_file(str(path), target)
    found, expected = files.size(target), path.stat().st_size
    if found != expected:
        raise OSError(f"{target} has {found} bytes after the upload: expected {expected}")
