"""Joins HDF5 datasets into a new file without decoding anything: frames move as stored chunks, numbers in blocks."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import INDEX_COLUMNS, Column
from stable_worldmodel.data.composition import column_differences
from stable_worldmodel.data.formats.hdf5 import layout
from stable_worldmodel.data.formats.hdf5.checksums import crc32_of_rows
from stable_worldmodel.data.formats.hdf5.columns import StoredColumn
from stable_worldmodel.data.formats.hdf5.rows import row_offsets
from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.data.formats.shared.threads import in_background, in_threads
from stable_worldmodel.data.journal import Journal, journal_path, make_header, read_records
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import h5py

BLOCK_BYTES = 16 << 20  # of numbers that are in memory at once
EPISODES_AT_ONCE = 4  # that one thread checks


@dataclass(frozen=True)
class _Part:
    """One of the files that are joined."""

    path: Path
    lengths: np.ndarray  # (E,) int64
    offsets: np.ndarray  # (E,) int64
    columns: dict[str, Column]
    dtypes: dict[str, np.dtype]  # as stored, by path in the file
    sizes: dict[str, int]  # entries that belong to episodes, by path in the file

    @property
    def rows(self) -> int:
        return int((self.offsets + self.lengths).max(initial=0))


def join_files(sources: Sequence[Path], new: Path, metadata: Mapping[str, Any]) -> np.ndarray:
    """Write the episodes of `sources`, in order, to the file `new`; returns their lengths (E,).

    The sources are closed and have a journal. Its checksums are carried over and the copy is read again and compared
    with them: every byte is what its writer recorded. The first source decides about dtypes, as the first episode does
    in a file that one writer fills; the widest text about the width of text. The file and its journal are on the disk
    when this returns.

    Raises ContractError when the columns differ, before anything is written, and when the copy differs from what was
    recorded.
    """
    parts = [_look_at(path) for path in sources]
    first = parts[0]
    for part in parts[1:]:
        faults = column_differences(first.columns, {**part.columns, **_castable(first, part)})
        if faults or part.sizes.keys() != first.sizes.keys():
            listed = "\n  ".join(faults or [f"stored as {sorted(part.sizes)} instead of {sorted(first.sizes)}"])
            raise ContractError(f"{part.path} does not match {first.path}:\n  {listed}")
    dtypes = {name: _widest([part.dtypes[name] for part in parts]) for name in first.dtypes}
    dataset_id = _create(first, new, dtypes)
    with Journal(journal_path(new)) as journal:
        journal.begin(make_header(dataset_id, first.columns, metadata, first_episode=0), 0)
        _fill(parts, new, journal)
        journal.sync()
    synced = in_background(lambda: sync([new]))  # the disk is busy, the processor is not
    try:
        check_checksums(new)
    finally:
        synced()
    return np.concatenate([part.lengths for part in parts])


def _look_at(path: Path) -> _Part:
    with layout.damage_explained(path), layout.open_for_reading(path) as file:
        lengths, offsets = layout.episode_index(file)
        stored = layout.columns_of(file)
        rows = int((offsets + lengths).max(initial=0))
        short = [name for name, column in stored.items() if column.readable_rows() < rows]
        if short:
            raise ContractError(f"{path}: columns {short} are shorter than the {rows} rows of the episodes")
        datasets = layout.datasets_of(file, stored)
        return _Part(
            path,
            lengths,
            offsets,
            {name: column.column for name, column in stored.items()},
            {name: dataset.dtype for name, dataset in datasets.items()},
            layout.sizes_of(stored, rows, len(lengths)),
        )


def _castable(first: _Part, part: _Part) -> dict[str, Column]:
    """The columns that the first file may hold in its own dtype, as it describes them; values are checked later."""
    return {
        name: column
        for name, column in first.columns.items()
        if name in part.columns
        and part.columns[name].shape == column.shape
        and _kind(part.columns[name].dtype) == _kind(column.dtype)
    }


def _kind(dtype: np.dtype) -> str:
    return "i" if dtype.kind == "u" else dtype.kind


def _widest(dtypes: Sequence[np.dtype]) -> np.dtype:
    return max(dtypes, key=lambda dtype: dtype.itemsize) if dtypes[0].kind == "S" else dtypes[0]


def _create(first: _Part, new: Path, dtypes: Mapping[str, np.dtype]) -> str:
    """Create the file, without rows."""
    empty, unique = {}, []
    for name, column in sorted(first.columns.items()):
        grouped = name not in dtypes
        if grouped:
            unique.append(name)
        empty[name] = np.empty((0, *column.shape), column.dtype if grouped else dtypes[name])
    return layout.create_file(new, empty, unique)


def _fill(parts: Sequence[_Part], new: Path, journal: Journal) -> None:
    import h5py

    with h5py.File(new, "r+", libver=("v110", "latest")) as file:
        stored = layout.columns_of(file)
        datasets = layout.datasets_of(file, stored)
        for name, dataset in datasets.items():
            dataset.resize(sum(part.sizes[name] for part in parts), axis=0)
        at = dict.fromkeys(datasets, 0)
        rows = 0
        for part in parts:
            with layout.damage_explained(part.path), layout.open_for_reading(part.path) as source:
                copied = _copy_columns(part, source, datasets, at, stored)
            datasets["ep_offset"][at["ep_offset"] : at["ep_offset"] + len(part.lengths)] = part.offsets + rows
            datasets["ep_len"][at["ep_len"] : at["ep_len"] + len(part.lengths)] = part.lengths
            _copy_journal(part, journal, stored, copied, rows)
            rows += part.rows
            at = {name: start + part.sizes[name] for name, start in at.items()}


def _copy_columns(
    part: _Part,
    source: h5py.File,
    datasets: Mapping[str, h5py.Dataset],
    at: Mapping[str, int],
    stored: Mapping[str, StoredColumn],
) -> set[str]:
    """Copy everything but the index; returns the columns whose stored bytes are not those of the source."""
    changed = set()
    owner = {path: column for column in stored.values() for path in column.datasets}
    with ExitStack() as stack:
        mapped = None
        for path, target in datasets.items():
            if path in INDEX_COLUMNS:
                continue
            column, entries = owner[path], part.sizes[path]
            offsets = None
            if path == column.entries_path and column.column.kind == "image" and entries:
                offsets = row_offsets(source[path], entries)
            if offsets is not None:
                if mapped is None:
                    mapped = stack.enter_context(_mapped(part.path))
                _copy_chunks(mapped, offsets, target, at[path])
                continue
            shift = at[column.entries_path] if column.shown is not None and path != column.entries_path else 0
            for start, block in _blocks(source[path], entries):
                values = _cast(block, target.dtype, path)
                target[at[path] + start : at[path] + start + len(values)] = values + shift if shift else values
            if source[path].dtype != target.dtype:
                changed.add(column.name)
    return changed


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        yield view


def _copy_chunks(source: memoryview, offsets: np.ndarray, target: h5py.Dataset, first: int) -> None:
    """Write each frame as a chunk, past the library's cache: rows are chunks, without a filter."""
    size = target.dtype.itemsize * int(np.prod(target.shape[1:]))
    others = (0,) * (target.ndim - 1)
    write = target.id.write_direct_chunk
    for row, offset in enumerate(offsets.tolist(), first):
        with source[offset : offset + size] as frame:
            write((row, *others), frame)


