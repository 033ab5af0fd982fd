"""Lance tables: opening a version, appending, cutting, compacting. Everything that calls pylance is here.

pylance keeps threads of its own, so it must not be used in a process that was forked after it was imported. It is
imported when a table is opened, never with this package.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.formats.lance.schema import BLOB
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

STORAGE_VERSION = "2.1"  # read by every release since early 2025; 2.2 stores constant images where rows have no place
BATCH_ROWS, BATCH_BYTES = 128, 8 << 20  # larger batches of wide rows made readers hang
SMALL_BYTES = 32 << 20  # fragments below this size are worth compacting
MANY_SMALL = 16  # so many of them in a row are compacted

_forked_with_lance = False


def library() -> Any:
    """Import pylance; RuntimeError in a process forked after it was imported, where it would crash."""
    if _forked_with_lance:
        raise RuntimeError(
            "this process was forked after pylance had been imported, and cannot use it. Give the DataLoader "
            "multiprocessing_context='spawn', or load with threads (stable_worldmodel.data.Loader)"
        )
    # What is said there does not concern our children, which read without it.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    return require("lance", "data")


def _after_fork() -> None:
    global _forked_with_lance
    _forked_with_lance = _forked_with_lance or "lance" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what pylance raises on a missing or damaged file into a ContractError that names the table."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
        if isinstance(error, ContractError) or _forked_with_lance:
            raise
        raise ContractError(f"{uri}: {_first_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust code; not an Exception
            raise
        raise ContractError(f"{uri} is damaged: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(", /")[0]


@dataclass(frozen=True)
class DataFile:
    """One data file of a table."""

    path: str
    fragment: int
    rows: int
    columns: Mapping[str, int]  # top-level field -> number of its column in the file


class Table:
    """One version of a table, for reading. Pickles as its place and version, and is opened again where it is used."""

    def __init__(self, uri: str, version: int | None = None, options: Mapping[str, str] | None = None) -> None:
        self.uri = uri
        self.options = dict(options or {})
        self._handle: tuple[int, Any] | None = None
        self.version = version
        with explained(uri):
            dataset = self.dataset
            self.version = int(dataset.version)
            self.schema: pa.Schema = dataset.schema
            self.rows = int(dataset.count_rows())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    @property
    def dataset(self) -> Any:
        """The open pylance dataset of this process."""
        if self._handle is None or self._handle[0] != os.getpid():
            options = self.options or None
            self._handle = (os.getpid(), library().dataset(self.uri, version=self.version, storage_options=options))
        return self._handle[1]

    @property
    def id(self) -> str | None:
        """The identity of the dataset that the table belongs to; None in foreign tables."""
        return (self.schema.metadata or {}).get(b"swm.dataset_id", b"").decode() or None

    def read(self, names: Sequence[str], offset: int = 0, limit: int | None = None) -> pa.Table:
        """Return some columns of rows [offset, offset + limit)."""
        with explained(self.uri):
            return self.dataset.to_table(columns=list(names), offset=offset or None, limit=limit)

    def batches(self, name: str, row_bytes: int) -> Iterator[pa.Array]:
        """Yield a whole column in pieces of a few MiB."""
        rows = max(1, min(8192, BATCH_BYTES // max(row_bytes, 1)))
        with explained(self.uri):
            for batch in self.dataset.to_batches(columns=[name], batch_size=rows):
                yield batch.column(0)

    def take(self, name: str, rows: np.ndarray) -> pa.Array:
        """Return ascending, distinct rows of one column."""
        with explained(self.uri):
            try:
                taken = self.dataset.take(rows, columns=[name])
            except (OSError, ValueError):
                if not self._follow():
                    raise
                taken = self.dataset.take(rows, columns=[name])
        return taken.column(0).combine_chunks()

    def _follow(self) -> bool:
        """Move on to the newest version if a writer has compacted this one away; rows never change places."""
        newest = library().dataset(self.uri, storage_options=self.options or None)
        grown = newest.version != self.version and newest.count_rows() >= self.rows
        same = (newest.schema.metadata or {}).get(b"swm.dataset_id") == (self.schema.metadata or {}).get(
            b"swm.dataset_id"
        )
        if grown and same:
            self.version, self._handle = int(newest.version), (os.getpid(), newest)
        return grown and same

    def blobs(self, name: str, rows: Sequence[int]) -> list[bytes]:
        """Return whole values of a blob column, in the order of `rows`."""
        with explained(self.uri):
            found = self.dataset.read_blobs(name, indices=[int(row) for row in rows], preserve_order=True)
        return [value for _, value in found]

    def descriptions(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return address, position and size of the values of a blob column; None if some lie beside the data files."""
        with explained(self.uri):
            table = self.dataset.to_table(columns=[name], with_row_address=True).combine_chunks()
        found = table[name].combine_chunks()
        kinds = found.field("kind").to_numpy() if found.type.get_field_index("kind") >= 0 else np.zeros(1)
        if kinds.any():
            return None
        starts, sizes = (found.field(part).to_numpy().astype(np.int64) for part in ("position", "size"))
        return table["_rowaddr"].to_numpy(), starts, sizes

    def files(self) -> list[DataFile]:
        """The data files in the order of their rows, for tables on a local disk."""
        with explained(self.uri):
            fields = {field.id(): field.name() for field in self.dataset.lance_schema.fields()}
            return [
                DataFile(
                    os.path.join(self.uri, "data", file.path),  # noqa: PTH118  URIs are no Paths
                    fragment.fragment_id,
                    fragment.metadata.physical_rows,
                    {
                        fields[field]: column
                        for field, column in zip(file.fields, file.column_indices, strict=True)
                        if field in fields
                    },
                )
                for fragment in self.dataset.get_fragments()
                for file in fragment.data_files()
            ]

    def addresses(self) -> np.ndarray | None:
        """Return fragment << 32 | position of every row, uint64; None when rows lie back to back, none deleted."""
        with explained(self.uri):
            if not any(fragment.num_deletions for fragment in self.dataset.get_fragments()):
                return None
            return self.dataset.to_table(columns=[], with_row_address=True)["_rowaddr"].to_numpy()


