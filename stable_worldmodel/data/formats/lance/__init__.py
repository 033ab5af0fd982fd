"""`lance` and `lance_video`: tables of rows with JPEG images or videos."""

from stable_worldmodel.data.formats.lance.format import LanceDataset, LanceFormat
from stable_worldmodel.data.formats.lance.video import LanceVideoDataset, LanceVideoFormat

__all__ = ["LanceDataset", "LanceFormat", "LanceVideoDataset", "LanceVideoFormat"]
