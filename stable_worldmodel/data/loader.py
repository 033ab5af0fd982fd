"""Batches of windows, read ahead of whoever consumes them, in an order that can be continued exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.order import WindowBatchSampler
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import torch

    from stable_worldmodel.data.dataset import Dataset

Batch = dict[str, Any]


class Loader:
    """Iterating it gives the batches of one epoch, or what is left of it; the next iteration gives the next epoch.

    Batches are what `dataset.get_batch` returns. A background thread reads them ahead into memory that is used again
    and again: a batch is valid until the next one is asked for. Order and content do not depend on `prefetch`,
    `world_size` or an interruption.

    Args:
        dataset: windows to load.
        batch_size, shuffle, seed, drop_last, rank, world_size: see WindowBatchSampler.
        windows: numbers of the windows to visit, e.g. `dataset.windows_of(train_episodes)`; default: all.
        prefetch: batches read ahead, >= 0. 0 reads in the calling thread.
        device: where tensors are moved, e.g. "cuda". The copy from page-locked memory overlaps with what the device
            does; images stay uint8.
        copy: give every batch memory of its own.
        order: `block` and `open_blocks` of WindowOrder.

    Not safe to iterate twice at the same time (RuntimeError). Closing is optional; a context manager closes it.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: str | bool = "full",
        seed: int = 0,
        drop_last: bool = True,
        *,
        windows: np.ndarray | None = None,
        prefetch: int = 2,
        device: str | torch.device | None = None,
        copy: bool = False,
        rank: int = 0,
        world_size: int = 1,
        **order: int,
    ):
        if prefetch < 0:
            raise ContractError(f"prefetch={prefetch}: expected an integer >= 0")
        visited = len(dataset) if windows is None else np.asarray(windows)
        self.sampler = WindowBatchSampler(visited, batch_size, shuffle, seed, drop_last, rank, world_size, **order)
        self.dataset = dataset
        self.prefetch, self.copy = int(prefetch), bool(copy)
        self.device = device
        self._free: deque[Batch] = deque()  # memory of batches that nobody uses any more
        self._iterating = False
        # One thread, so that the dataset is never read from two at a time; formats decode with threads of their own.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="loader") if prefetch else None

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.sampler)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self.sampler.epoch

    @property
    def buffer_bytes(self) -> int:
        """Memory that waits to be used again. The dataset's caches and the batch in use are not counted."""
        return sum(_tensor_bytes(batch) for batch in self._free)

    def __iter__(self) -> Iterator[Batch]:
        if self._iterating:
            raise RuntimeError("this Loader is being iterated already; make another one")
        self._iterating = True
        pending: deque[tuple[int, int, Future[Batch] | Batch]] = deque()
        try:
            for epoch, position, windows in self.sampler.upcoming(self.sampler.epoch, self.sampler.position):
                pending.append((epoch, position, self._request(windows)))
                if len(pending) > self.prefetch:
                    yield from self._deliver(*pending.popleft())
            while pending:
                yield from self._deliver(*pending.popleft())
        finally:
            self._iterating = False
            for *_, read in pending:
                if isinstance(read, Future) and not read.cancel():
                    read.exception()  # wait: the dataset must not be read behind the caller's back

    def _request(self, windows: np.ndarray) -> Future[Batch] | Batch:
        return self._read(windows) if self._reader is None else self._reader.submit(self._read, windows)

    def _read(self, windows: np.ndarray) -> Batch:
        reusable = not self.dataset.transforms and not self.copy
        out = self._take_memory(len(windows)) if reusable else None
        batch = self.dataset.get_batch(windows, out)
        return _page_locked(batch) if out is None and self._pins else batch

    def _take_memory(self, size: int) -> Batch | None:
        for _ in range(len(self._free)):
            batch = self._free.popleft()
            if _batch_size(batch) == size:
                return batch
        return None

    @property
    def _pins(self) -> bool:
        return self.device is not None and str(self.device).startswith("cuda")

    def _deliver(self, epoch: int, position: int, read: Future[Batch] | Batch) -> Iterator[Batch]:
        batch = read.result() if isinstance(read, Future) else read
        self.sampler.epoch, self.sampler.position = epoch, position
        yield batch if self.device is None else _moved(batch, self.device)
        if self._pins:
            import torch

            torch.cuda.current_stream().synchronize()  # the copy has read the memory
        if not self.copy and not self.dataset.transforms:
            self._free.append(batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer stands, after the batches it received. JSON-able."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken, also with another `world_size` or `batch_size`.

        ContractError if it belongs to another seed, shuffle or number of windows.
        """
        if self._iterating:
            raise RuntimeError("load_state_dict during an iteration; break out of it first")
        self.sampler.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.seek(epoch, 0)

    def seek(self, epoch: int, step: int) -> None:
        """Go to batch `step` of an epoch. ContractError if it has no such batch."""
        if not 0 <= step < len(self):
            raise ContractError(f"step={step}: expected within [0, {len(self)}), the batches of an epoch")
        if self._iterating:
            raise RuntimeError("seek during an iteration; break out of it first")
        self.sampler.epoch, self.sampler.position = int(epoch), step * self.sampler.global_batch

    def close(self) -> None:
        """End the background thread. A second call does nothing."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "numel")


def _tensor_bytes(batch: Batch) -> int:
    return sum(value.numel() * value.element_size() for value in batch.values() if _is_tensor(value))


def _batch_size(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _moved(batch: Batch, device: Any) -> Batch:
    return {name: v.to(device, non_blocking=True) if _is_tensor(v) else v for name, v in batch.items()}


def _page_locked(batch: Batch) -> Batch:
    """The same tensors in memory that devices copy from directly, image channels last as they were."""
    pinned = {}
    for name, value in batch.items():
        if _is_tensor(value) and not value.is_contiguous():
            pinned[name] = value.movedim(-3, -1).pin_memory().movedim(-1, -3)
        else:
            pinned[name] = value.pin_memory() if _is_tensor(value) else value
    return pinned
