"""The stacked info of a pool: one preallocated buffer per key, written in place.

A *column* holds one key for all envs. Numbers and arrays live in one NumPy array (N, T, ...), torch tensors in one
tensor, anything else in a list of N. After the first reset nothing is allocated unless a key is new or an integer
column meets its first float.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError


class InfoBuffer:
    """All envs' infos as `data: dict[key, array (N, T, ...) | tensor (N, T, ...) | list of N]`, a live view.

    Args:
        num_envs: N.
        stacked: env values already carry the time axis T; otherwise T = 1 is inserted.
    """

    def __init__(self, num_envs: int, stacked: bool = False):
        self.num_envs = num_envs
        self.data: dict[str, Any] = {}
        self._stacked = stacked
        self._columns: dict[str, _ArrayColumn | _ListColumn] = {}

    def start(self, infos: list[dict[str, Any]]) -> None:
        """Forget everything and allocate for a full reset. Keys are the union over the envs."""
        self.data = {}
        self._columns = {}
        for env, info in enumerate(infos):
            self.write(env, info)

    def write(self, env: int, info: dict[str, Any]) -> None:
        """Put the info of one env in its row. Keys it lacks get the fill value of their column."""
        columns = self._columns
        for key, value in info.items():
            column = columns.get(key)
            if column is None:
                column = self._add(key, value)
            if not column.write(env, value):
                self._widen(key, env, value)
        if len(info) != len(columns):
            for key in columns.keys() - info.keys():
                columns[key].clear(env)

    def _add(self, key: str, value: Any) -> _ArrayColumn | _ListColumn:
        column: _ArrayColumn | _ListColumn
        if value is None or not _is_numeric(value):
            column = _ListColumn(self.num_envs)
        else:
            column = _ArrayColumn(self.num_envs, value, self._stacked)
        self._columns[key] = column
        self.data[key] = column.data
        return column

    def _widen(self, key: str, env: int, value: Any) -> None:
        """Promote an integer column to float, or say what is wrong with `value`."""
        column = self._columns[key]
        column.widen(value, f"info key {key!r} of env {env}")
        self.data[key] = column.data
        column.write(env, value)


class _ListColumn:
    """Strings, objects and None: one Python object per env."""

    def __init__(self, num_envs: int):
        self.data: list[Any] = [None] * num_envs

    def write(self, env: int, value: Any) -> bool:
        self.data[env] = value
        return True

    def clear(self, env: int) -> None:
        self.data[env] = None

    def widen(self, value: Any, where: str) -> None:
        raise ContractError(f"{where}: cannot store {type(value).__name__}")


class _ArrayColumn:
    """Numbers, arrays and tensors of one shape. `_rows[env]` is where an env's value goes."""

    def __init__(self, num_envs: int, example: Any, stacked: bool):
        self._stacked = stacked
        self._shape = tuple(np.shape(example))
        shape = (num_envs, *self._shape) if stacked else (num_envs, 1, *self._shape)
        torch = _torch_of(example)
        if torch is not None:
            self.data: Any = torch.zeros(shape, dtype=example.dtype)
        else:
            self.data = np.zeros(shape, _storage_dtype(example))
        self._adopt(self.data)
        for env in range(num_envs):
            self.clear(env)

    def _adopt(self, data: Any) -> None:
        self.data = data
        self._rows = data if self._stacked or not self._shape else data[:, 0]
        self._fill = np.nan if _is_floating(data) else 0
        self._scalar_types: dict[type, bool] = {}  # which scalar types this dtype can hold

    def write(self, env: int, value: Any) -> bool:
        """Store and return True; False when the value does not fit this column's shape or dtype."""
        kind = type(value)
        if kind is np.ndarray:
            fits = value.shape == self._shape and (value.dtype == self.data.dtype or self._fits(value))
        else:
            fits = self._scalar_types.get(kind)
            if fits is None:
                fits = self._fits(value)
                if isinstance(value, (bool, int, float, np.generic)):  # the type alone decides for these
                    self._scalar_types[kind] = fits
        if fits:
            self._rows[env] = value
        return fits

    def _fits(self, value: Any) -> bool:
        if not _is_numeric(value) or tuple(np.shape(value)) != self._shape:
            return False
        if _torch_of(value) is not None or _torch_of(self.data) is not None:
            return getattr(value, "dtype", None) == self.data.dtype
        return bool(np.can_cast(_storage_dtype(value), self.data.dtype, "safe"))

    def clear(self, env: int) -> None:
        self._rows[env] = self._fill

    def widen(self, value: Any, where: str) -> None:
        """Turn integers into floats for a value that needs it; raise ContractError for any other mismatch."""
        found = tuple(np.shape(value)) if _is_numeric(value) else type(value).__name__
        if found != self._shape:
            raise ContractError(f"{where}: shape changed, expected {self._shape}, found {found}")
        if _torch_of(value) is not None or _torch_of(self.data) is not None:
            raise ContractError(f"{where}: expected {self.data.dtype}, found {getattr(value, 'dtype', type(value))}")
        old, new = self.data.dtype, _storage_dtype(value)
        joined = np.promote_types(old, new)
        if not (joined.kind == "f" and old.kind in "iuf" and new.kind in "iuf") and not old.kind == new.kind:
            raise ContractError(f"{where}: dtype changed, expected {old}, found {new}")
        self._adopt(self.data.astype(joined))


def _torch_of(value: Any) -> Any:
    """The torch module when `value` is a tensor; never imports it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(value, torch.Tensor) else None


def _is_numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return isinstance(value, (bool, int, float, np.bool_, np.number)) or _torch_of(value) is not None


def _is_floating(data: Any) -> bool:
    return data.dtype.is_floating_point if _torch_of(data) is not None else data.dtype.kind == "f"


def _storage_dtype(value: Any) -> np.dtype:
    """Python bool, int and float become bool, int64 and float64; NumPy values keep their dtype."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype
    return np.dtype({bool: bool, int: np.int64, float: np.float64}[type(value)])


def common_value(values: Iterable[Any], what: str) -> Any:
    """The single value all entries share; ContractError naming the first that differs."""
    entries = list(values)
    for index, entry in enumerate(entries[1:], start=1):
        if entry != entries[0]:
            raise ContractError(f"{what}: env 0 has {entries[0]}, env {index} has {entry}; they must agree")
    return entries[0]
