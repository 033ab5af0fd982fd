"""Stored features of a frozen backbone in place of images: computed by the first run that wants them, read by all.

    rooms.h5
    rooms.h5.features/<key>/features.npy, features.json

The key is a hash of the backbone's weights, of what the dataset holds, and of the precision. Features are computed in
blocks as large as a training batch, since what a matrix product rounds to may depend on its size.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from stable_worldmodel.data.cache import features_path, get_cache_dir
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.composition import WrappedDataset
from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.lock import DatasetLockedError, WriterLock
from stable_worldmodel.errors import ContractError
from stable_worldmodel.train.columns import FEATURES, IMAGES, fit_model
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.wm.features import backbone_fingerprint, open_features, write_features
from stable_worldmodel.wm.registry import build_model

logger = logging.getLogger(__name__)

SAMPLED = 256  # frames that tell what a dataset holds, beside its lengths and actions
POLL = 1.0  # seconds


class FeatureDataset(WrappedDataset):
    """The windows of `dataset` with one further column, `pixels_emb` (P, W): `features` (rows, P, W) of its images."""

    def __init__(self, dataset: Dataset, features: np.ndarray) -> None:
        super().__init__(dataset)
        self._features = features
        self.path = getattr(dataset, "path", None)
        self.columns[FEATURES] = Column.numeric(features.dtype, features.shape[1:])
        self.column_names.append(FEATURES)

    def with_windows(self, num_steps: int, frameskip: int = 1, *, keys_to_load: Sequence[str] | None = None) -> Dataset:
        view = cast(FeatureDataset, Dataset.with_windows(self, num_steps, frameskip, keys_to_load=keys_to_load))
        view.dataset = self.dataset.with_windows(num_steps, frameskip)
        return view

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Any) -> Any:
        return self._read_columns(self.column_names, indices, out)

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> Any:
        return Dataset._read_items(self, indices)

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if name != FEATURES:
            return super()._read_rows(name, rows, out)
        return np.take(self._features, rows, axis=0, out=out, mode="raise" if out is None else "clip")


def with_features(config: TrainConfig, dataset: Dataset, accelerator: Any) -> Dataset:
    """`dataset` with the features of the model's backbone, which are computed now unless they are stored already.

    Another run that computes them is waited for. Raises ContractError for a model without a frozen backbone that sees
    each frame by itself, and for a dataset with transforms.
    """
    model: Any = config.model
    if not hasattr(model, "backbone") or not getattr(model, "frozen", True):
        raise ContractError(
            f"features={config.features!r}: expected a model with a frozen backbone, such as prejepa, "
            f"found {model.model_type}"
        )
    if dataset.transforms:
        raise ContractError(f"features={config.features!r}: expected a dataset without transforms")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)  # as `train` does before it builds the model: the same random backbone
        backbone: Any = build_model(fit_model(config, dataset)).backbone
    if getattr(backbone, "is_video", False):
        raise ContractError(f"features={config.features!r}: {model.backbone} sees frames in their clip, not one by one")
    backbone = backbone.to(accelerator.device).eval()
    source = content_key(dataset)
    folder = _root(dataset) / _short(backbone_fingerprint(backbone), source, config.features, config.precision)
    if accelerator.is_main_process:
        _compute(config, folder, backbone, dataset, source)
    accelerator.wait_for_everyone()
    return FeatureDataset(dataset, open_features(folder))


def content_key(dataset: Dataset) -> str:
    """A hash of what a dataset holds: lengths, actions, and some frames from all over it."""
    digest = hashlib.sha256()
    for values in (dataset.lengths, dataset.offsets, dataset.get_col_data("action")):
        digest.update(np.ascontiguousarray(values).tobytes())
    column = dataset.columns[IMAGES]
    digest.update(f"{column.dtype} {column.shape}".encode())
    rows = np.unique(np.linspace(0, dataset.num_rows - 1, SAMPLED).astype(np.int64))
    digest.update(np.ascontiguousarray(dataset._values(IMAGES, rows)).tobytes())
    return digest.hexdigest()


def _compute(config: TrainConfig, folder: Path, backbone: Any, dataset: Dataset, source: str) -> None:
    """Write what is not there yet of the features in `folder`."""

    def read(start: int, stop: int) -> torch.Tensor:
        frames = dataset._values(IMAGES, np.arange(start, stop))  # (n, h, w, 3)
        return torch.from_numpy(frames).movedim(-1, 1)

    folder.parent.mkdir(parents=True, exist_ok=True)
    bf16 = torch.autocast(backbone.mean.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    with _locked(folder), bf16:
        logger.info("features of %d frames: %s", dataset.num_rows, folder)
        block = config.batch_size // config.accumulate * config.num_steps
        write_features(folder, backbone, read, dataset.num_rows, source=source, block=block, dtype=config.features)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a store, after whoever holds it now."""
    lock, waiting = None, False
    while lock is None:
        try:
            lock = WriterLock(folder)
        except DatasetLockedError:
            if not waiting:
                logger.info("%s: another run computes these features; waiting for it", folder)
            waiting = True
            time.sleep(POLL)
    with lock:
        yield


def _root(dataset: Dataset) -> Path:
    """Beside the dataset, or in the data folder for one that is not a single file or folder."""
    path = getattr(dataset, "path", None)
    if path is None or not Path(path).exists():
        return get_cache_dir(sub_folder="features")
    return features_path(Path(path))


def _short(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
