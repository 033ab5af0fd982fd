"""Lance tables: opening, reading, appending, cutting, compacting. Everything that calls pylance is here.

pylance has threads of its own that a forked process lacks: there it hangs. It is imported when the first table is
opened, never with this package, and refused in processes that were forked after that.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_worldmodel.data.formats.shared.disk import sync
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

STORAGE_VERSION = "2.1"  # read by every release since early 2025; 2.2 stores constant images where rows have no place
BATCH_ROWS, BATCH_BYTES = 128, 8 << 20  # larger batches of wide rows made readers hang
SMALL_BYTES, MANY_SMALL = 32 << 20, 16  # so many fragments below this size are joined
MANIFEST_END = b"LANC"
KEPT = timedelta(hours=1)  # for readers that have a version open

_forked_with_lance = False


def library() -> Any:
    """Import pylance. RuntimeError in a process that was forked after it had been imported, where it would hang."""
    if _forked_with_lance:
        raise RuntimeError(
            "this process was forked after pylance had been imported, and cannot use it. Give the DataLoader "
            "multiprocessing_context='spawn', or load with threads (stable_worldmodel.data.Loader)"
        )
    return _imported()


@lru_cache(maxsize=1)
def _imported() -> Any:
    lance = require("lance", "data")
    if hasattr(os, "register_at_fork"):  # of these functions the latest registered comes first, so before pylance's own
        os.register_at_fork(before=_hush)
    return lance


def _hush() -> None:
    """Keep pylance from warning of what is prevented here, as it does at every fork.

    At every fork anew: whoever catches warnings, as pytest does for each test, drops the filters set meanwhile.
    """
    warnings.filterwarnings("ignore", message="lance is not fork-safe")


def _after_fork() -> None:
    global _forked_with_lance
    _forked_with_lance = _forked_with_lance or "lance" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def explained(uri: str, kind: type[Exception] = ContractError) -> Iterator[None]:
    """Turn what pylance raises on a file that is missing, damaged or cannot be written into an error with its table."""
    try:
        yield
    except ContractError:
        raise
    except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
        if _forked_with_lance:
            raise
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise kind(f"{uri}: {_first_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust code; not an Exception
            raise
        raise kind(f"{uri} is damaged: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(", /")[0]


class DataFile(NamedTuple):
    """The file that holds one column of a fragment, and the number of the column in it."""

    path: str
    fragment: int
    rows: int
    column: int


class Table:
    """One version of a table, and behind its rows those of `logged`, which are not in it yet.

    Pickles as its place and version, and is opened again where it is used.
    """

    def __init__(self, uri: str, version: int | None = None, options: Mapping[str, str] | None = None) -> None:
        self.uri, self.version, self.options = uri, version, dict(options or {})
        self.logged: pa.Table | None = None
        self._handle: tuple[int, Any] | None = None
        with explained(uri):
            self.version = int(self.dataset.version)
            self.schema: pa.Schema = self.dataset.schema
            self.stored = int(self.dataset.count_rows())  # rows without the logged ones
            if "://" not in uri:
                self._touch()
        self.blobs = {field.name for field in self.schema if _is_blob(field)}

    def _touch(self) -> None:
        """Read a row of every file. What is wrong with one must come up here and not in a scan, where a message that
        quotes a zero byte ends the process.
        """
        ends = np.cumsum([fragment.count_rows() for fragment in self.dataset.get_fragments()], dtype=np.int64)
        self.dataset.take(np.unique(ends[ends > 0]) - 1)

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
        return self.metadata("dataset_id")

    def metadata(self, key: str) -> str | None:
        """Return what the schema says under `swm.<key>`."""
        value = (self.schema.metadata or {}).get(f"swm.{key}".encode())
        return None if value is None else value.decode()

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return whole columns, none of them of blobs."""
        with explained(self.uri):
            stored = self.dataset.to_table(columns=list(names))
        return _joined(names, [stored] if self.logged is None else [stored, self.logged])

    def take(self, names: Sequence[str], rows: np.ndarray) -> pa.Table:
        """Return rows in any order, values of blobs included."""
        late = rows >= self.stored
        if self.logged is None or not late.any():
            return _joined(names, [self._take_stored(names, rows)])
        parts = [self.logged.take(rows[late] - self.stored)]
        if not late.all():  # what is in memory can be had in a forked process too
            parts.insert(0, self._take_stored(names, rows[~late]))
        order = np.argsort(late, kind="stable")
        return _joined(names, parts).take(np.argsort(order, kind="stable"))

    def _take_stored(self, names: Sequence[str], rows: np.ndarray) -> pa.Table:
        import pyarrow as pa

        with explained(self.uri):
            plain = [name for name in names if name not in self.blobs]
            found = self.dataset.take(rows, columns=plain).columns if plain else []
            columns = dict(zip(plain, found, strict=True))
            for name in self.blobs.intersection(names):
                self._check_sizes(name, rows)
                values = self.dataset.read_blobs(name, indices=rows.tolist(), preserve_order=True) if len(rows) else []
                columns[name] = pa.array([value for _, value in values], pa.large_binary())
        return pa.table({name: columns[name] for name in names})

    def _check_sizes(self, name: str, rows: np.ndarray) -> None:
        """ContractError for blobs that are larger than the files; pylance would take as much memory."""
        if "://" in self.uri or not len(rows):
            return
        beside, _, sizes = _described(self.dataset.take(rows, columns=[name])[name])
        there = sum(file.stat().st_size for file in Path(self.uri, "data").iterdir())
        if (~beside & ((sizes < 0) | (sizes > there))).any():
            raise ContractError(f"{self.uri} is damaged: a value of {name!r} is larger than the table")

    def files(self, name: str) -> list[DataFile]:
        """The files of a column of a local table, in the order of their rows; none if some fragment lacks it."""
        with explained(self.uri):
            fragments = self.dataset.get_fragments()
            wanted = {field.name(): field.id() for field in self.dataset.lance_schema.fields()}[name]
            found = [
                DataFile(str(Path(self.uri, "data", file.path)), fragment.fragment_id, rows, columns[wanted])
                for fragment in fragments
                for rows in [fragment.physical_rows]  # its metadata need not say
                for file in fragment.data_files()
                if wanted in (columns := dict(zip(file.fields, file.column_indices, strict=True)))
            ]
        return found if len(found) == len(fragments) else []

    def addresses(self, name: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
        """Return fragment << 32 | position of every row, uint64; for blobs also what `_described` says of them."""
        blob = name in self.blobs
        with explained(self.uri):
            found = self.dataset.to_table(columns=[name] * blob, with_row_address=True).combine_chunks()
        address = found["_rowaddr"].to_numpy()
        if not blob:
            return address, None
        return address, _described(found[name])


def _described(blobs: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether each blob lies beside the data files, its first byte and its size."""
    about = blobs.combine_chunks()
    starts, sizes = (about.field(part).to_numpy().astype(np.int64) for part in ("position", "size"))
    beside = about.type.get_field_index("kind") >= 0 and about.field("kind").to_numpy() > 0
    return np.broadcast_to(beside, starts.shape), starts, sizes


def _is_blob(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"lance-encoding:blob") == b"true" or "lance.blob" in str(field.type)


def _joined(names: Sequence[str], parts: Sequence[pa.Table]) -> pa.Table:
    """Return some columns of all parts, each in one piece if one can hold it."""
    import pyarrow as pa

    bare = [pa.table({name: part[name] for name in names}) for part in parts]  # their metadata may differ
    return pa.concat_tables(bare).combine_chunks()


def versions(path: Path) -> list[str]:
    """The manifests of a local table, by name; none when nothing has been committed."""
    folder = path / "_versions"
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".manifest") if folder.is_dir() else []


def of_dataset(uri: str, dataset_id: str | None, options: Mapping[str, str] | None = None) -> Table | None:
    """Open the newest version of a side table that belongs to the dataset; None when there is none.

    While a dataset is replaced, there may be a newer version, of the one that is to come.
    """
    newest = Table(uri, options=options)
    if newest.id == dataset_id:
        return newest
    with explained(uri):
        earlier = sorted((int(entry["version"]) for entry in newest.dataset.versions()), reverse=True)
    found = (Table(uri, version, options) for version in earlier if version != newest.version)
    return next((table for table in found if table.id == dataset_id), None)


# -- writing; the caller holds the lock ------------------------------------------------------------------------------


def append(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Append batches as one version, creating the table if need be."""
    import pyarrow as pa

    operations = library().LanceOperation
    with explained(str(path), OSError):
        dataset = library().dataset(str(path)) if versions(path) else None
        fragments = _write(path, dataset, pa.RecordBatchReader.from_batches(schema, _cut(batches)))
        _commit(path, dataset, operations.Append(fragments) if dataset else operations.Overwrite(schema, fragments))


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _write(path: Path, dataset: Any, rows: pa.RecordBatchReader) -> list[Any]:
    """Write data files, wait until they have reached the disk, and return them as fragments.

    OSError when they are not whole: pylance does not notice when the disk refuses the end of a small file.
    """
    mode = "append" if dataset else "create"
    target = dataset or str(path)
    fragments = library().fragment.write_fragments(rows, target, mode=mode, data_storage_version=STORAGE_VERSION)
    written = {path / "data" / file.path: file.file_size_bytes for fragment in fragments for file in fragment.files}
    for file, size in written.items():
        if size is not None and file.stat().st_size != size:
            raise OSError(errno.ENOSPC, f"{file.stat().st_size} of {size} bytes could be written", str(file))
    sync([*written, path / "data", path])
    return fragments


def _commit(path: Path, dataset: Any, operation: Any) -> None:
    """Make a new version on top of the open one, and wait until it has reached the disk."""
    version = dataset.version if dataset else None
    library().LanceDataset.commit(dataset or str(path), operation, read_version=version)
    _sync_newest(path)


def _sync_newest(path: Path) -> None:
    newest = max((path / "_versions").glob("*.manifest"), key=lambda entry: entry.stat().st_mtime_ns)
    if newest.read_bytes()[-4:] != MANIFEST_END:
        newest.unlink()
        raise OSError(errno.ENOSPC, "the whole file could not be written", str(newest))
    sync([newest, newest.parent])


def drop_torn_versions(path: Path) -> None:
    """Remove manifests that a power loss cut off, newest first, as long as there is an earlier one."""
    for name in versions(path)[:-1]:
        manifest = path / "_versions" / name
        counts_down = len(name) == len("18446744073709551614.manifest")  # older tools count up
        if not counts_down or manifest.read_bytes()[-4:] == MANIFEST_END:
            return
        logger.warning("%s: version %s never reached the disk and is removed", path, name)
        manifest.unlink()


def keep_episodes(path: Path, episodes: int, column: str) -> None:
    """Drop the rows of all but the first `episodes` episodes."""
    with explained(str(path)):
        dataset = library().dataset(str(path))
        if dataset.count_rows(f"{column} >= {episodes}"):
            dataset.delete(f"{column} >= {episodes}")
            _sync_newest(path)


def readable(path: Path, column: str) -> np.ndarray:
    """Return a column of integers up to the first fragment of which it cannot be read."""
    values = [np.zeros(0, dtype=np.int64)]
    with explained(str(path)):
        fragments = library().dataset(str(path)).get_fragments()
    with contextlib.suppress(ContractError):
        for fragment in fragments:
            with explained(str(path)):
                fragment.take([0])  # see Table
                values.append(fragment.to_table(columns=[column])[column].to_numpy())
    return np.concatenate(values)


def keep_readable(path: Path, rows: int) -> None:
    """Drop the fragments after the first ones, which have `rows` rows."""
    with explained(str(path)):
        dataset = library().dataset(str(path))
        fragments = dataset.get_fragments()
        ends = np.cumsum([fragment.count_rows() for fragment in fragments])
        late = [fragment.fragment_id for fragment, end in zip(fragments, ends, strict=True) if end > rows]
        if late:
            _commit(path, dataset, library().LanceOperation.Delete([], late, f"rows >= {rows}"))


def restore(table: Table) -> None:
    """Make the version that is open the newest: a later one is of a dataset that was to replace this one."""
    with explained(table.uri):
        if library().dataset(table.uri).version != table.version:
            table.dataset.restore()
            _sync_newest(Path(table.uri))


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Add entries to the metadata of the schema."""
    with explained(str(path), OSError):
        library().dataset(str(path)).update_schema_metadata(dict(metadata))


def replace(target: Path, source: Path) -> None:
    """Make the content of `source` the newest version of `target`, in one commit. `source` is used up."""
    with explained(str(target), OSError):
        new = library().dataset(str(source))
        fragments = [fragment.metadata for fragment in new.get_fragments()]
        for entry in [*source.glob("data/*"), *source.glob("_deletions/*")]:  # their names are unique
            (target / entry.parent.name).mkdir(exist_ok=True)
            entry.rename(target / entry.parent.name / entry.name)
        _commit(target, None, library().LanceOperation.Overwrite(new.schema, fragments))


def tidy(path: Path, join: bool) -> None:
    """Remove old versions and what killed writers left. `join`: small fragments at the end first, if they are many.

    Only there: Lance puts rewritten fragments last, and rows must not change places.
    """
    operations = library().LanceOperation
    with explained(str(path), OSError):
        dataset = library().dataset(str(path))
        small = [*itertools.takewhile(_is_small, reversed(dataset.get_fragments()))][::-1]
        if join and len(small) >= MANY_SMALL:
            written = _write(path, dataset, dataset.scanner(fragments=small, batch_size=BATCH_ROWS).to_reader())
            group = operations.RewriteGroup([fragment.metadata for fragment in small], written)
            _commit(path, dataset, operations.Rewrite(groups=[group], rewritten_indices=[]))
    clean(path, KEPT)


def _is_small(fragment: Any) -> bool:
    size = sum(file.file_size_bytes or 0 for file in fragment.data_files())
    return size < SMALL_BYTES and not fragment.num_deletions


def clean(path: Path, older_than: timedelta) -> None:
    """Remove what no version younger than this needs."""
    with explained(str(path), OSError):
        library().dataset(str(path)).cleanup_old_versions(
            older_than=older_than, delete_unverified=True, error_if_tagged_old_versions=False
        )
