"""What a column is: its type, the reserved names, and the conversion of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

EPISODE_DATA_KEY = "_episode_data"  # reserved episode key: values that are constant within the episode
INDEX_COLUMNS = ("ep_len", "ep_offset")  # the episode index; never columns
DERIVED_COLUMNS = ("episode_idx", "ep_idx", "episode_len")  # computed by readers from the episode index, int32
IMAGE_CHANNELS = (1, 3, 4)

Kind = Literal["image", "text", "number"]


@dataclass(frozen=True)
class Column:
    """What one row of a column holds. Text has dtype object and one `str` per row."""

    dtype: np.dtype
    shape: tuple[int, ...]  # of one row
    kind: Kind

    @classmethod
    def of(cls, rows: np.ndarray) -> Column:
        """Describe an array (rows, ...); arrays of `str` are text, uint8 (rows, H, W, C) are images."""
        if rows.dtype.kind in "OSU":
            return cls(np.dtype(object), rows.shape[1:], "text")
        return cls.numeric(rows.dtype, rows.shape[1:])

    @classmethod
    def numeric(cls, dtype: np.dtype, shape: tuple[int, ...]) -> Column:
        """Describe a column of numbers or images by the dtype and shape of one row."""
        image = dtype == np.uint8 and len(shape) == 3 and shape[-1] in IMAGE_CHANNELS
        return cls(np.dtype(dtype), tuple(shape), "image" if image else "number")

    @property
    def type_name(self) -> str:
        """The dtype in words; `text` for text."""
        return "text" if self.kind == "text" else self.dtype.name

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def is_image(x: Any) -> bool:
    """Whether `x` is an (H, W, C) uint8 array with 1, 3 or 4 channels."""
    return isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 3 and x.shape[-1] in IMAGE_CHANNELS


def decode_text(values: Iterable[bytes | str]) -> np.ndarray:
    """Decode UTF-8 values to an object array of `str`; equal values share one string."""
    raw = list(values)
    strings = {value: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in set(raw)}
    out = np.empty(len(raw), dtype=object)
    out[:] = [strings[value] for value in raw]
    return out
