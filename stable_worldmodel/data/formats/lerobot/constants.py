"""Per-episode data in the table of episodes: columns `swm/<key>`, texts and numbers as they are, arrays as lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.formats.lerobot.index import DATA_PREFIX
from stable_worldmodel.data.formats.lerobot.info import Json
from stable_worldmodel.errors import ContractError, require

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN = (str, bytes, bool, int, float)


def check_constants(values: Mapping[str, Any], described: Json | None) -> dict[str, Any]:
    """Return the values as they are stored, numbers of NumPy made plain.

    described: what the first episode had, None if this is the first. Raises ContractError for other keys or types.
    """
    found = {key: _plain(key, value) for key, value in sorted(values.items())}
    if described is None:
        return found
    if found.keys() != described.keys():
        raise ContractError(f"per-episode data: expected {sorted(described)}, found {sorted(found)}")
    for key, value in found.items():
        about = described[key]
        if (about is None) != (not isinstance(value, np.ndarray)):
            raise ContractError(f"per-episode data {key!r}: expected {about or 'a single value'}, found {value!r}")
        if about is not None:
            if list(value.shape) != about["shape"] or not np.can_cast(value.dtype, about["dtype"], "same_kind"):
                raise ContractError(f"per-episode data {key!r}: expected {about}, found {value.dtype} {value.shape}")
            found[key] = value.astype(about["dtype"])
    return found


def describe_constants(values: Mapping[str, Any]) -> Json:
    """What must be noted to read them back: dtype and shape of arrays, None for single values."""
    return {
        key: {"dtype": value.dtype.name, "shape": list(value.shape)} if isinstance(value, np.ndarray) else None
        for key, value in values.items()
    }


def constant_columns(values: Mapping[str, Any], described: Json) -> dict[str, pa.Array]:
    """The columns of one row of the table of episodes."""
    pa = require("pyarrow", "data")
    columns = {}
    for key, value in values.items():
        about = described[key]
        flat = value if about is None else value.reshape(-1).tolist()
        kind = None if about is None else pa.list_(pa.from_numpy_dtype(np.dtype(about["dtype"])))
        columns[f"{DATA_PREFIX}{key}"] = pa.array([flat], kind)
    return columns


def _plain(key: str, value: Any) -> Any:
    if not isinstance(key, str) or not key:
        raise ContractError(f"per-episode data {key!r}: expected a name")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ContractError(
            f"per-episode data {key!r}: expected text, a number or an array, found {type(value).__name__}"
        )
    return array.item() if array.ndim == 0 else array
