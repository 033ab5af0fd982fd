"""CRC-32 of rows that show the same frame again and again, without reading it again and again.

The CRC-32 of two byte strings after each other follows from those of the two and the length of the second one: a
checksum is a polynomial over GF(2), and bytes that follow multiply it by a power of x, modulo the polynomial of CRC-32.
See Mark Adler's `crc32_combine` in zlib, which Python does not show.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

_POLYNOMIAL = 0xEDB88320  # the highest bit is x^0
_ONE = 1 << 31


def crc32_of_rows(frames: np.ndarray, shown: np.ndarray) -> int:
    """Return `zlib.crc32` of `frames[shown]`, for `shown` (rows,) that ascends by 0 or 1 from 0 to the last frame."""
    crc = 0
    for frame, count in zip(frames, np.bincount(shown, minlength=len(frames)).tolist(), strict=True):
        data = np.ascontiguousarray(frame).data
        crc = zlib.crc32(data, crc) if count == 1 else _repeated(crc, zlib.crc32(data), frame.nbytes, count)
    return crc


def _repeated(crc: int, block: int, size: int, count: int) -> int:
    """Return the checksum of what has `crc` and of `count` times what has `block` after it, `size` bytes each."""
    while count:
        if count & 1:
            crc = _joined(crc, block, size)
        block, size, count = _joined(block, block, size), 2 * size, count >> 1
    return crc


def _joined(first: int, second: int, size: int) -> int:
    """Return the checksum of two byte strings after each other, the second of `size` bytes."""
    return _product(_power(8 * size), first) ^ second


def _product(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=256)
def _power(exponent: int) -> int:
    """Return x^exponent."""
    power, square = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            power = _product(power, square)
        square, exponent = _product(square, square), exponent >> 1
    return power
