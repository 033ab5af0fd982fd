"""Writing the frames of an episode as still images, one file each, or one for all where they are equal."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stable_worldmodel.data.formats.directory.record import FileSums
from stable_worldmodel.data.formats.shared.disk import seal
from stable_worldmodel.data.formats.shared.images import encode_jpeg, encode_png
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import ContractError

_FRAMES_PER_BLOCK = 8

Encode = Callable[[np.ndarray], bytes]


def still_encoder(image_format: str, quality: int) -> tuple[str, dict[str, Encode]]:
    """Return the suffix of new files, and the encoder for each suffix there may be."""
    if image_format not in ("jpeg", "png"):
        raise ContractError(f"image_format={image_format!r}: expected 'jpeg' or 'png'")
    if not 1 <= quality <= 100:
        raise ContractError(f"quality={quality}: expected 1..100")
    jpeg = partial(encode_jpeg, quality=quality)
    return f".{image_format}", {".jpeg": jpeg, ".jpg": jpeg, ".png": encode_png}


def is_constant(frames: np.ndarray) -> bool:
    """Whether all frames are equal. Costs next to nothing where they are not."""
    return all(np.array_equal(frames[0], frame) for frame in frames[:0:-1])


def write_stills(files: Sequence[str], frames: np.ndarray, encode: Encode) -> FileSums:
    """Write each frame to its file, on all cores. When all frames are equal there is the first file only."""
    constant = is_constant(frames)
    distinct = 1 if constant else len(files)
    crcs, sizes = [0] * distinct, [0] * distinct

    def write(start: int, stop: int) -> None:
        for i in range(start, stop):
            data = seal(encode(frames[i]))
            _write_new(files[i], data)
            crcs[i], sizes[i] = zlib.crc32(data), len(data)

    in_threads(write, distinct, _FRAMES_PER_BLOCK)
    return FileSums(tuple(crcs), sum(sizes), constant)


def link_stills(files: Sequence[str]) -> None:
    """Make all files the same as the first."""
    for file in files[1:]:
        Path(file).unlink(missing_ok=True)
        try:
            os.link(files[0], file)
        except OSError:  # too many links, or a file system that has none
            _write_new(file, Path(files[0]).read_bytes())


def _write_new(path: str, data: bytes) -> None:
    """Write a file that nothing else links to."""
    try:
        with open(path, "xb") as file:  # noqa: PTH123  several times faster than through a Path
            file.write(data)
    except FileExistsError:  # left by a writer that was killed
        Path(path).unlink()
        _write_new(path, data)
