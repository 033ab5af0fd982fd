"""Scalers of dataset columns. They work on NumPy arrays and tensors alike and serialise to plain JSON values.

The last axis is the feature axis. An input whose last axis is a multiple K*D of the fitted width D (actions of a
window with frameskip K) is scaled with the statistics repeated K times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from stable_worldmodel.data.dataset import Dataset


NO_ROWS = "no row without NaN to fit a scaler on"


class Scaler:
    """An invertible map of arrays. NumPy in, NumPy out; tensor in, tensor of the same device and dtype out.

    Integers become float32. Using a scaler that was not fitted raises ContractError.
    """

    name = ""  # in `get_scaler` and in the serialised form
    stats: tuple[str, ...] = ()  # attributes fitted from data, each (1, D) float64
    options: tuple[str, ...] = ()  # the other constructor arguments

    def fit(self, x: Any) -> Scaler:
        """Estimate the statistics from rows (N, D) or (N,); rows with NaN are left out."""
        raise NotImplementedError

    def fit_blocks(self, blocks: Iterable[Any]) -> Scaler:
        """Estimate the statistics from rows that come in blocks (n, D) or (n,)."""
        return self.fit(np.concatenate([_rows(block) for block in blocks]))

    def transform(self, x: Any) -> Any:
        raise NotImplementedError

    def inverse_transform(self, x: Any) -> Any:
        raise NotImplementedError

    def fit_transform(self, x: Any) -> Any:
        return self.fit(x).transform(x)

    def __call__(self, x: Any) -> Any:
        """Return `transform(x)`, a tensor as float32."""
        y = self.transform(x)
        return y.float() if _is_tensor(y) else y

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `scaler_from_dict` makes an equal scaler."""
        fitted = {key: None if getattr(self, key) is None else getattr(self, key).tolist() for key in self.stats}
        return {"type": self.name, **fitted, **{key: getattr(self, key) for key in self.options}}

    def _stat(self, name: str) -> np.ndarray:
        value = getattr(self, name)
        if value is None:
            raise ContractError(f"{type(self).__name__} is not fitted; call fit(rows) first")
        return value


class IdentityScaler(Scaler):
    """Changes nothing."""

    name = "none"

    def fit(self, x: Any) -> IdentityScaler:
        return self

    def fit_blocks(self, blocks: Iterable[Any]) -> IdentityScaler:
        return self

    def transform(self, x: Any) -> Any:
        return x

    def inverse_transform(self, x: Any) -> Any:
        return x

    def __call__(self, x: Any) -> Any:
        return x


class ZScoreScaler(Scaler):
    """(x - mean) / max(std, eps) per feature, with the population standard deviation."""

    name = "zscore"
    stats = ("mean", "std")
    options = ("eps",)

    def __init__(self, mean: Any = None, std: Any = None, eps: float = 1e-8) -> None:
        self.mean, self.std, self.eps = _row(mean), _row(std), eps

    def fit(self, x: Any) -> ZScoreScaler:
        return self.fit_blocks([x])

    def fit_blocks(self, blocks: Iterable[Any]) -> ZScoreScaler:
        """Estimate the statistics in one pass, one block in memory at a time (Chan, Golub, LeVeque 1983)."""
        count, mean, squares = 0, np.zeros(()), np.zeros(())
        for rows in map(_without_nan, blocks):
            if not len(rows):
                continue
            shift = rows.mean(axis=0, keepdims=True) - mean
            share = len(rows) / (count + len(rows))
            mean = mean + shift * share
            squares = squares + rows.var(axis=0, keepdims=True) * len(rows) + shift**2 * share * count
            count += len(rows)
        if not count:
            raise ContractError(NO_ROWS)
        self.mean, self.std = mean, np.sqrt(squares / count)
        return self

    def transform(self, x: Any) -> Any:
        x = _floating(x)
        return (x - _like(x, self._stat("mean"))) / _like(x, np.maximum(self._stat("std"), self.eps))

    def inverse_transform(self, x: Any) -> Any:
        x = _floating(x)
        return x * _like(x, self._stat("std")) + _like(x, self._stat("mean"))


