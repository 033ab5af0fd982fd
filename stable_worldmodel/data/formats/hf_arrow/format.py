"""The `hf_arrow` format: Arrow files that the `datasets` library opens, images beside them. See `hf_arrow.files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_worldmodel.data.formats.directory.format import DirectoryFormat
from stable_worldmodel.data.formats.directory.record import without_losses
from stable_worldmodel.data.formats.hf_arrow.layout import ArrowLayout, part_folders
from stable_worldmodel.data.formats.hf_arrow.writer import ArrowWriter
from stable_worldmodel.data.formats.shared.stored import StoredDataset, location
from stable_worldmodel.data.registry import PathLike


class ArrowFormat(DirectoryFormat):
    """A directory with `data-*-of-*.arrow` files, or with such directories in it."""

    name = "hf_arrow"
    layout, writer = ArrowLayout, ArrowWriter

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        return "://" not in str(path) and bool(part_folders(Path(path)))

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> ArrowDataset:
        return ArrowDataset(path=path, **kwargs)


class ArrowDataset(StoredDataset):
    """A dataset of Arrow files and images, as the episodes committed when it was opened.

    Reads what this package writes, and the recordings of early releases: single or nested directories, images as JPEG
    or PNG files or as one MP4 per episode.

    name: looked up as `cache.dataset_path` says; `path`: the directory.
    The other arguments are those of `StoredDataset`. TypeError without `name` and `path`.
    """

    def __init__(
        self,
        name: str | None = None,
        *args: Any,
        cache_dir: PathLike | None = None,
        path: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        self.path = location(name, path, cache_dir, "ArrowDataset")
        super().__init__(without_losses(ArrowLayout(self.path)), *args, **kwargs)
