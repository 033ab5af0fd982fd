"""Copies of datasets in other formats, and several datasets joined into one.

Episodes stream one by one from a reader into a writer. A new dataset is built in a hidden folder beside its place and
moved there when it is complete and has been compared with its sources; until then nothing, or the old dataset, is
there.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_worldmodel.data.cache import ensure_dir_exists
from stable_worldmodel.data.columns import DERIVED_COLUMNS, EPISODE_DATA_KEY, Column
from stable_worldmodel.data.composition import column_differences, common_items
from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.formats.shared.disk import copy_tree, sync
from stable_worldmodel.data.formats.shared.swap import discard
from stable_worldmodel.data.journal import building_path, journal_path
from stable_worldmodel.data.lock import WriterLock, is_locked, lock_path, mark_dead
from stable_worldmodel.data.registry import (
    DEFAULT_FORMAT,
    Format,
    PathLike,
    detect_format,
    format_of,
    load_dataset,
    locate_dataset,
    validate_write_mode,
    warn_if_dropped,
    writer_target,
)
from stable_worldmodel.errors import ContractError
from stable_worldmodel.utils.progress import Progress, open_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """An open dataset and where it came from."""

    dataset: Dataset
    location: Path | str  # a path, or a URL
    format: type[Format]

    @classmethod
    def open(cls, name: PathLike, cache_dir: PathLike | None, format: str | None) -> _Source:
        location = locate_dataset(name, cache_dir, format)
        return cls(load_dataset(location, format=format), location, format_of(location, format))

    @property
    def columns(self) -> dict[str, Column]:
        """What a copy stores."""
        dataset = self.dataset
        return {name: dataset.columns[name] for name in dataset.column_names if name not in DERIVED_COLUMNS}

    def describe(self) -> dict[str, Any]:
        name = self.location.name if isinstance(self.location, Path) else self.location
        return {"name": name, "format": self.format.name, "episodes": self.dataset.num_episodes}


def convert(
    source: PathLike,
    dest: PathLike,
    *,
    source_format: str | None = None,
    dest_format: str | None = DEFAULT_FORMAT,
    cache_dir: PathLike | None = None,
    progress: Progress | bool = True,
    **dest_kwargs: Any,
) -> Path:
    """Write the dataset `source` to `dest` in another format, and return the path of what was written.

    source: anything that `load_dataset` opens.
    dest: a path as for `open_writer`. Its suffix, if it has one, decides about the format.
    dest_format: for a `dest` without suffix; None is the format of the source.
    dest_kwargs: `mode` is `error` (default), `overwrite`, or `append`, which adds the episodes to an existing dataset
        one by one. The others go to the writer.

    The metadata of the source is kept, with an entry `converted_from`. Per-episode constants are dropped with a warning
    where the format has no place for them. A copy in the same lossy format copies files, so that images are not encoded
    again, unless there are options for the writer. Raises FileExistsError when `dest` exists and `mode` is `error`.
    """
    opened = _Source.open(source, cache_dir, source_format)
    metadata = {**opened.dataset.metadata, "converted_from": opened.describe()}
    return _write([opened], dest, dest_format, metadata, progress, dest_kwargs)


def merge(
    sources: Sequence[PathLike],
    dest: PathLike,
    *,
    dest_format: str | None = DEFAULT_FORMAT,
    source_formats: Sequence[str | None] | None = None,
    mode: str = "error",
    cache_dir: PathLike | None = None,
    progress: Progress | bool = True,
    **dest_kwargs: Any,
) -> Path:
    """Write the episodes of two or more datasets to `dest`, in order and numbered from 0, and return its path.

    The datasets have the same columns with equal dtypes and shapes, and the same per-episode constants; otherwise
    ContractError names the columns, before anything is written. Metadata that is equal in all of them is kept; the
    entry `merged_from` lists them. The other arguments are those of `convert`.
    """
    if isinstance(sources, (str, os.PathLike)) or len(sources) < 2:
        raise ContractError(f"merge of {sources!r}: expected two or more datasets")
    formats = source_formats or [None] * len(sources)
    if isinstance(formats, str) or len(formats) != len(sources):
        raise ContractError(f"source_formats={source_formats!r}: expected one entry for each of {len(sources)} sources")
    opened = [_Source.open(name, cache_dir, fmt) for name, fmt in zip(sources, formats, strict=True)]
    _check_alike(opened)
    metadata = common_items([source.dataset.metadata for source in opened])
    metadata["merged_from"] = [{**source.describe(), "metadata": dict(source.dataset.metadata)} for source in opened]
    return _write(opened, dest, dest_format, metadata, progress, {"mode": mode, **dest_kwargs})


def _check_alike(sources: Sequence[_Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        faults = column_differences(first.columns, source.columns)
        for name in sorted({*first.dataset.episode_column_names} ^ {*source.dataset.episode_column_names}):
            faults.append(f"{name}: a per-episode constant of only one of them")
        if faults:
            listed = "\n  ".join(faults)
            raise ContractError(f"{source.location} does not match {first.location}:\n  {listed}")


def _write(
    sources: Sequence[_Source],
    dest: PathLike,
    dest_format: str | None,
    metadata: dict[str, Any],
    progress: Progress | bool,
    options: dict[str, Any],
) -> Path:
    mode = validate_write_mode(options.pop("mode", "error"))
    fmt, target = _destination(dest, dest_format or sources[0].format.name)
    constants = (name for source in sources for name in source.dataset.episode_column_names)
    warn_if_dropped(list(dict.fromkeys(constants)), target, fmt.name)
    if mode == "append" and _is_taken(target):
        if any(_is_same(source.location, target) for source in sources):
            raise ContractError(f"{target} is one of the sources; append to another dataset")
        with fmt.open_writer(target, mode=mode, metadata=metadata, **options) as writer:
            writer.write_episodes(_episodes(sources, progress))
        return target
    with replacement(fmt, target, mode) as new:
        if len(sources) == 1 and not options and _copy_files(sources[0], fmt, new):
            expected = sources[0].dataset.lengths.tolist()
        else:
            expected = []
            with fmt.open_writer(new, mode="error", metadata=metadata, **options) as writer:
                writer.write_episodes(_counted(_episodes(sources, progress), fmt, options, expected))
        _check_complete(fmt, new, expected)
    return target


def _destination(dest: PathLike, dest_format: str) -> tuple[type[Format], Path]:
    """Return the format and the full path. The default format gives way to a suffix of `dest`."""
    by_suffix, path = writer_target(dest)
    suffixed = path.name.endswith(by_suffix.suffixes) and path == Path(dest).expanduser()
    fmt, target = (by_suffix, path) if suffixed and dest_format == DEFAULT_FORMAT else writer_target(dest, dest_format)
    if fmt.suffixes and not target.name.endswith(fmt.suffixes):
        raise ContractError(f"{target} is a directory; name the file in it, with suffix {fmt.suffixes[0]!r}")
    return fmt, target


def _is_taken(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _is_same(a: Path | str, b: Path) -> bool:
    return isinstance(a, Path) and a.exists() and b.exists() and a.samefile(b)


def _episodes(sources: Sequence[_Source], progress: Progress | bool) -> Iterator[dict[str, Any]]:
    with open_progress(progress) as display:
        task = display.task("episodes", sum(source.dataset.num_episodes for source in sources))
        for source in sources:
            lengths = source.dataset.lengths.tolist()
            for rows, episode in zip(lengths, source.dataset.iter_episodes(), strict=True):
                yield episode
                task.advance(steps=rows)


def _counted(
    episodes: Iterator[dict[str, Any]], fmt: type[Format], options: dict[str, Any], lengths: list[int]
) -> Iterator[dict[str, Any]]:
    """Yield the episodes, and add to `lengths` how many rows of each are to be stored."""
    for episode in episodes:
        rows = next(len(values) for name, values in episode.items() if name != EPISODE_DATA_KEY)
        lengths.append(fmt.stored_rows(episode, rows, options))
        yield episode


@contextmanager
def replacement(fmt: type[Format], target: Path, mode: str) -> Iterator[Path]:
    """Yield a path to build a dataset at, and put it at `target` when the block succeeds."""
    ensure_dir_exists(target.parent)
    new = building_path(target)
    if mode == "overwrite" and journal_path(new).exists() and (present := detect_format(target)):
        with suppress(ContractError):  # it will not be missed
            present.open_writer(target).close()  # ends what a writer that was killed has begun
    with WriterLock(target):
        if mode == "error" and _is_taken(target):
            raise FileExistsError(f"{target} exists; choose another path, or mode 'append' or 'overwrite'")
        discard(target)  # of a process that was killed: we hold the lock
        new.parent.mkdir()
        try:
            yield new
            _publish(fmt, new, target)
        finally:
            discard(target)


def _publish(fmt: type[Format], new: Path, target: Path) -> None:
    """Put the dataset in place, then what else lies beside it; remove what was beside the old one."""
    built = {target.with_name(path.name) for path in new.parent.iterdir()}
    stale = {*fmt.side_files(target)} - {*built, lock_path(target), new.parent}
    fmt.publish(target)
    for path in new.parent.iterdir():
        if path != new:  # traded places with the old one
            _remove(target.with_name(path.name))
            path.replace(target.with_name(path.name))
    for path in stale:
        _remove(path)
    sync([target.parent])


def _copy_files(source: _Source, fmt: type[Format], new: Path) -> bool:
    """Copy the files of a dataset of the same lossy format to `new`; False where that cannot be done."""
    path = source.location
    if not isinstance(path, Path) or source.format is not fmt or not fmt.reencodes_images or is_locked(path):
        return False
    transient = {lock_path(path), *(side for side in fmt.side_files(path) if side.name.startswith("."))}
    for file in [path, *(side for side in fmt.side_files(path) if side not in transient and side.exists())]:
        old, renamed = (path.name, new.name) if file.name.startswith(path.name) else (path.stem, new.stem)
        copied = new.with_name(renamed + file.name.removeprefix(old))
        if file.is_dir():
            copy_tree(file, copied)
        else:
            shutil.copy2(file, copied)
    if lock_path(path).exists() or log_path(new).exists():  # its writer died
        mark_dead(new)
        fmt.open_writer(new).close()
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_complete(fmt: type[Format], path: Path, expected: list[int]) -> None:
    """Raise RuntimeError when the episodes of the dataset at `path` do not have the expected lengths."""
    found = fmt.open_reader(path).lengths
    if found.tolist() != expected:
        raise RuntimeError(
            f"the copy has {len(found)} episodes with {found.sum()} rows: expected {len(expected)} with "
            f"{sum(expected)}; the sources changed meanwhile, or the writer of {fmt.name!r} lost some"
        )
