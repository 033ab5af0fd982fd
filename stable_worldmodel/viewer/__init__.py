"""Looking at episodes in a browser: a local page over a dataset or the videos of a run."""

from stable_worldmodel.viewer.server import ViewerServer, open_viewer
from stable_worldmodel.viewer.sources import DatasetSource, Source, VideoSource, open_sources

__all__ = ["DatasetSource", "Source", "VideoSource", "ViewerServer", "open_sources", "open_viewer"]
