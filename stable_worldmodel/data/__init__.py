"""Episodes on disk: writing them, and reading them back as windows, rows and whole episodes.

    with open_writer("pusht.h5") as writer:
        writer.write_episode({"pixels": frames, "action": actions})
    ds = load_dataset("pusht.h5", num_steps=4, frameskip=5)
    batch = ds.get_batch([0, 7, 99])

h5py and torch are imported when a file is opened and when tensors are made, not with this package.
"""

from stable_worldmodel.data import buffer, dataset, formats, normalization, utils
from stable_worldmodel.data.cache import dataset_path, ensure_dir_exists, get_cache_dir, new_dataset_path, validate_name
from stable_worldmodel.data.catalog import (
    SpaceInfo,
    VariationInfo,
    WorldInfo,
    dataset_info,
    delete_dataset,
    delete_model,
    list_datasets,
    list_models,
    list_worlds,
    world_info,
)
from stable_worldmodel.data.columns import EPISODE_DATA_KEY, is_image
from stable_worldmodel.data.composition import ConcatDataset, MergeDataset
from stable_worldmodel.data.conversion import convert, merge
from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.formats.folder.format import FolderDataset, ImageDataset
from stable_worldmodel.data.formats.folder.video import VideoDataset
from stable_worldmodel.data.formats.hdf5.format import HDF5Dataset
from stable_worldmodel.data.formats.hdf5.writer import HDF5Writer
from stable_worldmodel.data.formats.lance.format import LanceDataset
from stable_worldmodel.data.formats.lance.video import LanceVideoDataset
from stable_worldmodel.data.goals import GoalDataset
from stable_worldmodel.data.legacy import FrameDataset, HFDataset, InjectedDataset, StepsDataset
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.lock import DatasetLockedError
from stable_worldmodel.data.normalization import (
    IdentityScaler,
    PercentileScaler,
    ZScoreScaler,
    column_normalizer,
    get_scaler,
    scaler_from_dict,
)
from stable_worldmodel.data.order import WindowBatchSampler
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
from stable_worldmodel.data.replay import ReplayBuffer, classic_filter
from stable_worldmodel.data.split import split_episodes
from stable_worldmodel.data.verify import Report, verify
from stable_worldmodel.protocols import Writer

__all__ = [
    "ConcatDataset",
    "Dataset",
    "DatasetLockedError",
    "EPISODE_DATA_KEY",
    "FORMATS",
    "FolderDataset",
    "Format",
    "FrameDataset",
    "GoalDataset",
    "HDF5Dataset",
    "HDF5Writer",
    "HFDataset",
    "IdentityScaler",
    "ImageDataset",
    "InjectedDataset",
    "LanceDataset",
    "LanceVideoDataset",
    "Loader",
    "MergeDataset",
    "PercentileScaler",
    "ReplayBuffer",
    "Report",
    "SpaceInfo",
    "StepsDataset",
    "VariationInfo",
    "VideoDataset",
    "WRITE_MODES",
    "WindowBatchSampler",
    "WorldInfo",
    "Writer",
    "ZScoreScaler",
    "buffer",
    "classic_filter",
    "column_normalizer",
    "convert",
    "dataset",
    "dataset_info",
    "dataset_path",
    "delete_dataset",
    "delete_model",
    "detect_format",
    "ensure_dir_exists",
    "formats",
    "get_cache_dir",
    "get_format",
    "get_scaler",
    "is_image",
    "list_datasets",
    "list_formats",
    "list_models",
    "list_worlds",
    "load_dataset",
    "merge",
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
    "world_info",
]
