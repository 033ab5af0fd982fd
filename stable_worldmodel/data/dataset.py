"""The dataset: episodes on disk, read as windows, rows or whole episodes, a batch at a time.

A format subclasses `Dataset` and supplies two things: the `Column` of each stored column, and `_read_rows`, which
fetches rows of one column. Everything else (windows, batches, transforms, derived and merged columns) is here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.data.columns import DERIVED_COLUMNS, EPISODE_DATA_KEY, INDEX_COLUMNS, Column
from stable_worldmodel.data.windows import ClipIndices, WindowIndex
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    import torch

    from stable_worldmodel.data.notebook import EpisodeView

Item = dict[str, Any]
Transform = Callable[[Item], Item]

FRAMES_PER_BLOCK, BLOCK_BYTES = 256, 4 << 20  # of iter_frames, the larger of both

# Earlier releases had every dataset class in this module.
_ELSEWHERE = (
    "ConcatDataset",
    "FolderDataset",
    "FrameDataset",
    "GoalDataset",
    "HDF5Dataset",
    "HFDataset",
    "ImageDataset",
    "InjectedDataset",
    "LanceDataset",
    "LanceVideoDataset",
    "MergeDataset",
    "StepsDataset",
    "VideoDataset",
)
__getattr__ = lazy_exports(__name__, dict.fromkeys(_ELSEWHERE, "stable_worldmodel.data"))


class Dataset:
    """Windows over stored episodes. Map-style, so `torch.utils.data.DataLoader` accepts it as it is.

    `ds[i]` is window i as a dict of tensors: images (T, C, H, W) uint8, `action` (T, K*A) with the K actions that
    follow each observation in order, other columns (T, ...) in their own dtype, text a list of T strings. A window
    never leaves its episode. The last action of an episode is NaN; consumers replace it.

    lengths, offsets: (E,) rows of each episode and its first row; `offsets=None` means back to back.
    columns: what the stored columns hold; merged ones join them.
    num_steps, frameskip: T observations per window, K rows apart.
    transform: maps one window's dict (T, ...) to what `ds[i]` returns.
    batch_transform: maps a batch's dict (B, T, ...) to what `get_batch` returns; default: `transform` per window.
    keys_to_load: the columns of items, derived ones included; default: all stored ones.
    index: the windows, where they are not all that fit into `lengths`.
    """

    metadata: Mapping[str, Any] = {}  # what the recording run said about itself
    episode_column_names: Sequence[str] = ()

    def __init__(
        self,
        lengths: np.ndarray | Sequence[int],
        offsets: np.ndarray | Sequence[int] | None = None,
        frameskip: int = 1,
        num_steps: int = 1,
        transform: Transform | None = None,
        *,
        columns: Mapping[str, Column],
        batch_transform: Transform | None = None,
        keys_to_load: Sequence[str] | None = None,
        index: WindowIndex | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.offsets = (
            np.cumsum(self.lengths) - self.lengths if offsets is None else np.asarray(offsets, dtype=np.int64)
        )
        self.num_steps, self.frameskip = int(num_steps), int(frameskip)
        self.transform, self.batch_transform = transform, batch_transform
        self._index = WindowIndex(self.lengths, self.offsets, num_steps, frameskip) if index is None else index
        self.columns = dict(columns)
        self._table: dict[str, np.ndarray] = {}  # columns in memory, over all rows
        self.column_names = list(self.columns) if keys_to_load is None else [*keys_to_load]
        for name in self.column_names:
            self._column(name)

    # -- what a format supplies ---------------------------------------------------------------------------------------

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Return rows (n,) of a stored column, in any order and with repeats, as (n, *shape); text as `str` objects.

        The result lies in `out` when it is given (contiguous, of the right shape and dtype).
        """
        raise NotImplementedError

    # -- sizes and names ----------------------------------------------------------------------------------------------

    @property
    def num_episodes(self) -> int:
        return len(self.lengths)

    @property
    def num_rows(self) -> int:
        """Rows of all episodes."""
        return int((self.offsets + self.lengths).max(initial=0))

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._index)

    @property
    def clip_indices(self) -> ClipIndices:
        """The windows as a lazy sequence of (episode, start)."""
        return ClipIndices(self._index)

    def windows_of(self, episodes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the indices of all windows of `episodes`, int64 (n,)."""
        return self._index.windows_of(episodes)

    def get_dim(self, col: str) -> int:
        """Return how many values one row of the column has; 1 for scalars and text."""
        return int(np.prod(self._column(col).shape, dtype=np.int64))

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        """Return the per-episode constants of `episodes`; empty for formats that keep none."""
        return {}

    def _column(self, name: str) -> Column:
        if name in DERIVED_COLUMNS:
            return Column(np.dtype(np.int32), (), "number")
        if name not in self.columns:
            raise MissingKeyError(f"no column {name!r}; the dataset has {sorted({*self.columns, *DERIVED_COLUMNS})}")
        return self.columns[name]

    def episode(self, index: int) -> EpisodeView:
        """Return episode `index` to be looked at: it draws itself in a notebook, and `show()` plays it."""
        from stable_worldmodel.data.notebook import EpisodeView

        self._episode_rows(index, 0, None)
        return EpisodeView(self, index)

    def _repr_html_(self) -> str:
        from stable_worldmodel.data.notebook import dataset_html

        return dataset_html(self)

    # -- windows ------------------------------------------------------------------------------------------------------

    @property
    def transforms(self) -> bool:
        """Whether items differ from what is stored: there is a `transform` or a `batch_transform`."""
        return bool(self.transform or self.batch_transform)

    def __getitem__(self, index: Any) -> Item:
        """Window `index` of an int; a batch of windows for an array or a list."""
        return self.get_batch(index) if np.ndim(index) else self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        """Windows as separate dicts whose tensors are views of one batch; `DataLoader` calls this."""
        windows = self._read_items(indices)
        return [self.transform(window) for window in windows] if self.transform else windows

    def get_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None = None) -> Item:
        """Return windows `indices` (B,) as tensors (B, T, ...) and texts as B lists of T.

        `out` is an untransformed batch of the same size from an earlier call; its tensors are filled again, which
        saves the page faults of new memory. IndexError when an index is out of range.
        """
        if self.transform and not self.batch_transform:
            return collate(self.__getitems__(indices))
        batch = self._read_batch(indices, out)
        return self.batch_transform(batch) if self.batch_transform else batch

    def with_windows(self, num_steps: int, frameskip: int = 1, *, keys_to_load: Sequence[str] | None = None) -> Dataset:
        """Return this dataset cut into other windows, with the same transforms. Nothing is read or opened again.

        `keys_to_load` defaults to the columns loaded now.
        """
        view = copy.copy(self)
        view.num_steps, view.frameskip = int(num_steps), int(frameskip)
        view._index = WindowIndex(self.lengths, self.offsets, num_steps, frameskip)
        view.columns, view._table = dict(self.columns), dict(self._table)
        view.column_names = [*(self.column_names if keys_to_load is None else keys_to_load)]
        for name in view.column_names:
            view._column(name)
        return view

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        """Return windows before `transform`, as views of one batch."""
        return split_batch(self._read_batch(indices, None), len(indices))

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None) -> Item:
        """Return windows before the transforms, (B, T, ...)."""
        return self._read_columns(self.column_names, indices, out)

    def _read_columns(self, names: Sequence[str], indices: Sequence[int] | np.ndarray, out: Item | None = None) -> Item:
        """Return windows of some columns as they are stored, (B, T, ...)."""
        rows, action_rows = self._index.rows(np.asarray(indices))
        batch = {}
        for name in names:
            wanted = action_rows if name == "action" else rows
            buffer = None if out is None else self._buffer(name, out, wanted.size)
            values = self._values(name, wanted.reshape(-1), buffer)
            batch[name] = self._as_output(name, values.reshape(*wanted.shape, *values.shape[1:]))
        return batch

    def _buffer(self, name: str, out: Item, rows: int) -> np.ndarray | None:
        """Return the memory behind a tensor of an earlier batch, as the array (rows, ...) it was made from."""
        column = self._column(name)
        if column.kind == "text":
            return None
        tensor, shape = out[name], (rows, *column.shape)
        if tensor.numel() != np.prod(shape):
            raise ContractError(f"out[{name!r}]: expected a batch of the same size, found shape {tuple(tensor.shape)}")
        return (tensor.movedim(-3, -1) if column.kind == "image" else tensor).numpy().reshape(shape)

    def _as_output(self, name: str, values: np.ndarray) -> Any:
        """Turn (B, n, ...) values of a column into what batches hold."""
        kind = self._column(name).kind
        if kind == "text":
            return values.tolist()
        tensor = _tensor(values)
        if kind == "image":
            return tensor.movedim(-1, -3)  # (B, T, C, H, W) view of (B, T, H, W, C) memory
        if name == "action":
            return tensor.reshape(len(tensor), self.num_steps, self.frameskip * self.get_dim(name))
        return tensor

    # -- rows and episodes --------------------------------------------------------------------------------------------

    def read_rows(
        self, episode: int, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return rows [start, stop) of one episode as arrays: images (rows, H, W, C), text as `str` objects.

        `columns` defaults to the loaded ones; derived columns may be named. Raises ContractError when the rows leave
        the episode.
        """
        rows = self._episode_rows(episode, start, stop)
        return {name: self._values(name, rows) for name in (self.column_names if columns is None else columns)}

    def load_episode(self, episode_idx: int, stride: int | None = None) -> Item:
        """Return an episode as tensors: observations at every `stride`-th row (default: `frameskip`), all actions."""
        rows = self._episode_rows(episode_idx, 0, None)
        strided = rows[:: self.frameskip if stride is None else stride]
        return {name: self._episode_values(name, rows if name == "action" else strided) for name in self.column_names}

    def load_chunk(
        self, episodes_idx: Sequence[int] | np.ndarray, start: int | Sequence[int], end: int | Sequence[int]
    ) -> list[Item]:
        """Return rows [start, end) of each episode as windows of (end - start) / frameskip steps.

        `start` and `end` are one int for all episodes or one per episode. Raises ContractError when a range leaves
        its episode or does not divide by `frameskip`.
        """
        episodes, starts, ends = np.broadcast_arrays(np.atleast_1d(episodes_idx), start, end)
        return [self._chunk(*map(int, bounds)) for bounds in zip(episodes, starts, ends, strict=True)]

    def _chunk(self, episode: int, start: int, end: int) -> Item:
        if (end - start) % self.frameskip:
            raise ContractError(f"rows {start}..{end}: expected a multiple of frameskip={self.frameskip}")
        rows = self._episode_rows(episode, start, end)
        chunk = {}
        for name in self.column_names:
            values = self._episode_values(name, rows if name == "action" else rows[:: self.frameskip])
            if name == "action":
                values = values.reshape(len(rows) // self.frameskip, self.frameskip * self.get_dim(name))
            chunk[name] = values
        return self.transform(chunk) if self.transform else chunk

    def _episode_values(self, name: str, rows: np.ndarray) -> Any:
        values = self._values(name, rows)
        kind = self._column(name).kind
        if kind == "text":
            return values.tolist()
        return _tensor(values).movedim(-1, -3) if kind == "image" else _tensor(values)

    def _episode_rows(self, episode: int, start: int, stop: int | None) -> np.ndarray:
        if not 0 <= episode < self.num_episodes:
            raise ContractError(f"episode {episode}: the dataset has episodes 0..{self.num_episodes - 1}")
        length = int(self.lengths[episode])
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise ContractError(f"rows {start}..{stop} of episode {episode}: expected 0 <= start <= stop <= {length}")
        return np.arange(start, stop, dtype=np.int64) + self.offsets[episode]

    def iter_episodes(self) -> Iterator[dict[str, Any]]:
        """Yield every episode as a writer takes it: column -> (rows, ...), images (rows, H, W, C).

        Its per-episode constants, if there are any, are in the dict under `_episode_data`.
        """
        columns = [name for name in self.column_names if name not in DERIVED_COLUMNS]
        for episode, length in enumerate(self.lengths.tolist()):
            rows: dict[str, Any] = self.read_rows(episode, 0, length, columns)
            if self.episode_column_names:
                constants = self.get_episode_data([episode])
                rows[EPISODE_DATA_KEY] = {name: values[0] for name, values in constants.items()}
            yield rows

    def iter_frames(self, name: str) -> Iterator[np.ndarray]:
        """Yield all rows of a column in order, in blocks (n, ...): 256 of them, or as many as take 4 MiB."""
        size = max(FRAMES_PER_BLOCK, BLOCK_BYTES // max(self._column(name).row_bytes, 1))
        for first in range(0, self.num_rows, size):
            yield self._values(name, np.arange(first, min(first + size, self.num_rows)))

    # -- columns ------------------------------------------------------------------------------------------------------

    def get_col_data(self, col: str) -> np.ndarray:
        """Return a whole column over all rows. Images may not fit into memory: ContractError names `iter_frames`."""
        if self._column(col).kind == "image":
            raise ContractError(f"column {col!r} holds images; read it in blocks with iter_frames({col!r})")
        return self._values(col, np.arange(self.num_rows))

    def get_row_data(self, row_idx: int | Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Return flat rows of every loaded column, in any order and with repeats; no leading axis for an int."""
        rows = np.atleast_1d(np.asarray(row_idx, dtype=np.int64))
        if rows.size and (rows.min() < 0 or rows.max() >= self.num_rows):
            raise ContractError(f"row index out of range: expected within [0, {self.num_rows})")
        values = {name: self._values(name, rows) for name in self.column_names}
        return values if np.ndim(row_idx) else {name: value[0] for name, value in values.items()}

    def merge_col(self, source: str | Sequence[str], target: str, dim: int = -1) -> None:
        """Add the column `target`: the columns `source` concatenated along `dim`, kept in memory.

        `source` is a list of names, or a regular expression that matches the beginning of names, in sorted order.
        Scalars count as vectors of length 1. Images and text cannot be merged (ContractError).
        """
        if isinstance(source, str):
            pattern = re.compile(source)
            candidates = self.columns.keys() - {target, *DERIVED_COLUMNS}
            names = sorted(name for name in candidates if pattern.match(name))
        else:
            names = [*source]
        if not names:
            raise ContractError(f"merge into {target!r}: no column matches {source!r}")
        if target in (*DERIVED_COLUMNS, *INDEX_COLUMNS):
            raise ContractError(f"merge into {target!r}: the name is reserved")
        wrong = [name for name in names if self._column(name).kind != "number"]
        if wrong:
            raise ContractError(f"merge into {target!r}: expected columns of numbers, {wrong} hold images or text")
        parts = [self.get_col_data(name) for name in names]
        merged = np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=dim)
        self._table[target] = merged
        self.columns[target] = Column.numeric(merged.dtype, merged.shape[1:])
        if target not in self.column_names:
            self.column_names.append(target)

    def _values(self, name: str, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return rows (n,) of any column, stored, merged or derived, as (n, ...)."""
        column = self._column(name)
        if name in DERIVED_COLUMNS and name not in self._table:
            self._table[name] = self._derive(name)
        if name in self._table:
            return np.take(self._table[name], rows, axis=0, out=out, mode="raise" if out is None else "clip")
        return self._read_rows(name, rows, None if column.kind == "text" else out)

    def _derive(self, name: str) -> np.ndarray:
        """Return a derived column over all rows; -1 for rows of no episode."""
        of_episode = self.lengths if name == "episode_len" else np.arange(self.num_episodes)
        before = np.cumsum(self.lengths) - self.lengths
        rows = np.repeat(self.offsets - before, self.lengths) + np.arange(self.lengths.sum())
        column = np.full(self.num_rows, -1, dtype=np.int32)
        column[rows] = np.repeat(of_episode, self.lengths)
        return column


def _tensor(values: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(values)


def split_batch(batch: Item, size: int) -> list[Item]:
    """Return the `size` items of a batch; their tensors are views of it."""
    return [{name: values[i] for name, values in batch.items()} for i in range(size)]


def collate(items: Sequence[Item]) -> Item:
    """Stack items key by key: numbers, arrays and tensors to tensors (B, ...); anything else stays a list."""
    import torch

    batch: Item = {}
    for key in items[0] if items else ():
        values = [item[key] for item in items]
        stackable = isinstance(values[0], (torch.Tensor, np.ndarray, np.generic, int, float))
        batch[key] = torch.stack([torch.as_tensor(value) for value in values]) if stackable else values
    return batch
