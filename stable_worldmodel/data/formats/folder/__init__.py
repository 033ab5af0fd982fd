"""`folder` and `video`: a directory with image or video files."""

from stable_worldmodel.data.formats.folder.format import FolderDataset, FolderFormat
from stable_worldmodel.data.formats.folder.video import VideoDataset, VideoFormat

__all__ = ["FolderDataset", "FolderFormat", "VideoDataset", "VideoFormat"]
