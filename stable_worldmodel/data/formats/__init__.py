"""The built-in formats. Their order is the order of detection."""

from stable_worldmodel.data.formats.folder import FolderFormat, VideoFormat
from stable_worldmodel.data.formats.hdf5 import HDF5Format
from stable_worldmodel.data.formats.hf_arrow import ArrowFormat
from stable_worldmodel.data.formats.lance import LanceFormat, LanceVideoFormat
from stable_worldmodel.data.formats.lerobot import LeRobotFormat
from stable_worldmodel.data.formats.minari import MinariFormat
from stable_worldmodel.data.registry import register_format

for built_in in (
    MinariFormat,
    HDF5Format,
    FolderFormat,
    VideoFormat,
    LeRobotFormat,
    ArrowFormat,
    LanceFormat,
    LanceVideoFormat,
):
    register_format(built_in)
