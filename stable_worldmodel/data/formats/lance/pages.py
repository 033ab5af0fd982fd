"""Where the values of a binary column lie in a Lance file (file formats 2.1 and 2.2).

Large binary values are stored plainly: in every page of the column they follow one another, each after its length
(u32), and an index of the page says where each begins. A reader that knows this slices a memory map. It needs no copy,
no lock and no thread of pylance, so that it works in forked processes.

A file ends with a footer, which points at a table of the columns' metadata: protobuf messages that list the pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

FOOTER = struct.Struct("<QQQIIHH4s")  # positions of metadata and its table, ..., number of columns, version, magic
PAGE_LAYOUT = b"/lance.encodings21.PageLayout"
LENGTH_BYTES = 4


def value_ranges(data: memoryview, column: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return where each value of a binary column begins and ends in a file, int64 (rows,).

    None when values are not stored plainly (compressed, nullable, in blocks, as a dictionary) or the file is damaged.
    """
    try:
        return _value_ranges(data, column)
    except (struct.error, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return None


def _value_ranges(data: memoryview, column: int) -> tuple[np.ndarray, np.ndarray] | None:
    _, table, _, _, columns, _, _, magic = FOOTER.unpack(data[-FOOTER.size :])
    if magic != b"LANC" or not 0 <= column < columns:
        return None
    position, size = struct.unpack_from("<QQ", data, table + 16 * column)
    pages = [dict(_fields(page)) for tag, page in _fields(data[position : position + size]) if tag == 2]
    ranges = [_page_ranges(data, page) for page in pages]
    if not ranges or None in ranges:
        return None
    starts, ends = zip(*ranges, strict=True)
    return np.concatenate(starts), np.concatenate(ends)


def _page_ranges(data: memoryview, page: dict[int, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    if not _is_plain(page[4]):
        return None
    (values, index), (values_size, index_size), rows = _varints(page[1]), _varints(page[2]), page[3]
    width, rest = divmod(index_size, rows + 1)
    if width not in (1, 2, 4, 8) or rest or max(values + values_size, index + index_size) > len(data):
        return None
    offsets = np.frombuffer(data, f"<u{width}", rows + 1, index).astype(np.int64)
    starts, ends = values + offsets[:-1] + LENGTH_BYTES, values + offsets[1:]
    if offsets[0] != 0 or offsets[-1] != values_size or (ends < starts).any():
        return None
    return starts, ends


def _is_plain(encoding: memoryview) -> bool:
    """Whether an encoding is: full-zip layout, no repetition or definition levels, variable width, uncompressed."""
    direct = dict(_fields(encoding)).get(2)
    if direct is None:
        return False
    any_ = dict(_fields(dict(_fields(direct))[1]))
    layout = dict(_fields(any_[2])).get(3) if bytes(any_[1]) == PAGE_LAYOUT else None
    if layout is None:
        return False
    full_zip = dict(_fields(layout))
    if full_zip.get(1, 0) or full_zip.get(2, 0) or full_zip.get(4) != 8 * LENGTH_BYTES:
        return False
    variable = dict(_fields(full_zip[7])).get(2)
    return variable is not None and dict(_fields(variable)).get(2) is None


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of a protobuf message: integers, or the bytes of strings and messages."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:
            if at + value > len(message):
                raise ValueError("a message ends too early")
            yield key >> 3, message[at : at + value]
            at += value
        elif key & 7 == 0:
            yield key >> 3, value
        else:
            raise ValueError(f"wire type {key & 7}")


def _varints(packed: memoryview) -> list[int]:
    out, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        out.append(value)
    return out


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
