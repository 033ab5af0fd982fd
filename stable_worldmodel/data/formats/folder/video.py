"""The `video` format: a directory with one MP4 per episode and image column. See `folder.layout`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stable_worldmodel.data.formats.directory.format import DirectoryFormat
from stable_worldmodel.data.formats.directory.record import DirectoryLayout, without_losses
from stable_worldmodel.data.formats.folder.layout import FolderLayout, frame_suffixes, is_folder_dataset
from stable_worldmodel.data.formats.folder.writer import VideoWriter
from stable_worldmodel.data.formats.hf_arrow.layout import ArrowLayout
from stable_worldmodel.data.formats.shared.frames import VIDEO_SUFFIX
from stable_worldmodel.data.formats.shared.stored import StoredDataset, location
from stable_worldmodel.data.registry import PathLike


class VideoFormat(DirectoryFormat):
    """A directory with `ep_len.npz` and images as videos."""

    name = "video"
    layout, writer = FolderLayout, VideoWriter

    @classmethod
    def detect(cls, path: PathLike) -> bool:
        if "://" in str(path) or not is_folder_dataset(Path(path)):
            return False
        return VIDEO_SUFFIX in frame_suffixes(Path(path))

    @classmethod
    def open_reader(cls, path: PathLike, **kwargs: Any) -> VideoDataset:
        return VideoDataset(path=path, **kwargs)


class VideoDataset(StoredDataset):
    """A dataset of videos in a directory, as the episodes committed when it was opened.

    Reads both generations of the layout: with `ep_len.npz`, and with Arrow files (see `hf_arrow`).

    name: looked up as `cache.dataset_path` says; `path`: the directory.
    video_keys: the image columns, of the layout with `ep_len.npz`; default: all.
    The other arguments are those of `StoredDataset`. TypeError without `name` and `path`.
    """

    def __init__(
        self,
        name: str | None = None,
        *args: Any,
        video_keys: Sequence[str] | None = None,
        cache_dir: PathLike | None = None,
        path: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        self.path = location(name, path, cache_dir, "VideoDataset")
        folder = is_folder_dataset(self.path)
        layout: DirectoryLayout = FolderLayout(self.path, video_keys) if folder else ArrowLayout(self.path)
        super().__init__(without_losses(layout), *args, **kwargs)
