"""Datasets made of datasets: one after another (`ConcatDataset`) or side by side (`MergeDataset`).

They are datasets like any other. While no member has a transform, a batch is one gather per column and member.
Otherwise every member makes its own windows, with its own transform, and these are put together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stable_worldmodel.data.columns import DERIVED_COLUMNS, Column
from stable_worldmodel.data.dataset import Dataset, Item, Transform, split_batch
from stable_worldmodel.data.windows import WindowIndex
from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    import torch


class WrappedDataset(Dataset):
    """Everything of `dataset`, for a subclass to change a part of. Its transforms stay, further ones come on top."""

    def __init__(
        self, dataset: Dataset, *, index: WindowIndex | None = None, transform: Transform | None = None
    ) -> None:
        check_datasets([dataset])
        self.dataset = dataset
        super().__init__(
            dataset.lengths,
            dataset.offsets,
            dataset.frameskip,
            dataset.num_steps,
            transform,
            columns=dataset.columns,
            keys_to_load=dataset.column_names,
            index=dataset._index if index is None else index,
        )
        self.metadata = dataset.metadata
        self.episode_column_names = dataset.episode_column_names

    @property
    def transforms(self) -> bool:
        return super().transforms or self.dataset.transforms

    def with_windows(self, num_steps: int, frameskip: int = 1, *, keys_to_load: Sequence[str] | None = None) -> Dataset:
        view = cast(WrappedDataset, super().with_windows(num_steps, frameskip, keys_to_load=keys_to_load))
        view.dataset = self.dataset.with_windows(num_steps, frameskip, keys_to_load=keys_to_load)
        return view

    def merge_col(self, source: str | Sequence[str], target: str, dim: int = -1) -> None:
        self.dataset.merge_col(source, target, dim)
        self.columns, self.column_names = dict(self.dataset.columns), [*self.dataset.column_names]

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        return self.dataset.get_episode_data(episodes)

    def _inner(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return which windows of the wrapped dataset the windows `indices` are."""
        return self.dataset._index.number(*self._index.locate(np.asarray(indices)))

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        return self.dataset.__getitems__(self._inner(indices))

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None) -> Item:
        return self.dataset.get_batch(self._inner(indices), out)

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        return self.dataset._values(name, rows, out)

    def _chunk(self, episode: int, start: int, end: int) -> Item:
        chunk = self.dataset._chunk(episode, start, end)
        return self.transform(chunk) if self.transform else chunk


class _Composite(Dataset):
    """What concatenation and merge share: members, and the question whether these must make the windows themselves."""

    datasets: list[Dataset]

    @property
    def transforms(self) -> bool:
        return super().transforms or self._members_transform

    @property
    def _members_transform(self) -> bool:
        return any(member.transforms for member in self.datasets)

    def _name_episode_columns(self) -> list[str]:
        return list(dict.fromkeys(name for member in self.datasets for name in member.episode_column_names))


