"""Reads rows of an HDF5 column: by byte offset where the layout allows it, through the library otherwise.

A column with one uncompressed row per chunk, as images are stored, is an array whose rows are scattered over the file.
Their offsets are listed once; a read is then a copy out of the memory-mapped file, free of the library's global lock.
Committed rows never move, so this also holds for a file that is being appended to.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.hdf5.chunk_index import chunk_addresses
from stable_worldmodel.data.formats.hdf5.columns import has_plain_rows
from stable_worldmodel.data.formats.shared.threads import in_threads, num_threads

if TYPE_CHECKING:
    import h5py

LIBRARY_SPAN = 128  # what counts as a chunk in a file without chunks, in rows
THREADED_ROW_BYTES = 64 << 10  # copies of smaller rows take less time than two threads passing the GIL
GATHERED_ROW_BYTES = 4 << 10  # below this, NumPy gathers faster than a loop copies


def row_offsets(dataset: h5py.Dataset, rows: int) -> np.ndarray | None:
    """Return the byte offset of each of the first `rows` rows, int64 (rows,).

    None when rows cannot be addressed that way: another chunking, a filter, a chunk never written, a library too old.
    """
    if not has_plain_rows(dataset):
        return None
    found = chunk_addresses(dataset, rows)
    return _ask_library(dataset, rows) if found is None else found


def _ask_library(dataset: h5py.Dataset, rows: int) -> np.ndarray | None:
    """Return what `row_offsets` does, at about 2 microseconds per chunk."""
    if not hasattr(dataset.id, "chunk_iter"):
        return None
    offsets = np.full(rows, -1, dtype=np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.chunk_offset[0] < rows:  # later ones belong to an episode that is being written
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return None if (offsets < 0).any() else offsets


class MappedRows:
    """Rows of one column at known byte offsets of a local file. Pickles as path and offsets, maps again on use."""

    def __init__(self, path: Path, offsets: np.ndarray, column: Column) -> None:
        self._path = path
        self._offsets = offsets
        self._column = column
        self._inode = path.stat().st_ino
        self._bytes: np.ndarray | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_bytes": None}

    def read(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return `rows` (n,) in any order as (n, *shape), in `out` when given."""
        if out is None:
            out = np.empty((len(rows), *self._column.shape), dtype=self._column.dtype)
        offsets = self._offsets[rows]
        order = np.argsort(offsets)  # a cold file is read in one direction
        flat = out.view(np.uint8).reshape(len(rows), self._column.row_bytes)
        source = self._map()
        parts = num_threads() if self._column.row_bytes >= THREADED_ROW_BYTES else 1

        def copy(start: int, stop: int) -> None:
            self._copy(source, offsets, order[start:stop], flat)

        in_threads(copy, len(rows), max(1, -(-len(rows) // parts)))
        return out

    def _copy(self, source: np.ndarray, offsets: np.ndarray, part: np.ndarray, out: np.ndarray) -> None:
        size = self._column.row_bytes
        if size <= GATHERED_ROW_BYTES:
            every_start = as_strided(source, (len(source) - size + 1, size), (1, 1), writeable=False)
            out[part] = every_start[offsets[part]]
            return
        for i, offset in zip(part.tolist(), offsets[part].tolist(), strict=True):
            out[i] = source[offset : offset + size]  # releases the GIL while it copies

    def _map(self) -> np.ndarray:
        if self._bytes is None:
            check_not_replaced(self._path, self._inode)
            with self._path.open("rb") as file:
                self._bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        return self._bytes


def check_not_replaced(path: Path, inode: int) -> None:
    """Raise RuntimeError when `path` is no longer the file that had this inode."""
    if path.stat().st_ino != inode:
        raise RuntimeError(f"{path} was replaced since the dataset was opened; load it again")


def read_through_library(dataset: h5py.Dataset, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Fill `out` with `rows` (n,) in any order. Only chunks that hold some of them are read, each of them once."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    chunk = ordered // (dataset.chunks[0] if dataset.chunks else LIBRARY_SPAN)
    cuts = np.flatnonzero(np.diff(chunk) > 1) + 1  # rows of neighbouring chunks are read together
    for part in np.split(np.arange(len(rows)), cuts):
        if len(part):
            first, last = ordered[part[0]], ordered[part[-1]]
            out[order[part]] = dataset[first : last + 1][ordered[part] - first]
    return out
