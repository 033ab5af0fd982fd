"""Parquet files of a LeRobot dataset, and the stills in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.hf_arrow.files import arrow_numbers
from stable_worldmodel.data.formats.lerobot.info import TASKS, Json
from stable_worldmodel.data.formats.shared.frames import Describe, Directory
from stable_worldmodel.data.formats.shared.images import decode_image, image_shape
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

_TASK, _TASK_INDEX = "task", "task_index"
_OLD_TASK = "__index_level_0__"
_FILES_AT_ONCE = 2


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file, or some of its columns. ContractError when it is missing or damaged."""
    pa, pq = require("pyarrow", "data"), require("pyarrow.parquet", "data")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if columns is not None:
                missing = sorted(set(columns) - set(file.schema_arrow.names))
                if missing:
                    raise ContractError(f"{path}: has no columns {missing}, only {file.schema_arrow.names}")
            table = file.read(columns, use_threads=False)
            table.validate()
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise _fault(path, error) from error
    return table if columns is None else table.select(columns)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a file of one row group. Texts get a dictionary; numbers none, which would not tell all NaNs apart."""
    pa, pq = require("pyarrow", "data"), require("pyarrow.parquet", "data")
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table, path, compression="snappy", use_dictionary=texts, write_page_checksum=True, row_group_size=1 << 30
    )


def read_tables(paths: Sequence[Path], columns: Sequence[str]) -> list[pa.Table | ContractError]:
    """Read columns of many files, on all cores; what went wrong with a file is in its place."""
    found: list[Any] = [None] * len(paths)

    def read(start: int, stop: int) -> None:
        for i in range(start, stop):
            try:
                found[i] = read_table(paths[i], columns)
            except ContractError as error:
                found[i] = error

    in_threads(read, len(paths), _FILES_AT_ONCE)
    return found


# -- rows ------------------------------------------------------------------------------------------------------------


def feature_table(features: Mapping[str, Json], values: Mapping[str, Any]) -> pa.Table:
    """The rows of an episode. `values`: arrays (rows, ...), or for stills the encoded bytes of each row."""
    pa = require("pyarrow", "data")
    stored = {name: feature for name, feature in features.items() if feature["dtype"] != "video"}
    arrays = [_array(feature, values[name]) for name, feature in stored.items()]
    fields = [pa.field(name, array.type) for name, array in zip(stored, arrays, strict=True)]
    described = {"info": {"features": {name: _in_words_of_datasets(feature) for name, feature in stored.items()}}}
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, {b"huggingface": json.dumps(described).encode()}))


def _array(feature: Json, values: Any) -> pa.Array:
    pa = require("pyarrow", "data")
    if feature["dtype"] == "image":
        names = [f"frame-{i:06d}.png" for i in range(len(values))]
        return pa.StructArray.from_arrays([pa.array(values, pa.binary()), pa.array(names)], ["bytes", "path"])
    if feature["dtype"] == "string":
        return pa.array(values.tolist(), pa.string())
    if feature["shape"] == [1]:
        return pa.array(np.ascontiguousarray(values).reshape(-1))
    if len(feature["shape"]) == 1:
        return arrow_numbers(values)
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):  # the library's own types for these are built on lists of any length
        array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, size, dtype=np.int32)), array)
    return array


def _in_words_of_datasets(feature: Json) -> Json:
    dtype, shape = feature["dtype"], feature["shape"]
    value = {"dtype": dtype, "_type": "Value"}
    if dtype == "image":
        return {"_type": "Image"}
    if shape == [1] or dtype == "string":
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "List"}
    return {"shape": shape, "dtype": dtype, "_type": f"Array{len(shape)}D"}


# -- tasks -----------------------------------------------------------------------------------------------------------


def read_tasks(root: Path) -> list[str]:
    """Return the sentences by their number. ContractError when the file is missing or damaged."""
    table = read_table(root / TASKS)
    name = next((name for name in (_TASK, _OLD_TASK) if name in table.column_names), None)
    if name is None or _TASK_INDEX not in table.column_names:
        raise ContractError(f"{root / TASKS}: expected {_TASK_INDEX!r} and {_TASK!r}, found {table.column_names}")
    return by_number(root / TASKS, zip(table[_TASK_INDEX].to_pylist(), table[name].to_pylist(), strict=True))


def by_number(path: Path, pairs: Any) -> list[str]:
    """Sort sentences by their number; ContractError unless these are 0, 1, 2 ..."""
    found = dict(pairs)
    if sorted(found, key=str) != sorted(range(len(found)), key=str) or not all(
        isinstance(t, str) for t in found.values()
    ):
        raise ContractError(f"{path}: damaged: expected tasks 0..{len(found) - 1}, found {found}")
    return [found[i] for i in range(len(found))]


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """`meta/tasks.parquet` as pandas would write it, the sentence being the index."""
    pa = require("pyarrow", "data")
    columns = [
        {"name": _TASK_INDEX, "field_name": _TASK_INDEX, "pandas_type": "int64", "numpy_type": "int64"},
        {"name": _TASK, "field_name": _TASK, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    index = {"name": _TASK, "field_name": _TASK, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    about = {
        "index_columns": [_TASK],
        "column_indexes": [{**index, "name": None, "field_name": None, "metadata": {"encoding": "UTF-8"}}],
        "columns": [{**column, "metadata": None} for column in columns],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({_TASK_INDEX: pa.array(range(len(tasks)), pa.int64()), _TASK: pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})


# -- stills ----------------------------------------------------------------------------------------------------------


class ParquetFrames:
    """An image column whose frames are encoded in the data files. See `frames.Frames`.

    places: for rows (n,), the files they are in, below the directory, and their rows there.
    """

    block = 8

    def __init__(
        self, directory: Directory, feature: str, places: Callable[[np.ndarray], tuple[list[str], np.ndarray]],
        describe: Describe,
    ) -> None:  # fmt: skip
        self._directory, self._feature, self._places, self._describe = directory, feature, places, describe
        first: list[bytes] = []
        names, rows = places(np.array([0]))
        self._each(names[0], rows, describe(0), lambda i, data: first.append(data))
        try:
            self.column = Column.numeric(np.dtype(np.uint8), image_shape(first[0]))
        except ContractError as error:
            raise ContractError(f"{directory.path / names[0]} ({describe(0)}): {error}") from error

    def files(self, rows: np.ndarray) -> list[Path]:
        return [self._directory.path / name for name in dict.fromkeys(self._places(rows)[0])]

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is None:
            out = np.empty((len(rows), *self.column.shape), dtype=np.uint8)
        names, places = self._places(rows)
        of_file: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            of_file.setdefault(name, []).append(i)
        files = list(of_file.items())

        def decode(start: int, stop: int) -> None:
            for name, wanted in files[start:stop]:
                self._read_file(name, rows[wanted], places[wanted], np.array(wanted), out)

        in_threads(decode, len(files), 1)
        self._directory.check()
        return out

    def _read_file(self, name: str, rows: np.ndarray, places: np.ndarray, wanted: np.ndarray, out: np.ndarray) -> None:
        distinct, first, inverse = np.unique(places, return_index=True, return_inverse=True)

        def store(i: int, data: bytes) -> None:
            targets = wanted[inverse == i]
            try:
                decode_image(data, out[targets[0]])
            except ContractError as error:
                where = self._describe(int(rows[first[i]]))
                raise ContractError(f"{self._directory.path / name} ({where}): {error}") from error
            out[targets[1:]] = out[targets[0]]

        self._each(name, distinct, self._describe(int(rows[0])), store)

    def _each(self, name: str, places: np.ndarray, where: str, take: Callable[[int, bytes], object]) -> None:
        """Call `take(i, bytes)` with the stills in rows `places` (n,) of a file, ascending."""
        pa, pq = require("pyarrow", "data"), require("pyarrow.parquet", "data")
        path = self._directory.path / name
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                metadata = file.metadata
                ends = np.cumsum([metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)])
                if not len(ends) or places[-1] >= ends[-1]:
                    raise ValueError(f"it has {metadata.num_rows} rows, row {places[-1]} was expected")
                groups = np.searchsorted(ends, places, side="right")
                for group in np.unique(groups):
                    table = file.read_row_group(int(group), [self._feature], use_threads=False)
                    column = table[self._feature].combine_chunks()
                    stills = column.field("bytes").take(
                        pa.array(places[groups == group] - (ends[group] - table.num_rows))
                    )
                    for i, data in zip(np.flatnonzero(groups == group), stills, strict=True):
                        if not data.is_valid:
                            raise ValueError("an image is not in the file, only its name")
                        take(int(i), data.as_py())
        except ContractError:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError, MemoryError) as error:
            self._directory.check()
            raise _fault(path, error, f" ({where})") from error


def _fault(path: Path, error: Exception, where: str = "") -> ContractError:
    if isinstance(error, ContractError):
        return error
    what = "is missing" if isinstance(error, FileNotFoundError) else f"damaged: {error}"
    return ContractError(f"{path}{where}: {what}")
