"""The dataset formats, and opening a dataset for reading or writing by name, suffix or content.

A new format is one file in `formats/` with a `Format` subclass, and one line in `formats/__init__.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Writer

if TYPE_CHECKING:
    from stable_worldmodel.data.dataset import Dataset
    from stable_worldmodel.data.verify import Report

WRITE_MODES = ("append", "overwrite", "error")
DEFAULT_FORMAT = "hdf5"

PathLike = str | os.PathLike[str]


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
    """Open a dataset by path, cached name (see `cache.dataset_path`) or URL.

    `kwargs` go to the reader: `num_steps`, `frameskip`, `transform`, `keys_to_load` ... Raises NotFoundError when
    there is no such dataset, ContractError when its format is not recognised.
    """
    target: PathLike = name if "://" in str(name) else dataset_path(name, cache_dir)
    return format_of(target, format).open_reader(target, **kwargs)


def open_writer(
    path: PathLike,
    format: str | None = None,
    mode: str = "append",
    metadata: dict[str, Any] | None = None,
    **kwargs: Any,
) -> DatasetWriter:
    """Open a writer of complete episodes at `path`.

    `format=None` takes the format from the suffix, from what exists at `path`, or else HDF5. A path without a
    dataset suffix gets the format's own. `mode` is `append` (continue or create), `overwrite` (replace on success)
    or `error` (FileExistsError when something is there). `metadata` (JSON values) describes the run and is read back
    as `dataset.metadata`. A format that contradicts the suffix is a ContractError.
    """
    validate_write_mode(mode)
    if "://" in str(path):
        raise ContractError(f"{path}: datasets are written to local paths; upload the finished one")
    target = Path(path).expanduser()
    by_suffix = next((fmt for fmt in FORMATS.values() if target.name.endswith(fmt.suffixes)), None)
    if format is not None and by_suffix is not None and by_suffix.name != format:
        raise ContractError(f"{target}: the suffix means format {by_suffix.name!r}, but format={format!r} was given")
    fmt = by_suffix or (get_format(format) if format else detect_format(target) or FORMATS[DEFAULT_FORMAT])
    if by_suffix is None and fmt.suffixes and not target.is_dir():
        target = target.with_name(target.name + fmt.suffixes[0])
    return fmt.open_writer(target, mode=mode, metadata=metadata, **kwargs)
