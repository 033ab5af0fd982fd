"""Dataset classes of earlier releases, as thin forms of today's readers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data.cache import PathLike
from stable_worldmodel.data.composition import ConcatDataset, WrappedDataset
from stable_worldmodel.data.dataset import Dataset, Item, Transform
from stable_worldmodel.data.goals import indexed_uniform
from stable_worldmodel.data.registry import load_dataset, locate_dataset
from stable_worldmodel.data.windows import WindowIndex
from stable_worldmodel.errors import ContractError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


class HFDataset(WrappedDataset):
    """A dataset of any format, with the attributes of the first releases.

    path: as for `load_dataset`. args: the format, where it cannot be detected. kwargs: for the reader.
    transform: maps one window in which `action` is still (T*K, A); it is reshaped to (T, K*A) afterwards.

    Raises ContractError when `step_idx` or `action` is missing or an episode has fewer than T*K rows.
    """

    def __init__(
        self,
        path: PathLike,
        *args: Any,
        num_steps: int = 1,
        frameskip: int = 1,
        cache_dir: PathLike | None = None,
        transform: Transform | None = None,
        **kwargs: Any,
    ) -> None:
        location = locate_dataset(path, cache_dir)
        dataset = load_dataset(location, cache_dir, *args, num_steps=num_steps, frameskip=frameskip, **kwargs)
        missing = [name for name in ("step_idx", "action") if name not in dataset.columns]
        if missing:
            raise ContractError(f"{location}: the columns {missing} are missing; it has {sorted(dataset.columns)}")
        span, shortest = num_steps * frameskip, int(dataset.lengths.argmin())
        if dataset.lengths[shortest] < span:
            raise ContractError(
                f"{location}: episode {shortest} has {dataset.lengths[shortest]} rows: expected at least {span}, "
                f"num_steps={num_steps} x frameskip={frameskip}"
            )
        super().__init__(dataset, transform=transform)
        self.data_dir = Path(location)

    @property
    def episodes(self) -> np.ndarray:
        """The ids of the episodes, int64 (E,)."""
        return np.arange(self.num_episodes)

    @cached_property
    def episode_slices(self) -> dict[int, np.ndarray]:
        """Episode id -> its rows, int64 (n,)."""
        return {episode: self._episode_rows(episode, 0, None) for episode in range(self.num_episodes)}

    @property
    def cum_slices(self) -> np.ndarray:
        """Number of windows before each episode, and of all, int64 (E + 1,)."""
        return np.concatenate([[0], np.cumsum(self._index.counts)])

    @property
    def idx_to_ep(self) -> np.ndarray:
        """The episode id of each window, int64 (len,)."""
        return np.repeat(self.episodes, self._index.counts)

    @property
    def img_cols(self) -> list[str]:
        """The columns of images."""
        return self.infer_img_path_columns()

    def get_episode_slice(self, episode_idx: int, episode_indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return where `episode_indices`, the episode id of every row, is `episode_idx`: int64 (n,).

        Raises ContractError when it is nowhere.
        """
        rows = np.flatnonzero(np.asarray(episode_indices) == episode_idx)
        if not rows.size:
            raise ContractError(f"no row has the episode id {episode_idx}")
        return rows

    def infer_img_path_columns(self) -> list[str]:
        """Return the columns of images: those a reader decodes, and texts that are paths of JPEG or PNG files."""
        kinds = {name: column.kind for name, column in self.columns.items()}
        first = self._values
        return [
            name
            for name, kind in kinds.items()
            if kind == "image" or (kind == "text" and first(name, np.zeros(1, np.int64))[0].endswith(IMAGE_SUFFIXES))
        ]

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        items = super()._read_items(indices)
        if self.transform:
            for item in items:
                item["action"] = item["action"].reshape(self.num_steps * self.frameskip, -1)
        return items

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        items = super().__getitems__(indices)
        for item in items:
            if "action" in item:
                item["action"] = item["action"].reshape(self.num_steps, -1)
        return items


class StepsDataset(HFDataset):
    """Windows of two steps by default; see `HFDataset`."""

    def __init__(
        self,
        path: PathLike,
        *args: Any,
        num_steps: int = 2,
        frameskip: int = 1,
        cache_dir: PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, *args, num_steps=num_steps, frameskip=frameskip, cache_dir=cache_dir, **kwargs)


class FrameDataset(WrappedDataset):
    """Windows of a dataset, or with `num_steps < 0` its whole episodes, as items of different lengths.

    decode_columns: the image columns to load; default: all. device: where the tensors go. subset_prop: share of the
    episodes to use, the first ones. Raises ContractError when no window fits, or for a share outside (0, 1].
    """

    def __init__(
        self,
        name: PathLike,
        frameskip: int = 1,
        num_steps: int = 1,
        decode_columns: Sequence[str] | None = None,
        transform: Transform | None = None,
        cache_dir: PathLike | None = None,
        device: Any = None,
        subset_prop: float = 1,
    ) -> None:
        if not 0 < subset_prop <= 1:
            raise ContractError(f"subset_prop={subset_prop}: expected within (0, 1]")
        self.whole, self.device = num_steps < 0, device
        steps = 1 if self.whole else num_steps
        dataset = load_dataset(name, cache_dir, num_steps=steps, frameskip=frameskip)
        if decode_columns is not None:
            kinds = {key: dataset.columns[key].kind for key in dataset.column_names}
            dataset.column_names = [key for key, kind in kinds.items() if kind != "image" or key in decode_columns]
        used = int(np.ceil(subset_prop * dataset.num_episodes))
        lengths = np.where(np.arange(dataset.num_episodes) < used, dataset.lengths, 0)
        super().__init__(dataset, index=WindowIndex(lengths, dataset.offsets, steps, frameskip), transform=transform)
        self._used = used

    def __len__(self) -> int:
        return self._used if self.whole else super().__len__()

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        items = self._trajectories(indices) if self.whole else super().__getitems__(indices)
        if self.device is None:
            return items
        return [{key: v.to(self.device) if hasattr(v, "to") else v for key, v in item.items()} for item in items]

    def _trajectories(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        episodes = np.arange(self._used)[np.asarray(indices)]  # IndexError, negative ones from the end
        stops = self.lengths[episodes] // self.frameskip * self.frameskip
        return self.load_chunk(episodes, 0, stops) if len(episodes) else []


class InjectedDataset(WrappedDataset):
    """The windows of `original`, some of them replaced by random windows of `external`.

    proportions: share of windows that stay, and share that is replaced; they sum to 1. seed: which ones, and by what.
    """

    def __init__(
        self, original: Dataset, external: Dataset, proportions: Sequence[float] = (0.5, 0.5), seed: int = 0
    ) -> None:
        shares = np.asarray(proportions, dtype=np.float64)
        if shares.shape != (2,) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1):
            raise ContractError(f"proportions={proportions}: expected two numbers >= 0 with sum 1")
        super().__init__(ConcatDataset([original, external]))
        self.original, self.external = original, external
        self.proportions, self.seed = tuple(shares.tolist()), int(seed)

    def __len__(self) -> int:
        return len(self.original)

    def _inner(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = self.original._index.number(*self.original._index.locate(np.asarray(indices)))
        which, where = (indexed_uniform(self.seed, 0, numbers, stream) for stream in (0, 1))
        injected = len(self.original) + (where * len(self.external)).astype(np.int64)
        return np.where(which < self.proportions[0], numbers, injected)
