"""The built-in formats. Their order is the order of detection."""

from stable_worldmodel.data.formats.hdf5 import HDF5Format
from stable_worldmodel.data.registry import register_format

register_format(HDF5Format)