def _blocks(dataset: h5py.Dataset, entries: int) -> Iterator[tuple[int, np.ndarray]]:
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64)))
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, entries, step):
        yield start, dataset[start : min(start + step, entries)]


def _cast(values: np.ndarray, dtype: np.dtype, path: str) -> np.ndarray:
    if values.dtype == dtype:
        return values
    cast = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, values):
        raise ContractError(f"column {path!r}: values do not fit into {dtype.name}, the dtype of the first episodes")
    return cast


def _copy_journal(
    part: _Part, journal: Journal, stored: Mapping[str, StoredColumn], changed: set[str], first_row: int
) -> None:
    """Carry the records of the episodes over, numbered on; checksums of cast columns are made anew."""
    with layout.open_for_reading(part.path) as source:
        identity = layout.identity_of(source)
    records = [record for record in read_records(part.path, identity) if record["kind"] == "episode"]
    lengths = [record["len"] for record in records]
    if lengths != part.lengths.tolist():
        raise ContractError(f"{part.path}: its journal has {len(lengths)} episodes, the file has {len(part.lengths)}")
    for record, offset in zip(records, (part.offsets + first_row).tolist(), strict=True):
        crcs = dict(record["crc32"])
        for name in changed:
            values = stored[name].read(slice(offset, offset + record["len"]))
            crcs[name] = zlib.crc32(np.ascontiguousarray(values).data)
        journal.append({**record, "i": journal.num_episodes, "crc32": crcs})


