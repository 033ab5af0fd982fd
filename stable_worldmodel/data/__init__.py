"""Episodes on disk: writing them, and reading them back as windows, rows and whole episodes.

    with open_writer("pusht.h5") as writer:
        writer.write_episode({"pixels": frames, "action": actions})
    ds = load_dataset("pusht.h5", num_steps=4, frameskip=5)
    batch = ds.get_batch([0, 7, 99])

h5py and torch are imported when a file is opened and when tensors are made, not with this package.
"""

from stable_worldmodel.data import dataset, formats, normalization, utils
from stable_worldmodel.data.cache import dataset_path, ensure_dir_exists, get_cache_dir, new_dataset_path, validate_name
from stable_worldmodel.data.columns import EPISODE_DATA_KEY, is_image
from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
from stable_worldmodel.data.formats.hdf5_writer import HDF5Writer
from stable_worldmodel.data.lock import DatasetLockedError
from stable_worldmodel.data.normalization import (
    IdentityScaler,
    PercentileScaler,
    ZScoreScaler,
    column_normalizer,
    get_scaler,
    scaler_from_dict,
)
from stable_worldmodel.data.registry import (
    FORMATS,
    WRITE_MODES,
    Format,
    detect_format,
    get_format,
    list_formats,
    load_dataset,
    open_writer,
    register_format,
    validate_write_mode,
)
from stable_worldmodel.data.split import split_episodes
from stable_worldmodel.data.verify import Report, verify
from stable_worldmodel.protocols import Writer

__all__ = [
    "Dataset",
    "DatasetLockedError",
    "EPISODE_DATA_KEY",
    "FORMATS",
    "Format",
    "HDF5Dataset",
    "HDF5Writer",
    "IdentityScaler",
    "PercentileScaler",
    "Report",
    "WRITE_MODES",
    "Writer",
    "ZScoreScaler",
    "column_normalizer",
    "dataset",
    "dataset_path",
    "detect_format",
    "ensure_dir_exists",
    "formats",
    "get_cache_dir",
    "get_format",
    "get_scaler",
    "is_image",
    "list_formats",
    "load_dataset",
    "new_dataset_path",
    "normalization",
    "open_writer",
    "register_format",
    "scaler_from_dict",
    "split_episodes",
    "utils",
    "validate_name",
    "validate_write_mode",
    "verify",
]