def exists(path: Path) -> bool:
    """Whether a version of a local table has been committed."""
    return bool(versions(path))


def versions(path: Path) -> list[str]:
    """The manifests of a local table, by name."""
    folder = path / "_versions"
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".manifest") if folder.is_dir() else []


def of_dataset(path: str, dataset_id: str | None, options: Mapping[str, str] | None = None) -> Table | None:
    """Open the newest version of a side table that belongs to the dataset; None when there is none.

    A killed replacement may leave a newer version, of the dataset that was to come.
    """
    newest = Table(path, options=options)
    if newest.id == dataset_id:
        return newest
    with explained(path):
        earlier = sorted((int(entry["version"]) for entry in newest.dataset.versions()), reverse=True)
    tables = (Table(path, version, options) for version in earlier if version != newest.version)
    return next((table for table in tables if table.id == dataset_id), None)


# -- writing; the caller holds the lock ------------------------------------------------------------------------------


def write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Append batches as one version, creating the table if need be."""
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_batches(schema, _cut(batches))
    mode = "append" if exists(path) else "create"
    library().write_dataset(reader, str(path), mode=mode, data_storage_version=STORAGE_VERSION)


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def drop_torn_versions(path: Path) -> None:
    """Remove manifests that a power loss cut off, newest first, as long as there is an earlier one."""
    for name in versions(path)[:-1]:
        manifest = path / "_versions" / name
        counts_down = len(name) == len("18446744073709551614.manifest")  # older tools count up
        if not counts_down or manifest.read_bytes()[-4:] == b"LANC":
            return
        logger.warning("%s: version %s never reached the disk and is removed", path, name)
        manifest.unlink()


def keep_episodes(path: Path, episodes: int, column: str = "episode_idx") -> None:
    """Drop the rows of all but the first `episodes` episodes."""
    with explained(str(path)):
        dataset = library().dataset(str(path))
        if dataset.count_rows(f"{column} >= {episodes}"):
            dataset.delete(f"{column} >= {episodes}")


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Add entries to the metadata of the schema."""
    library().dataset(str(path)).update_schema_metadata(dict(metadata))


def replace(target: Path, source: Path) -> None:
    """Make the content of `source` the newest version of `target`, in one commit. `source` is used up."""
    lance = library()
    new = lance.dataset(str(source))
    fragments = [fragment.metadata for fragment in new.get_fragments()]
    for entry in (source / "data").iterdir():  # their names are unique
        entry.rename(target / "data" / entry.name)
    lance.LanceDataset.commit(str(target), lance.LanceOperation.Overwrite(new.schema, fragments))


def compact(path: Path, blobs: str | None = None) -> None:
    """Join the small fragments at the end of the table into one if they are many. `blobs`: the blob column.

    Only the end: Lance puts rewritten fragments last, and rows must not change places.
    """
    lance = library()
    dataset = lance.dataset(str(path))
    small: list[Any] = []
    for fragment in reversed(dataset.get_fragments()):
        if fragment.num_deletions or sum(file.file_size_bytes or 0 for file in fragment.data_files()) >= SMALL_BYTES:
            break
        small.insert(0, fragment)
    if len(small) < MANY_SMALL:
        return
    rows = _with_blobs(dataset, small, blobs) if blobs else dataset.scanner(fragments=small, batch_size=BATCH_ROWS)
    written = lance.fragment.write_fragments(
        rows if blobs else rows.to_reader(), dataset, mode="append", data_storage_version=STORAGE_VERSION
    )
    group = lance.LanceOperation.RewriteGroup([fragment.metadata for fragment in small], written)
    operation = lance.LanceOperation.Rewrite(groups=[group], rewritten_indices=[])
    lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)


def _with_blobs(dataset: Any, fragments: Sequence[Any], blobs: str) -> pa.RecordBatchReader:
    """The rows of the last fragments of a table; a scan would give where its blobs lie instead of what they hold."""
    import pyarrow as pa

    names = [name for name in dataset.schema.names if name != blobs]
    fields = [dataset.schema.field(name) for name in names]
    schema = pa.schema([*fields, pa.field(blobs, pa.large_binary(), metadata=BLOB)], dataset.schema.metadata)
    total = dataset.count_rows()

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(total - sum(fragment.count_rows() for fragment in fragments), total, 16):
            rows = list(range(first, min(first + 16, total)))
            values = dataset.read_blobs(blobs, indices=rows, preserve_order=True)
            (plain,) = dataset.take(rows, columns=names).combine_chunks().to_batches()
            yield pa.RecordBatch.from_arrays(
                [*plain.columns, pa.array([value for _, value in values], pa.large_binary())], schema=schema
            )

    return pa.RecordBatchReader.from_batches(schema, batches())


def clean(path: Path) -> None:
    """Remove everything that the newest version does not need: old versions, what a killed writer left."""
    dataset = library().dataset(str(path))
    dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False)


def sync(path: Path, since: float) -> None:
    """Wait until the files of a table that changed after `since` (seconds) have reached the disk."""
    for folder in (path / "data", path / "_versions", path / "_transactions"):
        if not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            if entry.is_file() and entry.stat().st_mtime >= since:
                sync_path(Path(entry.path))
        sync_path(folder)


def sync_path(path: Path) -> None:
    """Wait until a file or directory has reached the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
