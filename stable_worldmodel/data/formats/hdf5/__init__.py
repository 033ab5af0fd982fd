"""`hdf5`: one file, columns over all rows."""

from stable_worldmodel.data.formats.hdf5.format import HDF5Dataset, HDF5Format

__all__ = ["HDF5Dataset", "HDF5Format"]