class PercentileScaler(Scaler):
    """Maps the percentiles `low` and `high` of each feature to -1 and 1, and clips what lies outside."""

    name = "percentile"
    stats = ("q_low", "q_high")
    options = ("low", "high", "eps")

    def __init__(
        self, low: float = 1, high: float = 99, q_low: Any = None, q_high: Any = None, eps: float = 1e-8
    ) -> None:
        if not 0 <= low < high <= 100:
            raise ContractError(f"percentiles low={low}, high={high}: expected 0 <= low < high <= 100")
        self.low, self.high, self.eps = low, high, eps
        self.q_low, self.q_high = _row(q_low), _row(q_high)

    def fit(self, x: Any) -> PercentileScaler:
        self.q_low, self.q_high = np.percentile(_clean_rows(x), [self.low, self.high], axis=0)[:, None]
        return self

    def transform(self, x: Any) -> Any:
        x = _floating(x)
        low, high = self._stat("q_low"), self._stat("q_high")
        return ((x - _like(x, low)) * 2 / _like(x, np.maximum(high - low, self.eps)) - 1).clip(-1, 1)

    def inverse_transform(self, x: Any) -> Any:
        x = _floating(x)
        low, high = self._stat("q_low"), self._stat("q_high")
        return (x + 1) * _like(x, high - low) / 2 + _like(x, low)


SCALERS: dict[str, type[Scaler]] = {cls.name: cls for cls in (ZScoreScaler, PercentileScaler, IdentityScaler)}


def get_scaler(name: str, **options: Any) -> Scaler:
    """Return a new scaler: `zscore`, `percentile` or `none`; ContractError for another name."""
    if name not in SCALERS:
        raise ContractError(f"unknown scaler {name!r}: expected one of {sorted(SCALERS)}")
    return SCALERS[name](**options)


def scaler_from_dict(values: dict[str, Any]) -> Scaler:
    """Return the scaler that `to_dict` described."""
    options = dict(values)
    return get_scaler(options.pop("type"), **options)


def column_normalizer(
    dataset: Dataset, source: str, target: str, method: str = "zscore"
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Fit a scaler on the column `source` and return a transform of items and batches that sets `target` from it.

    The column is read in blocks. Raises ContractError for images and text, MissingKeyError for an unknown column.
    """
    dataset.get_dim(source)  # MissingKeyError
    if (kind := dataset.columns[source].kind if source in dataset.columns else "number") != "number":
        raise ContractError(f"column {source!r} holds {kind}: expected numbers")
    return ColumnNormalizer(get_scaler(method).fit_blocks(dataset.iter_frames(source)), source, target)


class ColumnNormalizer:
    """Sets `item[target] = scaler(item[source])`; other keys stay. Picklable."""

    def __init__(self, scaler: Scaler, source: str, target: str) -> None:
        self.scaler, self.source, self.target = scaler, source, target

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, self.target: self.scaler(item[self.source])}


def _is_tensor(x: Any) -> bool:
    torch = sys.modules.get("torch")  # without it imported, nothing can be a tensor
    return torch is not None and isinstance(x, torch.Tensor)


def _floating(x: Any) -> Any:
    """Return `x` if it is a floating array or tensor; integers as float32."""
    if _is_tensor(x):
        return x if x.is_floating_point() else x.float()
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _row(values: Any) -> np.ndarray | None:
    return None if values is None else np.asarray(values, dtype=np.float64).reshape(1, -1)


def _rows(x: Any) -> np.ndarray:
    """Return (n, D) float64 rows; a 1-D column has D = 1."""
    values = np.asarray(x.detach().cpu() if _is_tensor(x) else x, dtype=np.float64)
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def _without_nan(x: Any) -> np.ndarray:
    rows = _rows(x)
    return rows[~np.isnan(rows).any(axis=1)]


def _clean_rows(x: Any) -> np.ndarray:
    """Return (n, D) float64 rows without NaN; ContractError when there is none."""
    rows = _without_nan(x)
    if not len(rows):
        raise ContractError(NO_ROWS)
    return rows


def _like(x: Any, stat: np.ndarray) -> Any:
    """Return the statistics (1, D) in the library, device, dtype and width of `x`; a single one fits any shape."""
    if stat.size == 1:
        values = stat.reshape(())
    elif x.ndim and x.shape[-1] % stat.size == 0:
        values = np.tile(stat.reshape(-1), x.shape[-1] // stat.size)
    else:
        raise ContractError(f"last axis of {tuple(x.shape)}: expected a multiple of the fitted width {stat.size}")
    if _is_tensor(x):
        return sys.modules["torch"].as_tensor(values, dtype=x.dtype, device=x.device)
    return values.astype(x.dtype)
