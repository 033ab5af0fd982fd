"""What the formats of directory datasets have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from stable_worldmodel.data.formats.directory.record import DirectoryLayout
from stable_worldmodel.data.formats.directory.row_log import log_path
from stable_worldmodel.data.formats.directory.verify import verify_directory
from stable_worldmodel.data.formats.directory.writer import DirectoryWriter
from stable_worldmodel.data.registry import Format, PathLike
from stable_worldmodel.data.verify import Report


class DirectoryFormat(Format):
    """A format with a layout and a writer of this package. Images are files, encoded with loss."""

    reencodes_images = True
    layout: ClassVar[type[DirectoryLayout]]
    writer: ClassVar[type[DirectoryWriter]]

    @classmethod
    def open_writer(cls, path: PathLike, **kwargs: Any) -> DirectoryWriter:
        return cls.writer(path, **kwargs)

    @classmethod
    def verify(cls, path: PathLike, deep: bool = False, repair: bool = False) -> Report:
        return verify_directory(Path(path), cls.layout, cls.writer, deep, repair)

    @classmethod
    def side_files(cls, path: Path) -> list[Path]:
        return [*super().side_files(path), log_path(path)]