class ConcatDataset(_Composite):
    """The windows, episodes and rows of several datasets, one dataset after another.

    The datasets have the same `num_steps` and `frameskip`, and load the same columns with equal dtypes and shapes;
    where one has a transform, that may make them equal instead. Per-episode constants that a dataset lacks are None.
    Raises ContractError naming the first difference, and for an empty list.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = [*datasets]
        first = check_datasets(self.datasets)
        columns = _common_columns(self.datasets, strict=not self._members_transform)
        rows = np.array([member.num_rows for member in self.datasets])
        self._row_ends = np.cumsum(rows)
        self._episode_ends = np.cumsum([member.num_episodes for member in self.datasets])
        bases = self._row_ends - rows
        super().__init__(
            np.concatenate([member.lengths for member in self.datasets]),
            np.concatenate([member.offsets + base for member, base in zip(self.datasets, bases, strict=True)]),
            first.frameskip,
            first.num_steps,
            columns=columns,
            keys_to_load=[name for name in first.column_names if name in columns or name in DERIVED_COLUMNS],
            index=WindowIndex.concatenate([member._index for member in self.datasets], bases),
        )
        self.metadata = common_items([member.metadata for member in self.datasets])
        self.episode_column_names = self._name_episode_columns()

    def with_windows(self, num_steps: int, frameskip: int = 1, *, keys_to_load: Sequence[str] | None = None) -> Dataset:
        parts = [member.with_windows(num_steps, frameskip, keys_to_load=keys_to_load) for member in self.datasets]
        view = ConcatDataset(parts)
        view.transform, view.batch_transform = self.transform, self.batch_transform
        return view

    def merge_col(self, source: str | Sequence[str], target: str, dim: int = -1) -> None:
        for member in self.datasets:
            member.merge_col(source, target, dim)
        self.columns[target] = self.datasets[0].columns[target]
        if target not in self.column_names:
            self.column_names.append(target)

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        """Return the per-episode constants of `episodes` in that order; None where a dataset lacks one."""
        numbers = np.arange(self.num_episodes) if episodes is None else np.asarray(episodes, dtype=np.int64)
        found: dict[str, list[Any]] = {name: [None] * len(numbers) for name in self.episode_column_names}
        for member, at, local in _by_member(numbers, self._episode_ends):
            for name, values in self.datasets[member].get_episode_data(local.tolist()).items():
                for position, value in zip(at.tolist(), values, strict=True):
                    found[name][position] = value
        return found

    def _windows_by_member(
        self, indices: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[Dataset, np.ndarray, np.ndarray]]:
        """Yield each dataset concerned, the positions in `indices` that it fills, and which of its windows go there."""
        episodes, starts = self._index.locate(np.asarray(indices))
        for member, at, local in _by_member(episodes, self._episode_ends):
            dataset = self.datasets[member]
            yield dataset, at, dataset._index.number(local, starts[at])

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        if not self._members_transform:
            return super()._read_items(indices)
        items: list[Item] = [{} for _ in indices]
        for dataset, at, windows in self._windows_by_member(indices):
            for position, item in zip(at.tolist(), dataset.__getitems__(windows), strict=True):
                items[position] = item
        return items

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None) -> Item:
        if not self._members_transform or not len(indices):
            return super()._read_batch(indices, out)
        parts = [(at, dataset.get_batch(windows)) for dataset, at, windows in self._windows_by_member(indices)]
        return _interleave(parts, len(indices))

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        parts = [*_by_member(rows, self._row_ends)]
        if len(parts) < 2:
            member, _, local = parts[0] if parts else (0, rows, rows)
            return self.datasets[member]._values(name, local, out)
        column = self.columns[name]
        if out is None:
            out = np.empty((len(rows), *column.shape), column.dtype)
        for member, at, local in parts:
            out[at] = self.datasets[member]._values(name, local)
        return out

    def _chunk(self, episode: int, start: int, end: int) -> Item:
        ((member, _, local),) = _by_member(np.array([episode]), self._episode_ends)
        chunk = self.datasets[member]._chunk(int(local[0]), start, end)
        return self.transform(chunk) if self.transform else chunk


class MergeDataset(_Composite):
    """The columns of several datasets over the same episodes, as one dataset.

    keys_from_dataset: per dataset the columns to take from it, None for all it loads. A column that several offer
        comes from the first of them.

    The datasets have equal lengths, windows, `num_steps` and `frameskip`; their rows may lie in different order.
    Metadata and per-episode constants of earlier datasets win too. Raises ContractError naming the first difference,
    and for an empty list; MissingKeyError for an unknown column.
    """

    def __init__(
        self, datasets: Sequence[Dataset], keys_from_dataset: Sequence[Sequence[str] | None] | None = None
    ) -> None:
        self.datasets = [*datasets]
        first = check_datasets(self.datasets)
        keys = keys_from_dataset or [None] * len(self.datasets)
        if len(keys) != len(self.datasets):
            raise ContractError(f"keys_from_dataset has {len(keys)} entries: expected one per dataset, {len(datasets)}")
        self._source: dict[str, int] = {}  # column -> the member it comes from
        for i, (member, chosen) in enumerate(zip(self.datasets, keys, strict=True)):
            _check_equal(f"dataset {i}: rows of its episodes", first.lengths, member.lengths)
            _check_equal(f"dataset {i}: windows of its episodes", first._index.counts, member._index.counts)
            for name in member.column_names if chosen is None else chosen:
                member._column(name)  # MissingKeyError
                self._source.setdefault(name, i)
        stored = {name: i for name, i in self._source.items() if name not in DERIVED_COLUMNS}
        super().__init__(
            first.lengths,
            first.offsets,
            first.frameskip,
            first.num_steps,
            columns={name: self.datasets[i].columns[name] for name, i in stored.items()},
            keys_to_load=[*self._source],
            index=first._index,
        )
        self.metadata = _first_wins([dict(member.metadata) for member in self.datasets])
        self.episode_column_names = self._name_episode_columns()

    def with_windows(self, num_steps: int, frameskip: int = 1, *, keys_to_load: Sequence[str] | None = None) -> Dataset:
        view = cast(MergeDataset, super().with_windows(num_steps, frameskip, keys_to_load=keys_to_load))
        view.datasets = [member.with_windows(num_steps, frameskip) for member in self.datasets]
        return view

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        return _first_wins([member.get_episode_data(episodes) for member in self.datasets])

    def _taken(self, i: int, item: Item) -> Item:
        """Return what member `i` contributes of its item or batch: the columns taken, and what its transform added."""
        stored = self.datasets[i].column_names
        return {
            name: value
            for name, value in item.items()
            if name not in stored or (self._source.get(name) == i and name in self.column_names)
        }

    def _read_own(self, indices: Sequence[int] | np.ndarray) -> Item:
        """Return the columns that no member has: merged here."""
        return self._read_columns([name for name in self.column_names if name not in self._source], indices)

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        if not self._members_transform:
            return super()._read_items(indices)
        parts = [
            [self._taken(i, item) for item in member.__getitems__(indices)] for i, member in enumerate(self.datasets)
        ]
        parts.append(split_batch(self._read_own(indices), len(indices)))
        return [_first_wins(items) for items in zip(*parts, strict=True)]

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None) -> Item:
        if not self._members_transform:
            return super()._read_batch(indices, out)
        parts = [self._taken(i, member.get_batch(indices)) for i, member in enumerate(self.datasets)]
        return _first_wins([*parts, self._read_own(indices)])

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        member = self.datasets[self._source[name]]
        if not np.array_equal(member.offsets, self.offsets):
            order = np.argsort(self.offsets, kind="stable")
            episode = order[np.searchsorted(self.offsets[order], rows, side="right") - 1]
            rows = rows + (member.offsets - self.offsets)[episode]
        return member._values(name, rows, out)

    def _chunk(self, episode: int, start: int, end: int) -> Item:
        if not self._members_transform:
            return super()._chunk(episode, start, end)
        parts = [self._taken(i, member._chunk(episode, start, end)) for i, member in enumerate(self.datasets)]
        chunk = _first_wins(parts)
        return self.transform(chunk) if self.transform else chunk


def check_datasets(datasets: Sequence[Any]) -> Dataset:
    """Return the first of `datasets`.

    Raises ContractError when there is none or they differ in `num_steps` or `frameskip`, TypeError when one is not a
    Dataset.
    """
    if not datasets:
        raise ContractError("no dataset given: expected at least one")
    for i, dataset in enumerate(datasets):
        if not isinstance(dataset, Dataset):
            raise TypeError(f"dataset {i} is a {type(dataset).__name__}: expected what load_dataset returns")
        for key in ("num_steps", "frameskip"):
            mine, theirs = getattr(datasets[0], key), getattr(dataset, key)
            if mine != theirs:
                raise ContractError(f"dataset {i}: {key}={theirs}, but dataset 0 has {key}={mine}")
    return datasets[0]


def column_differences(expected: Mapping[str, Column], found: Mapping[str, Column]) -> list[str]:
    """Return one line for every column that is missing, unknown, or of another dtype or shape, sorted by name."""
    faults = []
    for name in sorted(expected.keys() | found.keys()):
        a, b = expected.get(name), found.get(name)
        if b is None:
            faults.append(f"{name}: missing")
        elif a is None:
            faults.append(f"{name}: only here")
        elif a != b:
            faults.append(f"{name}: expected {a.type_name} {a.shape} per row, found {b.type_name} {b.shape}")
    return faults


def common_items(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries that are equal in all `mappings`."""
    first, *rest = mappings
    return {key: value for key, value in first.items() if all(key in m and m[key] == value for m in rest)}


