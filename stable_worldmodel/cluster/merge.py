"""Shards become one dataset, equal to the one that a single machine would have recorded.

The dataset is built in its hidden folder, compared with the checksums that the shards' writers noted, and moved into
place; the shards are deleted after that. Before the move, `merged.json` says what the dataset will be recognised by, so
that after a kill at any moment the same call finishes what is left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.cluster.remote import Store, is_remote
from stable_worldmodel.cluster.shards import JOINS, ShardedRun, shards_folder
from stable_worldmodel.data.cache import PathLike, check_path
from stable_worldmodel.data.conversion import replacement
from stable_worldmodel.data.journal import building_path, journal_path
from stable_worldmodel.data.lock import DatasetLockedError, WriterLock, lock_path
from stable_worldmodel.data.registry import load_dataset, writer_target
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.files import write_json
from stable_worldmodel.utils.progress import Progress, open_progress

logger = logging.getLogger(__name__)

MARK_FILE = "merged.json"
LISTED = 8  # shards that an error names


def merge_shards(
    path: PathLike, *, format: str | None = None, overwrite: bool = False, progress: bool | Progress = True
) -> Path | str:
    """Join the shards of the dataset `path` into it, delete them, and return its full path, or its URL.

    `path` is that of the collection, as is `format`, where it is needed. After a merge that was killed, the same call
    finishes it. Raises ContractError while shards are missing or not finished, naming them; NotFoundError when there
    are none; FileExistsError when another dataset is there, unless `overwrite`; DatasetLockedError while another
    process merges.
    """
    if is_remote(path):
        return _merge_in_store(Store(str(path)), overwrite, progress)
    target = _target_of(path, format)
    if discard_leftovers(target) and target.exists() and not shards_folder(target).exists():
        return target
    run = ShardedRun.open(target)
    with WriterLock(run.folder):
        if not _finish(run):
            _merge(run, "overwrite" if overwrite else "error", progress)
            _finish(run)
    return target


def _merge_in_store(store: Store, overwrite: bool, progress: bool | Progress) -> str:
    """Fetch the shards, merge them on this machine's disk, and upload the dataset. Repeated, it goes on."""
    run = store.fetch_run()
    if store.exists() and not overwrite and not store.is_publishing():
        raise FileExistsError(f"{store.url} exists; merge its shards with overwrite=True to replace it")
    if shards_folder(run.target).exists():
        numbers = range(1, run.shards + 1)
        _require([f"shard {number}/{run.shards}: missing" for number in numbers if not store.has(run, number)], run)
        for number in numbers:
            store.fetch(run, number)
        merge_shards(run.target, overwrite=True, progress=progress)
    store.publish(run)
    return store.url


def _require(missing: list[str], run: ShardedRun) -> None:
    """ContractError that names the shards of which something is missing."""
    if missing:
        more = f"\n  and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        raise ContractError(
            f"{run.target}: {len(missing)} of {run.shards} shards are not finished:\n  "
            + "\n  ".join(missing[:LISTED])
            + more
        )


def _target_of(path: PathLike, format: str | None) -> Path:
    """The full path of the dataset; a path without suffix that has shards is meant as it stands."""
    given = check_path(path).resolve()
    return given if shards_folder(given).is_dir() else writer_target(path, format)[1].expanduser().resolve()


def finish_merge(run: ShardedRun) -> bool:
    """End a merge that was killed after its dataset went into place; whether there was one."""
    if not (run.folder / MARK_FILE).exists():
        return False
    with WriterLock(run.folder):
        return _finish(run)


def _merge(run: ShardedRun, mode: str, progress: bool | Progress) -> None:
    _require(run.missing(), run)
    sources = [run.path_of(number) for number in range(1, run.shards + 1)]
    for source in sources:
        if lock_path(source).exists():  # its writer was killed: this ends what it has begun
            run.shard_format.open_writer(source, mode="append").close()
    metadata = dict(run.recorded(1)[0]["metadata"])
    del metadata["shard"]
    with replacement(run.format, run.target, mode) as new:
        if run.is_staged:
            lengths = _encode(run, sources, new, metadata, progress)
        else:
            lengths = JOINS[run.format.name](sources, new, metadata)
        if len(lengths) != run.episodes:
            raise RuntimeError(f"{new}: {len(lengths)} episodes were written, the run has {run.episodes}")
        if run.format.name != "hdf5":  # which has been compared to the last byte
            report = run.format.verify(new)
            if not report.ok or report.episodes != run.episodes:
                raise RuntimeError(f"{new}: {report.episodes} episodes, {'; '.join(report.faults) or 'no faults'}")
        write_json(run.folder / MARK_FILE, _recognisable_by(journal_path(new)))


def _encode(
    run: ShardedRun, sources: list[Path], new: Path, metadata: dict[str, Any], progress: bool | Progress
) -> np.ndarray:
    """Write the episodes of exact shards in the format of the dataset, which encodes them as one machine would have."""
    with open_progress(progress) as display:
        task = display.task("merge", run.episodes)

        def episodes() -> Iterator[dict[str, Any]]:
            for source in sources:
                for episode in load_dataset(source, format=run.shard_format.name).iter_episodes():
                    yield episode
                    task.advance(1)

        with run.format.open_writer(new, mode="error", metadata=metadata, **run.content["writer"]) as writer:
            writer.write_episodes(episodes())
            return np.zeros(writer.num_episodes)


def _recognisable_by(journal: Path) -> dict[str, Any]:
    content = journal.read_bytes()
    return {"journal": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _finish(run: ShardedRun) -> bool:
    """If the merged dataset is in place, delete the shards and return True. The caller holds the lock."""
    try:
        mark = json.loads((run.folder / MARK_FILE).read_bytes())
    except FileNotFoundError:
        return False
    unfinished = building_path(run.target).parent.exists() or lock_path(run.target).exists()
    if unfinished and run.target.exists():
        with suppress(ContractError, DatasetLockedError):  # of another dataset there; of its writer
            run.format.open_writer(run.target, mode="append").close()  # ends a move that was killed
    with suppress(FileNotFoundError):
        with journal_path(run.target).open("rb") as file:  # which may have grown since
            begin = file.read(mark["bytes"])
        if hashlib.sha256(begin).hexdigest() == mark["journal"] and run.target.exists():
            _delete(run.folder)
            return True
    return False


def _delete(folder: Path) -> None:
    """Let the folder vanish in one step, then remove what was in it."""
    hidden = _hidden(folder)
    if hidden.exists():  # of a merge that was killed here
        shutil.rmtree(hidden)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def discard_leftovers(target: Path) -> bool:
    """Remove what is left of a merge that was killed while it deleted the shards; whether there was anything."""
    folder = shards_folder(target)
    if not _hidden(folder).exists() and not lock_path(folder).exists():
        return False
    with suppress(DatasetLockedError), WriterLock(folder):  # else another process is at it
        if _hidden(folder).exists():
            shutil.rmtree(_hidden(folder))
    return True


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.merged")
