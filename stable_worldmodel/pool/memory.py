"""Memory that the processes of a pool share. It has no name, so nothing can leak however they die."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]

_ALIGNMENT = 64  # bytes, a cache line: no two arrays share one


class SharedArrays:
    """Named arrays in one anonymous file, mapped by every process that is handed its descriptor.

    The memory lives as long as an array of it does in any process.

    Args:
        shapes: name -> (shape, dtype), in the same order in all processes.
        descriptor: of the file another process made; None makes one, zero-filled.
    """

    def __init__(self, shapes: Shapes, descriptor: int | None = None):
        offsets, size = [], 0
        for shape, dtype in shapes.values():
            offsets.append(size)
            bytes_needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
            size += -(-bytes_needed // _ALIGNMENT) * _ALIGNMENT
        self.descriptor = _anonymous_file(max(size, 1)) if descriptor is None else descriptor
        memory = mmap.mmap(self.descriptor, max(size, 1))
        self.arrays = {
            name: np.ndarray(shape, dtype, memory, offset)
            for (name, (shape, dtype)), offset in zip(shapes.items(), offsets, strict=True)
        }

    def close(self) -> None:
        """Close the descriptor; the arrays stay valid."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stable_worldmodel")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
