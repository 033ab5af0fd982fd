"""What writers ask of the file system beyond reading and writing: durability, an atomic swap, a seal on files.

A seal is eight bytes at the end of a file: a tag and the CRC-32 of everything before it. The decoders of JPEG, PNG, MP4
and Arrow streams ignore what follows the end mark of their format, so a sealed file is an ordinary one, and a reader
that knows the seal notices every changed bit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from stable_worldmodel.errors import ContractError

SEAL = b"swm1"
SEAL_BYTES = len(SEAL) + 4

MANY_FILES = 64  # so many are synchronised each, more of them as the whole file system
SYNC_THREADS = 8  # they only wait

_BLOCK = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def seal_of(crc: int) -> bytes:
    """The seal of content with this CRC-32."""
    return SEAL + crc.to_bytes(4, "little")


def seal(data: bytes) -> bytes:
    """Return `data` with its seal."""
    return data + seal_of(zlib.crc32(data))


def check_seal(data: bytes, required: bool = False) -> None:
    """Raise ContractError when `data` carries a seal that does not fit, or none although it is `required`."""
    view = memoryview(data)
    if view[-SEAL_BYTES:-4] != SEAL:
        if required:
            raise ContractError("its checksum is missing, the file has been damaged")
    elif zlib.crc32(view[:-SEAL_BYTES]) != int.from_bytes(view[-4:], "little"):
        raise ContractError("its checksum does not fit, the file has been damaged")


def seal_file(path: Path) -> None:
    """Append the seal to a finished file."""
    crc = 0
    with path.open("r+b") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
        file.write(seal_of(crc))


def sync(paths: Sequence[Path]) -> None:
    """Wait until these files or directories have reached the disk."""
    if len(paths) > MANY_FILES:
        if not _sync_file_system(paths[0]):
            os.sync()
        return
    if len(paths) < 2:
        for path in paths:
            _sync_one(path)
        return
    # At the same time: the system writes out together, in one or two turns, what is waited for together.
    with ThreadPoolExecutor(min(len(paths), SYNC_THREADS), thread_name_prefix="swm-sync") as pool:
        list(pool.map(_sync_one, paths))


def _sync_one(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_file_system(path: Path) -> bool:
    """Write out the file system of `path`; False where that is not possible."""
    if not hasattr(_libc(), "syncfs"):
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        return _libc().syncfs(fd) == 0
    finally:
        os.close(fd)


def put_in_place(new: Path, path: Path) -> None:
    """Move `new` to `path`. Directories trade places where there is one, in one step if the system can."""
    if not path.is_dir() or not any(path.iterdir()):
        new.replace(path)
        return
    if exchange(new, path):
        return
    old = new.with_name(new.name + ".old")  # beside `new`: the owner of that folder finds it again after a crash
    path.replace(old)
    new.replace(path)
    old.replace(new)


def exchange(a: Path, b: Path) -> bool:
    """Let two directories trade places in one step; False where the system or the file system cannot."""
    rename = getattr(_libc(), "renameat2", None)
    names = os.fsencode(a), os.fsencode(b)
    return rename is not None and rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory. Files in it that are one and the same stay so, which `shutil.copytree` makes many."""
    copied: dict[tuple[int, int], str] = {}

    def copy(old: str, new: str) -> str:
        found = os.stat(old)  # noqa: PTH116
        first = copied.setdefault((found.st_dev, found.st_ino), new)
        if first == new:
            return shutil.copy2(old, new)
        try:
            os.link(first, new)
        except OSError:  # too many links, or a file system that has none
            shutil.copy2(old, new)
        return new

    shutil.copytree(source, target, copy_function=copy)


@lru_cache(maxsize=1)
def _libc() -> Any:
    with contextlib.suppress(OSError, TypeError):
        return ctypes.CDLL(None, use_errno=True)
    return None
