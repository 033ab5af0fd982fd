"""The files of an `hf_arrow` dataset: Arrow streams, and the JSON by which the `datasets` library finds them.

    data-0000k-of-0000n.arrow   Arrow IPC stream of rows; n = episodes // 50, at least 1
    state.json                  the list of these files; renamed into place last
    dataset_info.json           the columns
    img/<episode>/<step>_<column>.jpeg (or .png); dots of the column become underscores

Each stream ends with a seal (see `disk`) and says in its schema how many rows it has.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.shared.disk import check_seal, seal_file
from stable_worldmodel.errors import ContractError, NotFoundError, require

if TYPE_CHECKING:
    import pyarrow as pa

STATE, INFO, IMAGES = "state.json", "dataset_info.json", "img"
SHARD_PATTERN = "data-*-of-*.arrow"
EPISODES_PER_SHARD = 50
INDEX_FIELDS = ("episode_idx", "step_idx", "episode_len")  # int32

_NOTES = b"swm"  # key in the schema's metadata
_ROWS_PER_BATCH = 1000  # as `datasets` has it
_ID_LENGTH = 32


@dataclass(frozen=True)
class State:
    """The content of `state.json`."""

    files: list[str]
    dataset_id: str | None = None  # of a dataset that this package wrote
    num_episodes: int = 0  # in the files of such a dataset


def read_state(folder: Path) -> State:
    """Read `state.json`; without one, the files are those with the usual names."""
    path = folder / STATE
    if not path.exists():
        return State(sorted(file.name for pattern in (SHARD_PATTERN, "*.parquet") for file in folder.glob(pattern)))
    try:
        content = json.loads(path.read_text())
        files = [str(entry["filename"]) for entry in content["_data_files"]]
        dataset_id, episodes = _parse_fingerprint(str(content.get("_fingerprint")), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(f"{path}: damaged: {error!r}") from error
    outside = [name for name in files if Path(name).name != name]
    if outside:
        raise ContractError(f"{path}: files outside of the directory: {outside}")
    return State(files, dataset_id, episodes)


def write_state(path: Path, files: Sequence[str], dataset_id: str, episodes: int) -> None:
    content: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": _fingerprint(dataset_id, episodes, files),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    path.write_text(json.dumps(content, indent=2))


def _fingerprint(dataset_id: str, episodes: int, files: Sequence[str]) -> str:
    """What `datasets` identifies cached results by, so that it changes with the content; ends in a checksum."""
    text = f"{dataset_id}{episodes:08x}"
    return f"{text}{zlib.crc32(' '.join([text, *files]).encode()):08x}"


def _parse_fingerprint(found: str, files: Sequence[str]) -> tuple[str | None, int]:
    """The identity and the number of episodes in a fingerprint; None and 0 for one that is damaged, or not ours."""
    dataset_id, number = found[:_ID_LENGTH], found[_ID_LENGTH : _ID_LENGTH + 8]
    try:
        episodes = int(number, 16)
    except ValueError:
        return None, 0
    return (dataset_id, episodes) if found == _fingerprint(dataset_id, episodes, files) else (None, 0)


def write_info(path: Path, schema: Mapping[str, Column], generated: Sequence[str]) -> None:
    path.write_text(_info(schema, generated))


def is_info(path: Path, schema: Mapping[str, Column], generated: Sequence[str]) -> bool:
    """Whether `write_info` has written the file `path`, and nothing has changed it."""
    return path.is_file() and path.read_bytes() == _info(schema, generated).encode()


def _info(schema: Mapping[str, Column], generated: Sequence[str]) -> str:
    content = {
        "citation": "", "description": "", "features": features(schema, generated), "homepage": "", "license": "",
    }  # fmt: skip
    return json.dumps(content, indent=2)


def features(schema: Mapping[str, Column], generated: Sequence[str]) -> dict[str, Any]:
    """The columns in the words of `datasets`; `Sequence` is understood by old and new versions of it."""

    def described(dtype: str, shape: Sequence[int]) -> dict[str, Any]:
        if not shape:
            return {"dtype": dtype, "_type": "Value"}
        return {"feature": described(dtype, shape[1:]), "length": shape[0], "_type": "Sequence"}

    index = {name: described("int32", ()) for name in INDEX_FIELDS if name in generated}
    return index | {
        name: described(column.dtype.name, column.shape) if column.kind == "number" else described("string", ())
        for name, column in schema.items()
    }


def shard_bounds(episodes: int) -> list[tuple[int, int]]:
    """First and end episode of each shard: 50 in each, and the rest in the last."""
    shards = max(1, episodes // EPISODES_PER_SHARD)
    return list(pairwise([*range(0, shards * EPISODES_PER_SHARD, EPISODES_PER_SHARD), episodes]))


def shard_name(i: int, shards: int, digits: int = 5) -> str:
    return f"data-{i:05d}-of-{shards:0{digits}d}.arrow"


# -- Arrow -----------------------------------------------------------------------------------------------------------


def notes_of(table: pa.Table) -> dict[str, Any]:
    """What this package noted about a shard; empty for those of others."""
    return json.loads((table.schema.metadata or {}).get(_NOTES, b"{}"))


def read_shard(path: Path) -> pa.Table:
    """Read one file into memory. ContractError when it is damaged."""
    pa = require("pyarrow", "data")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    try:
        check_seal(data)
        if path.suffix == ".parquet":
            return require("pyarrow.parquet", "data").read_table(pa.BufferReader(data))
        table = pa.ipc.open_stream(data).read_all()
        table.validate(full=True)
        notes = notes_of(table)
        check_seal(data, required=bool(notes))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ContractError(f"{path}: damaged: {error}") from error
    if notes.get("rows", len(table)) != len(table):
        raise ContractError(f"{path}: damaged: {len(table)} of {notes['rows']} rows are there")
    return table


def write_shard(path: Path, schema: pa.Schema, tables: Sequence[pa.Table], notes: Mapping[str, Any]) -> None:
    """Write one sealed stream of `tables`, which all have `schema`."""
    pa = require("pyarrow", "data")
    rows = pa.concat_tables(tables).combine_chunks()  # readers have few pieces to handle
    noted = json.dumps({**notes, "rows": len(rows)}).encode()
    schema = schema.with_metadata({**(schema.metadata or {}), _NOTES: noted})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        stream.write_table(rows.cast(schema), max_chunksize=_ROWS_PER_BATCH)
    seal_file(path)


def arrow_schema(schema: Mapping[str, Column], generated: Sequence[str]) -> pa.Schema:
    """The Arrow schema of a dataset; images and texts are strings."""
    pa = require("pyarrow", "data")
    fields = [pa.field(name, pa.int32()) for name in INDEX_FIELDS if name in generated]
    for name, column in schema.items():
        kind = pa.string()
        if column.kind == "number":
            kind = pa.from_numpy_dtype(column.dtype)
            for size in reversed(column.shape):
                kind = pa.list_(kind, size)
        fields.append(pa.field(name, kind))
    info = json.dumps({"info": {"features": features(schema, generated)}}).encode()
    return pa.schema(fields, metadata={b"huggingface": info})


def arrow_numbers(values: np.ndarray) -> pa.Array:
    """(rows, ...) numbers as nested lists of fixed length."""
    pa = require("pyarrow", "data")
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def numpy_numbers(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Numbers, or nested lists of equal lengths, as (rows, ...). ContractError for anything else."""
    pa = require("pyarrow", "data")
    rows, shape = len(array), []
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunk at all
        array = pa.array([], array.type)
    while not pa.types.is_primitive(array.type):
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
            continue
        if not pa.types.is_nested(array.type) or pa.types.is_struct(array.type) or array.null_count:
            raise ContractError(f"expected numbers or lists of them, found {array.type}")
        items, count = array.flatten(), len(array)
        if count and len(items) % count:
            raise ContractError("its rows differ in shape")
        size = len(items) // count if count else getattr(array.type, "list_size", 0)
        if not pa.types.is_fixed_size_list(array.type) and set(array.value_lengths().unique().to_pylist()) - {size}:
            raise ContractError("its rows differ in shape")
        shape.append(size)
        array = items
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biufc":
        raise ContractError(f"expected numbers, found {array.type}")
    return values.reshape(rows, *shape)
