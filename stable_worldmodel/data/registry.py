"""The dataset formats, and opening a dataset for reading or writing by name, suffix or content.

A new format is one file in `formats/` with a `Format` subclass, and one line in `formats/__init__.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from stable_worldmodel.data.cache import PathLike, check_path, dataset_path, dataset_places, first_dataset
from stable_worldmodel.data.journal import building_path, journal_path
from stable_worldmodel.data.lock import lock_path
from stable_worldmodel.data.remote import (
    dataset_in_url,
    download_dataset,
    is_hub_id,
    is_lerobot_name,
    locate_lerobot,
    record_path,
)
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.protocols import Writer

if TYPE_CHECKING:
    from stable_worldmodel.data.dataset import Dataset
    from stable_worldmodel.data.verify import Report

logger = logging.getLogger(__name__)

WRITE_MODES = ("append", "overwrite", "error")
DEFAULT_FORMAT = "hdf5"
OPEN_TRIES = 5


class DatasetWriter(Writer, Protocol):
    """A writer that knows what is on disk already; used as a context manager."""

    num_episodes: int  # committed ones, earlier sessions included
    metadata: dict[str, Any]  # as the dataset keeps it: of its first session

    def close(self) -> None: ...

    def __enter__(self) -> DatasetWriter: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Format:
    """One way to keep episodes on disk. Only class methods: a format has no state."""

    name: str = ""
    suffixes: tuple[str, ...] = ()  # file or directory name endings that mean this format; the first is the default
    supports_episode_data: bool = False
    reencodes_images: bool = False  # a copy through decoded frames loses quality, one of the files does not

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        """Whether `path` looks like this format. Looks at names only, opens nothing."""
        raise NotImplementedError

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> Dataset:
        """Open an existing dataset."""
        raise NotImplementedError(f"format {cls.name!r} cannot be read")

    @classmethod
    def open_writer(cls, path: PathLike, **kwargs: Any) -> DatasetWriter:
        """Open a writer; `mode` is one of WRITE_MODES."""
        raise NotImplementedError(f"format {cls.name!r} cannot be written")

    @classmethod
    def verify(cls, path: PathLike, deep: bool = False, repair: bool = False) -> Report:
        """Check the dataset, see `verify.verify`."""
        raise NotImplementedError(f"format {cls.name!r} cannot be verified")

    @classmethod
    def stored_rows(cls, episode: Mapping[str, Any], rows: int, options: Mapping[str, Any]) -> int:
        """How many of the `rows` of an episode a writer with these options stores."""
        return rows

    @classmethod
    def publish(cls, path: Path) -> None:
        """Put the dataset that was built for `path` in its hidden folder there, see `formats.shared.swap`."""
        from stable_worldmodel.data.formats.shared.swap import publish

        publish(path)

    @classmethod
    def side_files(cls, path: Path) -> list[Path]:
        """What may lie beside the dataset `path` and belongs to it; none of it needs to exist."""
        return [journal_path(path), lock_path(path), record_path(path), building_path(path).parent]


FORMATS: dict[str, type[Format]] = {}

FormatType = TypeVar("FormatType", bound=type[Format])


def register_format(cls: FormatType) -> FormatType:
    """Class decorator: add a format under `cls.name`. Detection asks formats in order of registration."""
    if not cls.name:
        raise ContractError(f"{cls.__name__}.name is empty: expected the name of the format")
    if cls.name in FORMATS:
        raise ContractError(f"format {cls.name!r} is already registered by {FORMATS[cls.name].__name__}")
    FORMATS[cls.name] = cls
    return cls


def list_formats() -> list[str]:
    """Names of the registered formats, in order of registration."""
    return list(FORMATS)


def get_format(name: str) -> type[Format]:
    """Return the format registered as `name`; ContractError naming the known ones otherwise."""
    if name not in FORMATS:
        raise ContractError(f"unknown dataset format {name!r}: expected one of {list_formats()}")
    return FORMATS[name]


def detect_format(path: PathLike) -> type[Format] | None:
    """Return the first format that recognises `path`, or None."""
    return next((fmt for fmt in FORMATS.values() if fmt.detect(path)), None)


def format_of(path: PathLike, format: str | None = None) -> type[Format]:
    """Return the format named `format`, or the one that recognises `path`; ContractError when none does."""
    fmt = get_format(format) if format else detect_format(path)
    if fmt is None:
        raise ContractError(f"{path}: no format recognises it; pass format=, one of {list_formats()}")
    return fmt


def validate_write_mode(mode: str) -> str:
    """Return `mode` if it is one of WRITE_MODES; else ContractError."""
    if mode not in WRITE_MODES:
        raise ContractError(f"write mode {mode!r}: expected one of {WRITE_MODES}")
    return mode


def load_dataset(
    name: PathLike, cache_dir: PathLike | None = None, format: str | None = None, **kwargs: Any
) -> Dataset:
    """Open a dataset by path, cached name, hub id (`owner/repo`) or URL, see `locate_dataset`.

    `kwargs` go to the reader: `num_steps`, `frameskip`, `transform`, `keys_to_load` ... Raises NotFoundError when
    there is no such dataset, ContractError when its format is not recognised.
    """
    location = locate_dataset(name, cache_dir, format, kwargs.get("storage_options"))
    fmt = format_of(location, format)
    for _ in range(OPEN_TRIES):
        before = _file_at(location)
        dataset = fmt.open_reader(location, **kwargs)
        if _file_at(location) == before:  # else it was replaced, and its journal may be that of the other one
            break
    if isinstance(location, Path) and (record := record_path(location)).exists():
        dataset.metadata = {**dataset.metadata, "hub": json.loads(record.read_text())}
    return dataset


def _file_at(location: Path | str) -> tuple[int, int] | None:
    """What tells a local file or directory from one that replaces it."""
    if not isinstance(location, Path):
        return None
    found = location.stat()
    return found.st_dev, found.st_ino


def locate_dataset(
    name: PathLike,
    cache_dir: PathLike | None = None,
    format: str | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Path | str:
    """Return the path that `name` means, or the URL.

    A path or name is looked up locally, see `cache.dataset_path`. What is not found there and looks like a hub id is
    downloaded, see `remote.download_dataset`. A URL (`s3://`, `hf://` ...) is read in place; where it is a folder that
    no format recognises, the first dataset in it is meant. `lerobot:` before a name or a hub id asks for a LeRobot
    dataset, see `remote.locate_lerobot`. Raises NotFoundError with everything that was tried.
    """
    if is_lerobot_name(name):
        return locate_lerobot(str(name), cache_dir)
    if "://" in str(name):
        recognised = format is not None or detect_format(str(name)) is not None
        return str(name) if recognised else dataset_in_url(str(name), storage_options)
    try:
        return dataset_path(name, cache_dir)
    except NotFoundError as error:
        if not is_hub_id(name):
            raise
        try:
            return download_dataset(str(name), cache_dir)
        except (NotFoundError, ImportError) as remote:
            raise NotFoundError(f"{error}\n{remote}") from remote


def open_writer(
    path: PathLike,
    format: str | None = None,
    mode: str = "append",
    metadata: dict[str, Any] | None = None,
    **kwargs: Any,
) -> DatasetWriter:
    """Open a writer of complete episodes at `path`. What it writes, `load_dataset(path)` reads.

    `format=None` takes the format from the suffix, from the dataset that `path` means already, or else HDF5. A path
    without a dataset suffix gets the format's own. `mode` is `append` (continue or create), `overwrite` (replace on
    success) or `error` (FileExistsError when something is there). `metadata` (JSON values) describes the run and is
    read back as `dataset.metadata`. ContractError for a format that contradicts the suffix, and when `path` already
    means a dataset of another format.
    """
    validate_write_mode(mode)
    fmt, target = writer_target(path, format)
    return fmt.open_writer(target, mode=mode, metadata=metadata, **kwargs)


def writer_target(path: PathLike, format: str | None = None) -> tuple[type[Format], Path]:
    """Return the format and the full path that `open_writer(path, format)` writes."""
    if "://" in str(path):
        raise ContractError(f"{path}: datasets are written to local paths; upload the finished one")
    if is_lerobot_name(path):
        raise ContractError(f"{path}: a name to read from; write to a path with format='lerobot'")
    target = check_path(path)
    by_suffix = next((fmt for fmt in FORMATS.values() if target.name.endswith(fmt.suffixes)), None)
    if by_suffix is not None:
        if format not in (None, by_suffix.name):
            raise ContractError(
                f"{target}: the suffix means format {by_suffix.name!r}, but format={format!r} was given"
            )
        return by_suffix, target
    places = dataset_places(target)
    present = first_dataset(places)  # what `load_dataset(path)` opens now
    if format is None and present is not None:
        return format_of(present), present
    fmt = get_format(format or DEFAULT_FORMAT)
    if fmt.suffixes and not (target.is_dir() and fmt.detect(target)):
        target = target.with_name(target.name + fmt.suffixes[0])
    if present is not None and places.index(present) < places.index(target):
        raise ContractError(
            f"{present} exists, and {str(path)!r} means that dataset; write to {target.name!r} and load it by that name"
        )
    return fmt, target


def warn_if_dropped(names: Sequence[str], path: PathLike, format: str | None = None) -> None:
    """Log a warning when `open_writer(path, format)` has no place for the per-episode constants `names`."""
    fmt, _ = writer_target(path, format)
    if names and not fmt.supports_episode_data:
        logger.warning("%s: format %r keeps no per-episode data; %s are dropped", path, fmt.name, [*names])
