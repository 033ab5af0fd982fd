"""Checks an episode before its first byte is written, so that a bad one costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import DERIVED_COLUMNS, INDEX_COLUMNS, Column
from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)

Columns = dict[str, np.ndarray]


def prepare_episode(episode: Mapping[str, Sequence[Any] | np.ndarray], warned: set[str]) -> Columns:
    """Return the columns of `episode` as arrays (rows, ...) of equal length.

    Keys that start with an underscore are skipped; a `/` in a key becomes `_`. Objects that are neither numbers nor
    text, columns without values and columns that readers derive are dropped with one warning per key, remembered in
    `warned`. Raises ContractError for reserved, clashing or unusable names, ragged columns, unequal lengths and
    episodes without rows.
    """
    columns: Columns = {}
    for key, value in episode.items():
        name = _column_name(key)
        if name.startswith("_"):
            continue
        if name in columns:
            raise ContractError(f"keys {key!r} and {name!r} both mean column {name!r}; rename one")
        array = None if name in DERIVED_COLUMNS else _as_array(name, value)
        if array is not None:
            columns[name] = array
        elif name not in warned:
            warned.add(name)
            reason = "readers derive it" if name in DERIVED_COLUMNS else "its values are not numbers, images or text"
            logger.warning("column %r is not stored: %s", name, reason)
    _check_lengths(columns)
    return columns


def check_schema(columns: Columns, schema: Mapping[str, Column]) -> Columns:
    """Return `columns` cast to the dtypes of `schema`.

    Raises ContractError naming every column that is missing, unknown or of another shape or dtype kind, and every
    integer column whose values do not fit.
    """
    faults = [f"{name}: missing" for name in schema.keys() - columns.keys()]
    faults += [f"{name}: not in the dataset" for name in columns.keys() - schema.keys()]
    cast: Columns = {}
    for name in columns.keys() & schema.keys():
        found, expected = Column.of(columns[name]), schema[name]
        if found.shape != expected.shape:
            faults.append(f"{name}: expected shape {expected.shape} per row, found {found.shape}")
        elif _kind(found.dtype) != _kind(expected.dtype):
            faults.append(f"{name}: expected {expected.type_name}, found {found.type_name}")
        else:
            cast[name] = columns[name].astype(expected.dtype, copy=False)
            narrowed = found.dtype.kind in "iu" and found.dtype != expected.dtype
            if narrowed and not np.array_equal(cast[name], columns[name]):
                faults.append(f"{name}: values do not fit into {expected.dtype.name}")
    if faults:
        raise ContractError("the episode does not match the dataset:\n  " + "\n  ".join(sorted(faults)))
    return {name: cast[name] for name in schema}


def _column_name(key: str) -> str:
    if not isinstance(key, str) or not key.strip(". "):
        raise ContractError(f"column name {key!r}: expected a non-empty string")
    if "\0" in key or (not key.isascii() and key != key.encode(errors="ignore").decode()):
        raise ContractError(f"column name {key!r} cannot be the name of a file: it has a NUL or a lone surrogate in it")
    name = key.replace("/", "_")
    if name in INDEX_COLUMNS:
        raise ContractError(f"column name {key!r} is reserved for the episode index; rename it")
    return name


def _as_array(name: str, value: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """Return (rows, ...) numbers, or (rows,) `str` objects, or None for what cannot be stored."""
    if not hasattr(value, "__len__") or not hasattr(value, "__getitem__") or isinstance(value, (str, bytes, Mapping)):
        raise ContractError(f"column {name!r}: expected one value per row, found a single {type(value).__name__}")
    if not isinstance(value, np.ndarray) and any(isinstance(item, str) for item in value):
        return _text(value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ContractError(f"column {name!r}: its rows differ in shape ({error})") from error
    if array.ndim == 0:
        raise ContractError(f"column {name!r}: expected one value per row, found a scalar")
    if array.dtype.kind in "OSU" and array.ndim == 1:
        return _text(array.tolist())
    if array.dtype.kind not in "biufc" or 0 in array.shape[1:]:
        return None
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _text(values: Sequence[Any]) -> np.ndarray | None:
    strings = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(value, str) for value in strings):
        return None
    out = np.empty(len(strings), dtype=object)
    out[:] = strings
    return out


def _check_lengths(columns: Columns) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths or min(lengths.values()) == 0:
        raise ContractError(f"an episode needs at least one column and one row; found lengths {lengths}")
    if len(set(lengths.values())) > 1:
        raise ContractError(f"the columns of an episode must have equal lengths; found {lengths}")


def _kind(dtype: np.dtype) -> str:
    return "i" if dtype.kind == "u" else dtype.kind
