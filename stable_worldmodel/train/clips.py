"""The clips of a dataset as training batches: split by episode, actions scaled, read ahead of the model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.loader import Loader
from stable_worldmodel.data.normalization import get_scaler
from stable_worldmodel.data.split import split_episodes
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.train.config import TrainConfig

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]

COLUMNS = ("pixels", "action")
READ_AHEAD = 3  # batches


class Clips:
    """Training and validation clips of a windowed dataset.

    Which clips form the batch of a step is a function of (seed, step) alone, so a resumed run sees the same ones.
    Raises MissingKeyError or ContractError if the dataset cannot be trained on.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        _check(config, dataset)
        self._config = config
        self._dataset = dataset
        fractions = {"train": 1 - config.val_fraction, "val": config.val_fraction}
        self.split = split_episodes(dataset.num_episodes, fractions, config.seed)
        self.train_windows = dataset.windows_of(self.split["train"])
        self.val_windows = dataset.windows_of(self.split["val"])
        if not len(self.train_windows):
            raise ContractError("no training episode is long enough for one clip; collect more or longer episodes")
        self.batch_size = min(config.batch_size, len(self.train_windows))
        self.scaler = get_scaler(config.scaler).fit(_actions(dataset, self.split["train"]))
        self._loader = Loader(
            dataset, self.batch_size, "full", config.seed, windows=self.train_windows, prefetch=READ_AHEAD
        )
        self.steps_per_epoch = len(self._loader)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The training batches of steps [start, stop), each valid until the next one is asked for."""
        epoch, step = divmod(start, self.steps_per_epoch)
        self._loader.seek(epoch, step)
        while start < stop:
            for batch in islice(self._loader, stop - start):
                start += 1
                yield self._scaled(batch)

    def val_batches(self) -> Iterator[Batch]:
        """The validation batches, each spread over all held-out clips; the same each time, none if there is no clip."""
        count = min(len(self.val_windows), self._config.val_batches * self.batch_size)
        if not count:
            return
        spread = self.val_windows[np.linspace(0, len(self.val_windows) - 1, count).astype(np.int64)]
        batches = -(-count // self.batch_size)
        mixed = np.concatenate([spread[i::batches] for i in range(batches)])
        size = -(-count // batches)
        with Loader(self._dataset, size, "none", windows=mixed, drop_last=False, prefetch=READ_AHEAD) as loader:
            yield from map(self._scaled, loader)

    def close(self) -> None:
        """Stop reading ahead."""
        self._loader.close()

    def _scaled(self, batch: Batch) -> Batch:
        """{"pixels": (B, T, C, h, w) uint8, "action": (B, T, A) float32, scaled}."""
        return {"pixels": batch["pixels"], "action": self.scaler.transform(batch["action"]).float()}


def _actions(dataset: Dataset, episodes: np.ndarray) -> np.ndarray:
    """All actions of `episodes`, (rows, A_env)."""
    firsts, lengths = dataset.offsets[episodes], dataset.lengths[episodes]
    rows = np.concatenate([np.arange(first, first + length) for first, length in zip(firsts, lengths, strict=True)])
    return dataset.get_col_data("action")[rows].reshape(len(rows), -1)


def _check(config: TrainConfig, dataset: Dataset) -> None:
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing:
        raise MissingKeyError(
            f"training reads the columns {list(COLUMNS)}: the dataset has only {dataset.column_names}"
        )
    if (dataset.num_steps, dataset.frameskip) != (config.num_steps, config.frameskip):
        raise ContractError(
            f"the dataset has num_steps={dataset.num_steps}, frameskip={dataset.frameskip}: expected "
            f"load_dataset(path, num_steps={config.num_steps}, frameskip={config.frameskip})"
        )
