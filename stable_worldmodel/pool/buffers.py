"""The stacked info of a pool: one preallocated buffer per key, written in place.

A *column* holds one key for all envs. Numbers and arrays live in one NumPy array (N, T, ...), torch tensors in one
tensor, anything else in a list of N. After the first reset nothing is allocated unless a key is new or an integer
column meets its first float.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from stable_worldmodel.errors import ContractError


class ColumnSpec(NamedTuple):
    """What one env's value of a key looks like."""

    shape: tuple[int, ...] = ()
    dtype: Any = np.dtype(object)  # a NumPy dtype, or torch's for tensors; objects go into a list

    @property
    def is_object(self) -> bool:
        return self.dtype == np.dtype(object)

    @property
    def is_tensor(self) -> bool:
        return not isinstance(self.dtype, np.dtype)

    def joined(self, other: ColumnSpec, where: str) -> ColumnSpec:
        """The spec that holds both: integers become floats; any other difference raises ContractError."""
        if self == other or self.is_object:
            return self
        if other.is_object or self.shape != other.shape:
            found = "an object" if other.is_object else other.shape
            raise ContractError(f"{where}: shape changed, expected {self.shape}, found {found}")
        if self.is_tensor or other.is_tensor:
            raise ContractError(f"{where}: expected {self.dtype}, found {other.dtype}")
        wider = np.promote_types(self.dtype, other.dtype)
        becomes_float = wider.kind == "f" and self.dtype.kind in "iuf" and other.dtype.kind in "iuf"
        if not becomes_float and self.dtype.kind != other.dtype.kind:
            raise ContractError(f"{where}: dtype changed, expected {self.dtype}, found {other.dtype}")
        return ColumnSpec(self.shape, wider)


OBJECT = ColumnSpec()
Layout = dict[str, ColumnSpec]


def spec_of(value: Any) -> ColumnSpec:
    """The spec of the column that a first `value` opens."""
    if not _is_numeric(value):
        return OBJECT
    return ColumnSpec(tuple(np.shape(value)), value.dtype if _torch_of(value) is not None else _storage_dtype(value))


class InfoBuffer:
    """All envs' infos as `data: dict[key, array (N, T, ...) | tensor (N, T, ...) | list of N]`, a live view.

    Args:
        num_envs: N.
        stacked: env values already carry the time axis T; otherwise T = 1 is inserted.
    """

    def __init__(self, num_envs: int, stacked: bool = False):
        self.num_envs = num_envs
        self.data: dict[str, Any] = {}
        self.changed = False  # whether a column was added or widened; whoever acts on it sets it back
        self._stacked = stacked
        self._columns: dict[str, _ArrayColumn | _ListColumn] = {}

    @property
    def layout(self) -> Layout:
        return {key: column.spec for key, column in self._columns.items()}

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
                column = self._add(key, spec_of(value))
            if not column.write(env, value):
                wider = column.spec.joined(spec_of(value), f"info key {key!r} of env {env}")
                self._add(key, wider).write(env, value)
        if len(info) != len(columns):
            for key in columns.keys() - info.keys():
                columns[key].clear(env)

    def move(self, layout: Layout, arrays: Mapping[str, np.ndarray], keep: bool = False) -> None:
        """Continue in `arrays` (N, T, ...), one per key of `layout` that is no list, with the values held so far.

        Args:
            keep: take the values found in `arrays` instead.
        """
        for key, spec in layout.items():
            self._add(key, spec, arrays.get(key), keep)
        self.changed = False

    def _add(self, key: str, spec: ColumnSpec, array: Any = None, keep: bool = False) -> _ArrayColumn | _ListColumn:
        """Open the column `key`, or reopen it with another spec or storage, its values carried over."""
        column: _ArrayColumn | _ListColumn
        if spec.is_object:
            column = _ListColumn(self.num_envs)
        else:
            column = _ArrayColumn(spec, allocate(spec, self.num_envs, self._stacked) if array is None else array)
        column.attach(self._stacked)
        if not keep:
            column.fill(self._columns.get(key))
        self._columns[key] = column
        self.data[key] = column.data
        self.changed = True
        return column


class _ListColumn:
    """Strings, objects and None: one Python object per env."""

    spec = OBJECT

    def __init__(self, num_envs: int):
        self.data: list[Any] = [None] * num_envs

    def attach(self, stacked: bool) -> None:
        return

    def fill(self, old: _ArrayColumn | _ListColumn | None) -> None:
        if isinstance(old, _ListColumn):
            self.data[:] = old.data
        elif old is not None:
            self.data[:] = [np.copy(row) for row in old.data]

    def write(self, env: int, value: Any) -> bool:
        self.data[env] = value
        return True

    def clear(self, env: int) -> None:
        self.data[env] = None


class _ArrayColumn:
    """Numbers, arrays and tensors of one shape. `_rows[env]` is where an env's value goes."""

    def __init__(self, spec: ColumnSpec, data: Any):
        self.spec = spec
        self.data = as_column(spec, data)

    def attach(self, stacked: bool) -> None:
        self._shape = self.spec.shape
        self._rows = self.data if stacked or not self._shape else self.data[:, 0]
        self._fill = np.nan if _is_floating(self.data) else 0
        self._scalar_types: dict[type, bool] = {}  # which scalar types this dtype can hold

    def fill(self, old: _ArrayColumn | _ListColumn | None) -> None:
        self.data[:] = self._fill if old is None or isinstance(old, _ListColumn) else old.data

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
        found = spec_of(value)
        if found.is_object or found.shape != self._shape:
            return False
        if found.is_tensor or self.spec.is_tensor:
            return found == self.spec
        return bool(np.can_cast(found.dtype, self.data.dtype, "safe"))

    def clear(self, env: int) -> None:
        self._rows[env] = self._fill


def column_shape(spec: ColumnSpec, num_envs: int, stacked: bool) -> tuple[int, ...]:
    return (num_envs, *spec.shape) if stacked else (num_envs, 1, *spec.shape)


def allocate(spec: ColumnSpec, num_envs: int, stacked: bool) -> Any:
    """Memory of this process for one column."""
    shape = column_shape(spec, num_envs, stacked)
    return sys.modules["torch"].zeros(shape, dtype=spec.dtype) if spec.is_tensor else np.zeros(shape, spec.dtype)


def as_column(spec: ColumnSpec, data: Any) -> Any:
    """`data` as users see it: a tensor over the same memory if the envs give tensors."""
    is_array = isinstance(data, np.ndarray)
    return sys.modules["torch"].from_numpy(data) if spec.is_tensor and is_array else data


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