def _common_columns(datasets: Sequence[Dataset], strict: bool) -> dict[str, Column]:
    """Return the columns that all `datasets` have alike. `strict`: those they load must be."""
    loaded = [{name: member._column(name) for name in member.column_names} for member in datasets]
    for i, columns in enumerate(loaded):
        faults = column_differences(loaded[0], columns)
        if strict and faults:
            raise ContractError(f"dataset {i} does not match dataset 0:\n  " + "\n  ".join(faults))
    return common_items([member.columns for member in datasets])


def _by_member(values: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Split rows or episodes of a concatenation by member: yield it, the positions in `values`, its own numbers."""
    if values.size and (values.min() < 0 or values.max() >= ends[-1]):
        raise ContractError(f"{values.min()}..{values.max()} out of range: expected within [0, {ends[-1]})")
    member = np.searchsorted(ends, values, side="right")
    for i in np.unique(member).tolist():
        at = np.flatnonzero(member == i)
        yield i, at, values[at] - (ends[i - 1] if i else 0)


def _interleave(parts: Sequence[tuple[np.ndarray, Item]], size: int) -> Item:
    """Join batches of members: `parts` holds the positions of each in the whole batch of `size`, and the batch."""
    import torch

    first = parts[0][1]
    whole: Item = {}
    for _, part in parts:
        if part.keys() != first.keys():
            raise ContractError(f"the transforms of the datasets give different keys: {[*first]} and {[*part]}")
    for key, like in first.items():
        tensor = isinstance(like, torch.Tensor)
        whole[key] = _empty_batch(like, size) if tensor else [None] * size
        for at, part in parts:
            if tensor and part[key].shape[1:] != like.shape[1:]:
                found = tuple(part[key].shape[1:])
                raise ContractError(
                    f"{key}: items have shape {tuple(like.shape[1:])} in one dataset, {found} in another"
                )
            if tensor:
                whole[key][torch.from_numpy(at)] = part[key]
            else:
                for position, value in zip(at.tolist(), part[key], strict=True):
                    whole[key][position] = value
    return whole


def _empty_batch(like: torch.Tensor, size: int) -> torch.Tensor:
    """Return memory for `size` items shaped and laid out like those of `like`: images stay channels-last in memory."""
    strides = like.stride()
    order = sorted(range(1, like.ndim), key=lambda axis: -strides[axis])
    memory = like.new_empty(size, *(like.shape[axis] for axis in order))
    return memory.permute(0, *(1 + order.index(axis) for axis in range(1, like.ndim)))


def _first_wins(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join mappings; of a key that several have, the first value stays."""
    joined: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            joined.setdefault(key, value)
    return joined


def _check_equal(what: str, expected: np.ndarray, found: np.ndarray) -> None:
    if len(expected) != len(found):
        raise ContractError(f"{what}: expected {len(expected)} episodes as in dataset 0, found {len(found)}")
    if (wrong := np.flatnonzero(expected != found)).size:
        i = wrong[0]
        raise ContractError(f"{what}: episode {i} has {found[i]}, in dataset 0 it has {expected[i]}")
