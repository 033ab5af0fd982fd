"""Image columns whose frames lie in files beside the table: one file per frame, or one video per episode.

Each class reads any rows of one column, decodes every file or frame that they need once, on all cores, straight into
the output, and copies where several rows show the same frame, as all rows of an episode do in a constant column.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.shared.disk import check_seal
from stable_worldmodel.data.formats.shared.images import decode_image, image_shape
from stable_worldmodel.data.formats.shared.mp4 import VideoIndex, decode_frames, index_video
from stable_worldmodel.data.formats.shared.threads import in_threads
from stable_worldmodel.errors import ContractError, NotFoundError

STILL_SUFFIXES = (".jpeg", ".jpg", ".png")
VIDEO_SUFFIX = ".mp4"
_FILES_PER_BLOCK = 8


class Frames(Protocol):
    """One image column on disk."""

    column: Column
    block: int  # neighbouring rows that are worth reading together

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Return rows (n,), in any order and with repeats, as (n, *shape), in `out` when given."""
        ...

    def files(self, rows: np.ndarray) -> list[Path]:
        """Return the files that hold `rows`, each once."""
        ...


class Directory:
    """The directory of an open dataset, held so that another one put in its place is noticed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = self._stat()
        self._pin: int | None = None
        with contextlib.suppress(OSError):  # an open directory keeps its number; not every system can open one
            self._pin = os.open(path, os.O_RDONLY)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pin": None}

    def __del__(self) -> None:
        if getattr(self, "_pin", None) is not None:
            os.close(self._pin)  # type: ignore[arg-type]

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise NotFoundError(f"{self.path} does not exist") from None
        return found.st_dev, found.st_ino

    def check(self) -> None:
        """Raise RuntimeError when the dataset was replaced."""
        if self._stat() != self._identity:
            raise RuntimeError(f"{self.path} was replaced since the dataset was opened; load it again")


# Names of the files, below the directory, that hold rows (n,).
Names = Callable[[np.ndarray], list[str]]
# Says where a row belongs, for messages.
Describe = Callable[[int], str]


class FileFrames:
    """A column whose rows lie in files of their own; what is in a file is up to the subclass.

    first_row: any row, to look at what a frame is like.
    sealed_from: rows from this one on lie in files that must have a seal, because this package wrote them.
    """

    column: Column
    block = 1  # see Frames
    files_at_once = 1  # that one thread takes

    def __init__(
        self, directory: Directory, names: Names, describe: Describe, first_row: int, sealed_from: int
    ) -> None:
        self._directory, self._names, self._describe, self._sealed_from = directory, names, describe, sealed_from
        path = self.files(np.array([first_row]))[0]
        try:
            self.column = Column.numeric(np.dtype(np.uint8), self._shape(str(path), first_row >= sealed_from))
        except (OSError, ContractError) as error:
            raise _damaged(path, describe(first_row), error) from error

    def files(self, rows: np.ndarray) -> list[Path]:
        return [self._directory.path / name for name in dict.fromkeys(self._names(rows))]

    def read(self, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is None:
            out = np.empty((len(rows), *self.column.shape), dtype=np.uint8)
        places: dict[str, list[int]] = {}
        for i, name in enumerate(self._names(rows)):
            places.setdefault(name, []).append(i)
        files = list(places.items())
        root = f"{self._directory.path}{os.sep}"

        def decode(start: int, stop: int) -> None:
            for name, wanted in files[start:stop]:
                try:
                    self._decode(root + name, rows, wanted, out)
                except (OSError, ContractError) as error:
                    self._directory.check()
                    raise _damaged(root + name, self._describe(int(rows[wanted[0]])), error) from error

        in_threads(decode, len(files), self.files_at_once)
        self._directory.check()
        return out

    def _shape(self, path: str, sealed: bool) -> tuple[int, int, int]:
        raise NotImplementedError

    def _decode(self, path: str, rows: np.ndarray, wanted: list[int], out: np.ndarray) -> None:
        """Fill the entries `wanted` of `out`, whose rows all lie in this file."""
        raise NotImplementedError


class StillFrames(FileFrames):
    """One JPEG or PNG file per frame."""

    block = 8
    files_at_once = 8

    def _shape(self, path: str, sealed: bool) -> tuple[int, int, int]:
        return image_shape(_contents(path, sealed))

    def _decode(self, path: str, rows: np.ndarray, wanted: list[int], out: np.ndarray) -> None:
        first, *others = wanted
        decode_image(_contents(path, rows[first] >= self._sealed_from), out[first])
        for i in others:
            out[i] = out[first]


class VideoFrames(FileFrames):
    """One video per episode. `numbers(rows)` gives the frames of the videos that hold the rows."""

    block = 16

    def __init__(
        self,
        directory: Directory,
        names: Names,
        numbers: Callable[[np.ndarray], np.ndarray],
        describe: Describe,
        first_row: int,
        sealed_from: int,
    ) -> None:
        self._numbers = numbers
        self._indices: dict[str, VideoIndex] = {}
        super().__init__(directory, names, describe, first_row, sealed_from)

    def _shape(self, path: str, sealed: bool) -> tuple[int, int, int]:
        return self._index(path, sealed).shape

    def _decode(self, path: str, rows: np.ndarray, wanted: list[int], out: np.ndarray) -> None:
        index = self._index(path, rows[wanted[0]] >= self._sealed_from)
        if index.shape != self.column.shape:
            raise ContractError(f"expected frames of {self.column.shape}, found {index.shape}")
        frames = self._numbers(rows[wanted])
        places = {int(frame): np.array(wanted)[frames == frame] for frame in np.unique(frames)}

        def store(frame: int, image: np.ndarray) -> None:
            out[places[frame]] = image

        with open(path, "rb", buffering=0) as file:  # noqa: PTH123

            def read(offset: int, size: int) -> bytes:
                return os.pread(file.fileno(), size, offset)

            decode_frames(index, read, np.array(list(places)), store)

    def _index(self, path: str, sealed: bool) -> VideoIndex:
        if path not in self._indices:
            self._indices[path] = index_video(_contents(path, sealed))
        return self._indices[path]


def _contents(path: str, sealed: bool) -> bytes:
    """Read a whole file and check its seal, if it has one; it must have one where `sealed`."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  several times faster than through a Path
        data = file.read()
    check_seal(data, required=sealed)
    return data


def _damaged(path: str | Path, where: str, error: Exception) -> ContractError:
    return ContractError(f"{path} ({where}): {'is missing' if isinstance(error, FileNotFoundError) else error}")