# -- the copy against its journal --------------------------------------------------------------------------------------


def check_checksums(path: Path) -> None:
    """Compare all columns of a closed file with its journal; ContractError for the first episode that differs."""
    with layout.damage_explained(path), layout.open_for_reading(path) as file, ExitStack() as stack:
        lengths, offsets = layout.episode_index(file)
        records = [r for r in read_records(path, layout.identity_of(file)) if r["kind"] == "episode"]
        if [record["len"] for record in records] != lengths.tolist():
            raise ContractError(f"{path}: {len(lengths)} episodes were written, its journal has {len(records)}")
        mapped = None
        for name, column in layout.columns_of(file).items():
            expected = [record["crc32"][name] for record in records]
            where = row_offsets(column.entries, len(column.entries)) if column.column.kind == "image" else None
            if where is None:
                _check_table(path, column, lengths, offsets, expected)
            else:
                mapped = mapped or stack.enter_context(_mapped(path))
                _check_frames(path, mapped, where, column, lengths, offsets, expected)


def _check_table(
    path: Path, column: StoredColumn, lengths: np.ndarray, offsets: np.ndarray, expected: Sequence[int]
) -> None:
    """Read many episodes at once: they lie one after the other."""
    row_bytes = max(1, column.entries.dtype.itemsize * int(np.prod(column.column.shape, dtype=np.int64)))
    group = (np.cumsum(lengths) * row_bytes) // BLOCK_BYTES
    for episodes in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(group)) + 1):
        first, last = offsets[episodes].min(), (offsets + lengths)[episodes].max()
        block = column.read(slice(first, last))
        for i in episodes.tolist():
            start = offsets[i] - first
            if zlib.crc32(np.ascontiguousarray(block[start : start + lengths[i]]).data) != expected[i]:
                raise _differs(path, i, column.name)


def _check_frames(
    path: Path,
    mapped: memoryview,
    where: np.ndarray,
    column: StoredColumn,
    lengths: np.ndarray,
    offsets: np.ndarray,
    expected: Sequence[int],
) -> None:
    """Checksums of what lies in the file, on all cores. `where`: byte offset of each entry."""
    size, shape = column.column.row_bytes, column.column.shape
    shown = column.entries_of(int((offsets + lengths).max(initial=0)))

    def check(start: int, stop: int) -> None:
        for i in range(start, stop):
            entries = shown[offsets[i] : offsets[i] + lengths[i]]
            crc = 0
            if column.shown is None:
                for begin, end in _runs(where[entries], size):
                    with mapped[begin:end] as frames:
                        crc = zlib.crc32(frames, crc)
            else:
                places = where[entries[0] : entries[-1] + 1].tolist()
                content = b"".join(mapped[place : place + size] for place in places)
                crc = crc32_of_rows(np.frombuffer(content, np.uint8).reshape(-1, *shape), entries - entries[0])
            if crc != expected[i]:
                raise _differs(path, i, column.name)

    in_threads(check, len(lengths), EPISODES_AT_ONCE)


def _runs(places: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Where pieces of `size` bytes begin and end, those that follow each other taken together."""
    first = np.flatnonzero(np.r_[True, np.diff(places) != size])
    last = np.r_[first[1:], len(places)] - 1
    yield from zip(places[first].tolist(), (places[last] + size).tolist(), strict=True)


def _differs(path: Path, episode: int, column: str) -> ContractError:
    return ContractError(
        f"{path}: episode {episode} differs from what was recorded, in {column!r}; look for the damage with "
        "data.verify(source, deep=True)"
    )
