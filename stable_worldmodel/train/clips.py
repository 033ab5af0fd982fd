"""The clips of a dataset as training batches: split by episode, actions scaled, read ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stable_worldmodel.data.dataset import Dataset
from stable_worldmodel.data.normalization import get_scaler
from stable_worldmodel.data.split import split_episodes
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.train.config import TrainConfig

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]

COLUMNS = ("pixels", "action")
_READ_AHEAD = 3  # batches


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
        self.steps_per_epoch = len(self.train_windows) // self.batch_size
        self.scaler = get_scaler(config.scaler).fit(_actions(dataset, self.split["train"]))
        # One thread, so that the dataset is never read from two at a time.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clips")

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The training batches of steps [start, stop), a few of them read ahead."""
        yield from self._read_ahead(self._windows_of_step(step) for step in range(start, stop))

    def val_batches(self) -> Iterator[Batch]:
        """The validation batches, each spread over all held-out clips; the same each time, none if there is no clip."""
        count = min(len(self.val_windows), self._config.val_batches * self.batch_size)
        spread = np.linspace(0, len(self.val_windows) - 1, count).astype(np.int64)
        batches = -(-count // self.batch_size)
        yield from self._read_ahead(self.val_windows[spread[i::batches]] for i in range(batches))

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)

    def _windows_of_step(self, step: int) -> np.ndarray:
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _permutation(self._config.seed, epoch, len(self.train_windows))
        return self.train_windows[order[position * self.batch_size :][: self.batch_size]]

    def _read_ahead(self, batches_of_windows: Iterable[np.ndarray]) -> Iterator[Batch]:
        pending: deque[Future[Batch]] = deque()
        for windows in batches_of_windows:
            pending.append(self._reader.submit(self._read, windows))
            if len(pending) > _READ_AHEAD:
                yield pending.popleft().result()
        for future in pending:
            yield future.result()

    def _read(self, windows: np.ndarray) -> Batch:
        """{"pixels": (B, T, C, h, w) uint8, "action": (B, T, A) float32, scaled}."""
        batch = self._dataset.get_batch(windows)
        return {"pixels": batch["pixels"], "action": self.scaler.transform(batch["action"]).float()}


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


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
