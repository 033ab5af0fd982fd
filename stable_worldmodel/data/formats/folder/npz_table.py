"""Columns in `.npz` files of one array, as the `folder` and `video` formats keep them, read and written in pieces.

A read goes through the whole archive member, so that zip's checksum covers every value.
"""

from __future__ import annotations

import contextlib
import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from stable_worldmodel.errors import ContractError, NotFoundError

ARRAY = "arr_0"
_BLOCK_BYTES = 16 << 20
_LOCAL_HEADER = struct.Struct("<4s4xH16xHH")  # of zip: tag, compression, sizes of name and extra field


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an `.npz` file, read-only. ContractError when the file is damaged, holds no `arr_0`, or
    holds objects."""
    with _archive(path) as archive:
        arrays = {name.removesuffix(".npy"): _array(path, archive.read(name)) for name in archive.namelist()}
    if ARRAY not in arrays:
        raise ContractError(f"{path}: expected an array {ARRAY!r}, found {sorted(arrays)}")
    return arrays


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of `arr_0` without reading its values."""
    with _archive(path) as archive, archive.open(f"{ARRAY}.npy") as file:
        shape, _, dtype = _header(path, file)
    return shape, dtype


def read_blocks(path: Path, rows: int) -> Iterator[np.ndarray]:
    """Yield the first `rows` rows of `arr_0` in blocks of bounded size."""
    with _archive(path) as archive, archive.open(f"{ARRAY}.npy") as file:
        shape, fortran, dtype = _header(path, file)
        if len(shape) == 0 or shape[0] < rows:
            raise ContractError(f"{path}: expected at least {rows} rows, found shape {shape}")
        if fortran:
            yield read_arrays(path)[ARRAY][:rows]
            return
        row_bytes = max(dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)), 1)
        per_block = max(_BLOCK_BYTES // row_bytes, 1)
        for start in range(0, rows, per_block):
            count = min(per_block, rows - start)
            yield np.frombuffer(file.read(count * row_bytes), dtype).reshape(count, *shape[1:])


def read_unchecked(path: Path) -> np.ndarray:
    """Return what there is of `arr_0` in a damaged or truncated file, possibly with wrong values.

    ContractError when not even its shape can be read.
    """
    with path.open("rb") as file:
        head = file.read(_LOCAL_HEADER.size)
        if len(head) < _LOCAL_HEADER.size:
            raise ContractError(f"{path}: damaged: {len(head)} bytes are left")
        tag, method, name_size, extra_size = _LOCAL_HEADER.unpack(head)
        if tag != b"PK\3\4" or method != zipfile.ZIP_STORED:
            raise ContractError(f"{path}: damaged, and not to be read without its directory")
        file.seek(name_size + extra_size, io.SEEK_CUR)
        shape, _, dtype = _header(path, file)
        row_bytes = max(dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)), 1)
        data = file.read() if shape else b""
    rows = min(len(data) // row_bytes, shape[0]) if shape else 0
    return np.frombuffer(data[: rows * row_bytes], dtype).reshape(rows, *shape[1:])


def write_arrays(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray], **extra: np.ndarray
) -> None:
    """Write `arr_0` of this dtype and shape from consecutive `blocks`, and further arrays after it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_member(ARRAY), "w", force_zip64=True) as file:
            npy.write_array_header_1_0(
                file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            )
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype).tobytes())
        for name, array in extra.items():
            with archive.open(_member(name), "w") as file:
                npy.write_array(file, array, allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # with a fixed date: equal content gives equal bytes


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an `.npz` file; whatever is found wrong with it becomes a ContractError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except ContractError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError, ValueError) as error:
        raise ContractError(f"{path}: damaged: {error}") from error


def _header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise ContractError(f"{path}: damaged: {error}") from error
    if dtype.hasobject:
        raise ContractError(f"{path}: holds Python objects, expected numbers or text")
    return shape, fortran, dtype


def _array(path: Path, data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    shape, fortran, dtype = _header(path, file)
    try:
        flat = np.frombuffer(data, dtype, offset=file.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        raise ContractError(f"{path}: damaged: {error}") from error
