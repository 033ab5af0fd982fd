"""Makes an HDF5 file whose writer was killed usable again, without HDF5's own tools.

A file open for writing carries a mark in its superblock (HDF5 file format specification, version 3 superblock, 48
bytes at offset 0). After a kill its end-of-file address is outdated; after a full disk it lies beyond the file. Our
writer flushes each complete episode, so clearing the mark and making address and file agree is all the repair there is.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from stable_worldmodel.data.lock import DatasetLockedError, try_lock
from stable_worldmodel.errors import ContractError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_BYTES = 48
WRITE_MARK, SWMR_MARK = 1, 4  # bits of the consistency flags

_VERSION, _FLAGS, _END_OF_FILE, _CHECKSUM = 8, 11, 28, 44
_MASK = 0xFFFFFFFF


def read_superblock(path: Path) -> bytes:
    """Return the first 48 bytes; ContractError when `path` is not an HDF5 file."""
    with path.open("rb") as file:
        block = file.read(SUPERBLOCK_BYTES)
    if len(block) < SUPERBLOCK_BYTES or not block.startswith(SIGNATURE):
        raise ContractError(f"{path}: expected an HDF5 file, found other content")
    return block


def superblock_version(block: bytes) -> int:
    return block[_VERSION]


def is_marked_open(block: bytes) -> bool:
    """Whether a writer has the file open, or died with it open."""
    return superblock_version(block) == 3 and bool(block[_FLAGS] & (WRITE_MARK | SWMR_MARK))


def needs_repair(path: Path, block: bytes) -> bool:
    """Whether the file cannot be opened normally, given that nobody is writing to it."""
    return superblock_version(block) == 3 and (is_marked_open(block) or _end_of_file(block) > path.stat().st_size)


def repair_superblock(path: Path) -> None:
    """Clear the mark and correct the end of the file. Only for a file that nobody has open for writing."""
    block = bytearray(read_superblock(path))
    end = max(_end_of_file(block), path.stat().st_size)  # what is missing at the end was never committed: zeros do
    block[_FLAGS] = 0
    struct.pack_into("<Q", block, _END_OF_FILE, end)
    struct.pack_into("<I", block, _CHECKSUM, lookup3(bytes(block[:_CHECKSUM])))
    with path.open("r+b") as file:
        if not try_lock(file.fileno()):  # HDF5's own lock: the writer is another program, and alive
            raise DatasetLockedError(f"{path}: another program is writing to this file")
        file.truncate(end)
        file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _end_of_file(block: bytes | bytearray) -> int:
    return struct.unpack_from("<Q", block, _END_OF_FILE)[0]


def lookup3(data: bytes) -> int:
    """Bob Jenkins' lookup3 hash (`hashlittle`, initial value 0), the checksum of HDF5 metadata; 32 bits."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    tail = max(len(data) - 1, 0) // 12 * 12  # the last 1..12 bytes are mixed differently
    for i in range(0, tail, 12):
        x, y, z = struct.unpack_from("<III", data, i)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    if not data:
        return c
    x, y, z = struct.unpack("<III", data[tail:].ljust(12, b"\0"))
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _rot(x: int, k: int) -> int:
    return ((x << k) | (x >> (32 - k))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for shift_a, shift_b, shift_c in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & _MASK) ^ _rot(c, shift_a)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rot(a, shift_b)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rot(b, shift_c)
        b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rot(b, 14)) & _MASK
    a = ((a ^ c) - _rot(c, 11)) & _MASK
    b = ((b ^ a) - _rot(a, 25)) & _MASK
    c = ((c ^ b) - _rot(b, 16)) & _MASK
    a = ((a ^ c) - _rot(c, 4)) & _MASK
    b = ((b ^ a) - _rot(a, 14)) & _MASK
    return ((c ^ b) - _rot(b, 24)) & _MASK
