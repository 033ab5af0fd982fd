"""The `hdf5` format: one file per dataset. See `hdf5.layout` for what is inside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.data.columns import DERIVED_COLUMNS, Column, decode_text
from stable_worldmodel.data.dataset import Dataset, Transform
from stable_worldmodel.data.formats.hdf5 import layout
from stable_worldmodel.data.formats.hdf5.columns import StoredColumn
from stable_worldmodel.data.formats.hdf5.rows import (
    LIBRARY_SPAN,
    MappedRows,
    check_not_replaced,
    read_through_library,
    row_offsets,
)
from stable_worldmodel.data.formats.hdf5.verify import lost_columns, verify_file
from stable_worldmodel.data.formats.hdf5.writer import HDF5Writer
from stable_worldmodel.data.frame_cache import FrameCache
from stable_worldmodel.data.journal import read_header
from stable_worldmodel.data.memory import available_memory
from stable_worldmodel.data.registry import Format, PathLike
from stable_worldmodel.data.verify import Report
from stable_worldmodel.errors import ContractError, MissingDependencyError, require

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5")
FRAME_BYTES = 4096  # rows from this size on are treated like images

CacheMode = Literal["auto", "none", "decoded"]


class HDF5Format(Format):
    """One `.h5` file, or a directory that holds exactly one."""

    name = "hdf5"
    suffixes = SUFFIXES

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        if str(path).endswith(SUFFIXES):
            return True
        return "://" not in str(path) and Path(path).is_dir() and bool(_files_in(Path(path)))

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> HDF5Dataset:
        return HDF5Dataset(path=path, **kwargs)

    @classmethod
    def open_writer(cls, path: PathLike, **kwargs: Any) -> HDF5Writer:
        return HDF5Writer(_file_at(Path(path)), **kwargs)

    @classmethod
    def verify(cls, path: PathLike, deep: bool = False, repair: bool = False) -> Report:
        return verify_file(_file_at(Path(path)), deep, repair)


class HDF5Dataset(Dataset):
    """A dataset in one HDF5 file, as the episodes committed when it was opened; a writer may go on appending.

    name: looked up as `cache.dataset_path` says; `path`: a file, a directory with one file, or an fsspec URL.
    keys_to_cache: columns to hold in memory in any case. Numbers and text are in memory anyway, as far as they fit
        into half of what is free; images and rows of 4 KiB or more are not.
    cache: `decoded` holds all images in memory, filled as they are read (ContractError when they take more than half
        of what is free); `none` reads them from the file; `auto` decides per column: files that must be decompressed
        are cached if they fit, frames that can be copied out of the file are not.
    storage_options: for fsspec.
    The other arguments are those of `Dataset`. TypeError without `name` and `path`.
    """

    def __init__(
        self,
        name: str | None = None,
        frameskip: int = 1,
        num_steps: int = 1,
        transform: Transform | None = None,
        keys_to_load: Sequence[str] | None = None,
        keys_to_cache: Sequence[str] | None = None,
        keys_to_merge: Mapping[str, str | Sequence[str]] | None = None,
        cache_dir: PathLike | None = None,
        *,
        path: PathLike | None = None,
        storage_options: Mapping[str, Any] | None = None,
        cache: CacheMode = "auto",
        batch_transform: Transform | None = None,
    ) -> None:
        if name is None and path is None:
            raise TypeError("HDF5Dataset needs `name` or `path`")
        if cache not in ("auto", "none", "decoded"):
            raise ContractError(f"cache={cache!r}: expected 'auto', 'none' or 'decoded'")
        location = dataset_path(name or "", cache_dir) if path is None else path
        self._storage_options = dict(storage_options or {})
        self._handle: tuple[int, h5py.File] | None = None
        self._url = str(location) if "://" in str(location) else None
        self.path = None if self._url else _file_at(Path(location))
        self._inode = self.path.stat().st_ino if self.path and self.path.exists() else 0
        with layout.damage_explained(location), self._open() as file:
            lengths, offsets = layout.episode_index(file)
            if not len(lengths):
                raise ContractError(f"{location}: no episode is complete yet")
            stored = layout.columns_of(file, rows=int((offsets + lengths).max()))
            columns = {name: column.column for name, column in stored.items()}
            super().__init__(
                lengths,
                offsets,
                frameskip,
                num_steps,
                transform,
                columns=columns,
                batch_transform=batch_transform,
                keys_to_load=keys_to_load,
            )
            header = read_header(self.path, layout.identity_of(file)) if self.path else None
            self.metadata = header["metadata"] if header else {}
            if lost := lost_columns(header, columns):
                raise ContractError(f"{location}: the columns {lost} that its journal describes cannot be read")
            self._entries = {name: column.entries_path for name, column in stored.items()}
            self._shown = {
                name: column.entries_of(self.num_rows) for name, column in stored.items() if column.shown is not None
            }
            loaded = [stored[name] for name in self.column_names if name not in DERIVED_COLUMNS]
            frames = {column.name: column for column in loaded if _is_frame(column.column)}
            _check_filters(file, loaded)
            self._mapped = self._map_rows(loaded)
            self._load_table([column for column in loaded if column.name not in frames], keys_to_cache or ())
            self._caches = self._make_caches(frames, cache, keys_to_cache or ())
        for target, source in (keys_to_merge or {}).items():
            self.merge_col(source, target)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def _open(self) -> h5py.File:
        if self.path is not None:
            return layout.open_for_reading(self.path)
        import h5py

        fsspec = require("fsspec", "cluster")
        remote = fsspec.open(self._url, "rb", **self._storage_options).open()
        return h5py.File(remote, "r", rdcc_nbytes=layout.CHUNK_CACHE_BYTES)

    def _library(self) -> h5py.File:
        """The open file of this process; handles must not cross a fork."""
        if self._handle is None or self._handle[0] != os.getpid():
            if self.path is not None:
                check_not_replaced(self.path, self._inode)
            self._handle = (os.getpid(), self._open())
        return self._handle[1]

    def _map_rows(self, columns: Iterable[StoredColumn]) -> dict[str, MappedRows]:
        """Address entries by byte offset where the file allows it and the last one read both ways agrees."""
        found: dict[str, MappedRows] = {}
        if self.path is None:
            return found
        for stored in columns:
            if stored.column.kind == "text":
                continue
            last = np.array([self._num_entries(stored.name) - 1])
            offsets = row_offsets(stored.entries, int(last[0]) + 1)
            if offsets is None:
                continue
            mapped = MappedRows(self.path, offsets, stored.column)
            if mapped.read(last).tobytes() == stored.entries[last].tobytes():
                found[stored.name] = mapped
        return found

    def _num_entries(self, name: str) -> int:
        """What the file holds of a column: rows, or the frames that its rows show."""
        return int(self._shown[name].max()) + 1 if name in self._shown else self.num_rows

    def _load_table(self, columns: Iterable[StoredColumn], keys_to_cache: Sequence[str]) -> None:
        """Hold numbers and text in memory, the small columns first, as long as they fit."""
        left = available_memory() // 2
        everything = np.arange(self.num_rows)
        for stored in sorted(columns, key=lambda stored: (stored.name not in keys_to_cache, stored.column.row_bytes)):
            name, column = stored.name, stored.column
            left -= column.row_bytes * self.num_rows
            if left < 0 and name not in keys_to_cache:
                return
            if name in self._mapped:
                self._table[name] = self._mapped.pop(name).read(everything)
            elif column.kind == "text":
                self._table[name] = _decode_runs(stored.entries[: self.num_rows])
            else:
                self._table[name] = stored.entries[: self.num_rows].astype(column.dtype, copy=False)

    def _make_caches(
        self, frames: Mapping[str, StoredColumn], cache: CacheMode, keys_to_cache: Sequence[str]
    ) -> dict[str, FrameCache]:
        for name in keys_to_cache:
            self._column(name)
        wanted = [name for name in frames if cache == "decoded" or name in keys_to_cache]
        optional = [name for name in frames if cache == "auto" and name not in self._mapped and name not in wanted]
        size = {name: frames[name].column.row_bytes * self._num_entries(name) for name in frames}
        limit = available_memory() // 2
        needed = sum(size[name] for name in wanted)
        if needed > limit:
            raise ContractError(
                f"caching {wanted} takes {needed >> 20} MiB, {limit >> 20} MiB are allowed; use cache='none'"
            )
        if needed + sum(size[name] for name in optional) <= limit:
            wanted += optional
        block = {name: (frames[name].entries.chunks or (LIBRARY_SPAN,))[0] for name in wanted}
        return {name: FrameCache(self.columns[name], self._num_entries(name), max(block[name], 16)) for name in wanted}

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        entries = self._shown[name][rows] if name in self._shown else rows
        if name in self._caches:
            return self._caches[name].read(entries, lambda entries: self._from_file(name, entries, None), out)
        return self._from_file(name, entries, out)

    def _from_file(self, name: str, entries: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if name in self._mapped:
            return self._mapped[name].read(entries, out)
        file, column = self._library(), self.columns[name]
        with layout.damage_explained(self.path or self._url):
            dataset = file[self._entries[name]]
            if column.kind == "text":
                buffer = np.empty(len(entries), dtype=dataset.dtype)
                return decode_text(read_through_library(dataset, entries, buffer).tolist())
            if out is None:
                out = np.empty((len(entries), *column.shape), dtype=column.dtype)
            return read_through_library(dataset, entries, out)


def _is_frame(column: Column) -> bool:
    """Whether rows are so large that they stay on disk."""
    return column.kind == "image" or column.row_bytes >= FRAME_BYTES


def _decode_runs(values: np.ndarray) -> np.ndarray:
    """Decode the text of consecutive rows (n,), of which many are equal."""
    first = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])  # of each run
    return np.repeat(decode_text(values[first].tolist()), np.diff(first, append=len(values)))


def _check_filters(file: h5py.File, columns: Iterable[StoredColumn]) -> None:
    """Raise MissingDependencyError when a column is compressed with a filter that is not installed."""
    import h5py

    for stored in columns:
        pipeline = stored.entries.id.get_create_plist()
        for i in range(pipeline.get_nfilters()):
            number, _, _, label = pipeline.get_filter(i)
            if not h5py.h5z.filter_avail(number):
                raise MissingDependencyError(
                    f"column {stored.name!r} of {file.filename} is compressed with filter {number} ({label.decode()}), "
                    "which is not installed; pip install hdf5plugin"
                )


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith("."))


def _file_at(path: Path) -> Path:
    """Return `path`, or the only HDF5 file in it when it is a directory."""
    path = path.expanduser().resolve()
    if not path.is_dir():
        return path
    files = _files_in(path)
    if len(files) != 1:
        raise ContractError(f"{path}: expected one {SUFFIXES} file in this directory, found {[f.name for f in files]}")
    return files[0]
