"""The clips of a dataset as training batches: split by episode, numbers scaled, read ahead of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.normalization import Scaler, get_scaler
from stable_worldmodel.data.split import split_episodes
from stable_worldmodel.errors import ContractError
from stable_worldmodel.train.columns import ACTOR_GOAL, FEATURES, GOAL, ClipDataset, check_columns, reading_features
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.wm.registry import ModelConfig

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]

READ_AHEAD = 3  # batches
_UNSCALED = ("reward", "terminated", "goal_step", FEATURES)


class Clips:
    """Training and validation clips of a windowed dataset, with the columns that `model` reads.

    Which clips form the batch of a step is a function of (seed, step) alone, so a resumed run sees the same ones, on
    any number of processes. Each of these gets its part of every batch.

    Raises MissingKeyError or ContractError if the dataset cannot be trained on.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        model: ModelConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: Any = None,
    ) -> None:
        _check_windows(config, dataset)
        reads = model.reads()
        if config.features != "none":
            reads = reading_features(reads, images=bool(getattr(model, "decoder_weight", 0)))
        check_columns(model.model_type, reads.columns, dataset)
        self._config, self._rank, self._world_size, self._device = config, rank, world_size, device
        fractions = {"train": 1 - config.val_fraction, "val": config.val_fraction}
        self.split = split_episodes(dataset.num_episodes, fractions, config.seed)
        self._train, self._val = (
            ClipDataset(dataset, reads, config.seed, self.split[part], to_end=config.to_end and reads.goals is None)
            for part in ("train", "val")
        )
        self.train_windows = self._train.windows_of(self.split["train"])
        self.val_windows = self._val.windows_of(self.split["val"])
        self.batch_size = _batch_size(config, len(self.train_windows), world_size)
        self.scalers = _fitted_scalers(config, dataset, self._train.names, self.split["train"])
        self._loader = self._open(self._train, self.train_windows, self.batch_size, "full", config.seed)
        self.steps_per_epoch = len(self._loader)
        self._reading: Any = None  # the training batches that are being read ahead

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The training batches of steps [start, stop), each valid until the next one is asked for."""
        while start < stop:
            epoch, step = divmod(start, self.steps_per_epoch)
            self._loader.seek(epoch, step)
            self._train.set_epoch(epoch)
            self._reading = reading = iter(self._loader)
            for batch in islice(reading, stop - start):
                start += 1
                yield self._scaled(batch)

    def val_batches(self) -> Iterator[Batch]:
        """The validation batches, each spread over all held-out clips; the same each time, none if there is no clip.

        Training batches that were read ahead are dropped, and read again when they are asked for.
        """
        if self._reading is not None:
            self._reading.close()  # the dataset is never read from two threads at a time
            self._reading = None
        count = min(len(self.val_windows), self._config.val_batches * self.batch_size)
        batches = -(-count // self.batch_size)
        # Equal parts for all processes, as statistics over all of them need.
        size = count // max(1, batches) // self._world_size * self._world_size
        if not size:
            return
        spread = self.val_windows[np.linspace(0, len(self.val_windows) - 1, batches * size).astype(np.int64)]
        mixed = np.concatenate([spread[i::batches] for i in range(batches)])
        with self._open(self._val, mixed, size, "none", 0) as loader:
            yield from map(self._scaled, loader)

    def close(self) -> None:
        """Stop reading ahead."""
        self._loader.close()

    def _open(self, dataset: ClipDataset, windows: np.ndarray, batch_size: int, shuffle: str, seed: int) -> Loader:
        return Loader(
            dataset,
            batch_size // self._world_size,
            shuffle,
            seed,
            windows=windows,
            prefetch=READ_AHEAD,
            device=self._device,
            rank=self._rank,
            world_size=self._world_size,
        )

    def _scaled(self, batch: Batch) -> Batch:
        """Images stay uint8 (B, T, C, h, w), other columns become float32 and are scaled."""
        return {name: self._scale(name, values) for name, values in batch.items()}

    def _scale(self, name: str, values: torch.Tensor) -> torch.Tensor:
        for prefix in ("", ACTOR_GOAL, GOAL):
            if name.startswith(prefix) and name[len(prefix) :] in self.scalers:
                return self.scalers[name[len(prefix) :]].transform(values).float()
        return values


def make_scaler(kind: str, column: str, metadata: Mapping[str, Any]) -> Scaler:
    """An unfitted scaler, or a fitted one where the dataset's metadata has the bounds of actions."""
    if kind != "minmax":
        return get_scaler(kind)
    known = metadata.get("action_space") if column == "action" else None
    space = known if isinstance(known, Mapping) else {}
    low, high = (np.asarray(space.get(bound, np.nan), np.float64).reshape(-1) for bound in ("low", "high"))
    if np.isfinite(low).all() and np.isfinite(high).all():
        return get_scaler("percentile", low=0, high=100, q_low=low, q_high=high)
    return get_scaler("percentile", low=0, high=100)


def _fitted_scalers(config: TrainConfig, dataset: Dataset, names: list[str], episodes: np.ndarray) -> dict[str, Scaler]:
    """A scaler for every column of numbers, fitted on `episodes` alone."""
    firsts, lengths = dataset.offsets[episodes], dataset.lengths[episodes]
    rows = np.concatenate([np.arange(first, first + length) for first, length in zip(firsts, lengths, strict=True)])
    scalers = {}
    for name in names:
        column = dataset.columns.get(name)
        if name in _UNSCALED or column is None or column.kind != "number":
            continue
        scaler = make_scaler(config.scalers.get(name, config.scaler), name, dataset.metadata)
        if any(getattr(scaler, stat) is None for stat in scaler.stats):
            scaler.fit(dataset.get_col_data(name)[rows].reshape(len(rows), -1))
        scalers[name] = scaler
    return scalers


def _batch_size(config: TrainConfig, clips: int, world_size: int) -> int:
    """Clips per step: as configured, or fewer if there are not that many, in equal parts."""
    parts = world_size * config.accumulate
    if config.batch_size % parts:
        raise ContractError(
            f"batch_size={config.batch_size}: expected a multiple of {parts}, for {world_size} processes with "
            f"accumulate={config.accumulate}"
        )
    size = min(config.batch_size, clips // parts * parts)
    if not size:
        raise ContractError(
            f"the training episodes have {clips} clips for a batch of at least {parts}; no or too few of them are long "
            "enough for one clip: collect more or longer episodes"
        )
    return size


def _check_windows(config: TrainConfig, dataset: Dataset) -> None:
    if (dataset.num_steps, dataset.frameskip) != (config.num_steps, config.frameskip):
        raise ContractError(
            f"the dataset has num_steps={dataset.num_steps}, frameskip={dataset.frameskip}: expected "
            f"load_dataset(path, num_steps={config.num_steps}, frameskip={config.frameskip})"
        )
