"""The `folder` format: a directory with one image file per frame. See `folder.layout` for what lies where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_worldmodel.data.formats.directory.format import DirectoryFormat
from stable_worldmodel.data.formats.directory.record import without_losses
from stable_worldmodel.data.formats.folder.layout import FolderLayout, frame_suffixes, is_folder_dataset
from stable_worldmodel.data.formats.folder.writer import FolderWriter
from stable_worldmodel.data.formats.shared.frames import VIDEO_SUFFIX
from stable_worldmodel.data.formats.shared.stored import StoredDataset, location
from stable_worldmodel.data.registry import PathLike


class FolderFormat(DirectoryFormat):
    """A directory with `ep_len.npz` and images as files."""

    name = "folder"
    layout, writer = FolderLayout, FolderWriter

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        if "://" in str(path) or not is_folder_dataset(Path(path)):
            return False
        return VIDEO_SUFFIX not in frame_suffixes(Path(path))

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> FolderDataset:
        return FolderDataset(path=path, **kwargs)


class FolderDataset(StoredDataset):
    """A dataset in a directory, as the episodes committed when it was opened; a writer may go on appending.

    name: looked up as `cache.dataset_path` says; `path`: the directory.
    folder_keys: the sub-directories that are image columns; default: all.
    The other arguments are those of `StoredDataset`. TypeError without `name` and `path`.
    """

    def __init__(
        self,
        name: str | None = None,
        *args: Any,
        folder_keys: Sequence[str] | None = None,
        cache_dir: PathLike | None = None,
        path: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        self.path = location(name, path, cache_dir, type(self).__name__)
        super().__init__(without_losses(FolderLayout(self.path, folder_keys)), *args, **kwargs)


class ImageDataset(FolderDataset):
    """A `FolderDataset` with the image columns `image_keys`, by default `pixels` alone."""

    def __init__(
        self, name: str | None = None, *args: Any, image_keys: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name, *args, folder_keys=image_keys or ["pixels"], **kwargs)
