"""Whether an episode fits a dataset, and the form in which the dataset has its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.episode import Columns, check_schema
from stable_worldmodel.data.formats.lance.schema import STEP, Place, Places, data_field, data_value, field_name
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import pyarrow as pa


def as_stored(columns: Columns) -> Columns:
    """Return `columns` with images named `pixels...` that have their channels first turned to (rows, H, W, C)."""
    turned = {}
    for name, values in columns.items():
        pictures = values.dtype == np.uint8 and values.ndim == 4 and name.partition(".")[0].startswith("pixels")
        if pictures and values.shape[1] in (1, 3, 4) and values.shape[-1] not in (1, 3, 4):
            values = np.moveaxis(values, 1, -1)
        turned[name] = values
    return turned


def fit(columns: Columns, places: Places, dropped: set[str]) -> Columns:
    """Return the columns in the form in which the dataset has them; ContractError naming all that do not fit.

    Columns of other tools are vectors of float32 under names without dots, and take any numbers of the same size. What
    they have no place for, text and `step_idx`, is added to `dropped`.
    """
    if any(place.foreign for place in places.values()):
        renamed = {name if name in places else field_name(name): values for name, values in columns.items()}
        if len(renamed) < len(columns):
            raise ContractError(f"some of the columns {sorted(columns)} become the same field; rename one")
        columns = renamed
        if STEP in columns and np.array_equal(columns[STEP], np.arange(len(columns[STEP]))):
            del columns[STEP]  # the table numbers its rows itself
        no_place = {
            name for name, values in columns.items() if name not in places and (name == STEP or values.dtype == object)
        }
        dropped |= no_place
        columns = {
            name: _loosened(values, places.get(name)) for name, values in columns.items() if name not in no_place
        }
    return check_schema(columns, {name: place.column for name, place in places.items()})


def _loosened(values: np.ndarray, place: Place | None) -> np.ndarray:
    if place is None or not place.foreign:
        return values
    shape = (len(values), *place.column.shape)
    if place.form == "number" and values.dtype.kind in "biuf" and values.size == np.prod(shape):
        return values.reshape(shape).astype(place.column.dtype)
    if place.column.kind == "image" and values.shape == (*shape[:-1], 1):
        return np.broadcast_to(values, shape)
    return values


def fit_data(data: Mapping[str, Any] | None, side: pa.Schema | None, names: Sequence[str]) -> dict[str, Any]:
    """Return the per-episode values; ContractError when keys, kinds or shapes are not those of the dataset."""
    values = {key: data_value(key, value) for key, value in (data or {}).items()}
    faults = [f"{key}: missing" for key in set(names) - values.keys()]
    faults += [f"{key}: not in the dataset" for key in values.keys() - set(names)]
    for key in sorted(values.keys() & set(names)):
        expected, found = side.field(key), data_field(key, values[key])  # type: ignore[union-attr]
        if expected.type != found.type and isinstance(values[key], int) and str(expected.type) == "double":
            values[key] = float(values[key])
        elif expected.type != found.type or _shape(expected) not in (None, _shape(found)):
            faults.append(f"{key}: expected {_words(expected)}, found {_words(found)}")
    if faults:
        raise ContractError("the per-episode data does not match the dataset:\n  " + "\n  ".join(sorted(faults)))
    return values


def _shape(field_: pa.Field) -> bytes | None:
    return (field_.metadata or {}).get(b"swm.shape")


def _words(field_: pa.Field) -> str:
    shape = _shape(field_)
    return f"an array of shape {shape.decode()}" if shape else str(field_.type)
