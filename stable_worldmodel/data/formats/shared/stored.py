"""A dataset whose numbers and texts are in memory and whose images are decoded from files when they are asked for.

What lies where on the disk is known by a `Layout`; all formats that have one are read by `StoredDataset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from stable_worldmodel.data.cache import dataset_path
from stable_worldmodel.data.columns import DERIVED_COLUMNS, Column
from stable_worldmodel.data.dataset import Dataset, Transform
from stable_worldmodel.data.formats.shared.frames import Frames
from stable_worldmodel.data.frame_cache import FrameCache
from stable_worldmodel.data.memory import available_memory
from stable_worldmodel.data.registry import PathLike
from stable_worldmodel.errors import ContractError

CacheMode = Literal["auto", "none", "decoded"]


@dataclass(frozen=True)
class RowIndex:
    """Episodes by their rows. `lengths`, `offsets`: (E,) int64; offsets need not ascend."""

    lengths: np.ndarray
    offsets: np.ndarray
    _order: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", np.argsort(self.offsets, kind="stable"))

    @property
    def num_rows(self) -> int:
        return int((self.offsets + self.lengths).max(initial=0))

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the episode of each of `rows` (n,) and its place in it."""
        place = np.searchsorted(self.offsets[self._order], rows, side="right") - 1
        episode = self._order[place]
        return episode, rows - self.offsets[episode]

    def describe(self, row: int) -> str:
        """Say where a row belongs."""
        episode, step = self.locate(np.array([row]))
        return f"episode {episode[0]}, row {step[0]}"

    def rows_of(self, episode: int) -> np.ndarray:
        """Return the rows of an episode, in order."""
        return np.arange(self.lengths[episode], dtype=np.int64) + self.offsets[episode]


class Layout(Protocol):
    """What was found at a path: the episodes complete at that moment, and where their columns are."""

    index: RowIndex
    columns: dict[str, Column]  # all of them
    frames: dict[str, Frames]  # those that are decoded when asked for
    metadata: Mapping[str, Any]

    def load(self, name: str) -> np.ndarray:
        """Return one of the other columns over all rows; text as `str` objects. ContractError when it is damaged."""
        ...


class StoredDataset(Dataset):
    """Reads a `Layout`.

    keys_to_cache: image columns to hold decoded in memory in any case; numbers and text are in memory anyway.
    keys_to_merge: target -> names or regular expression, see `merge_col`.
    cache: `decoded` holds all images in memory, filled as they are read (ContractError when they take more than half
        of what is free); `none` decodes them each time; `auto` caches them if they fit.
    The other arguments are those of `Dataset`.
    """

    def __init__(
        self,
        layout: Layout,
        frameskip: int = 1,
        num_steps: int = 1,
        transform: Transform | None = None,
        keys_to_load: Sequence[str] | None = None,
        keys_to_cache: Sequence[str] | None = None,
        keys_to_merge: Mapping[str, str | Sequence[str]] | None = None,
        *,
        cache: CacheMode = "auto",
        batch_transform: Transform | None = None,
    ) -> None:
        if cache not in ("auto", "none", "decoded"):
            raise ContractError(f"cache={cache!r}: expected 'auto', 'none' or 'decoded'")
        super().__init__(
            layout.index.lengths,
            layout.index.offsets,
            frameskip,
            num_steps,
            transform,
            columns=layout.columns,
            batch_transform=batch_transform,
            keys_to_load=keys_to_load,
        )
        self.metadata = layout.metadata
        self._layout = layout
        for name in self.column_names:
            if name not in layout.frames and name not in DERIVED_COLUMNS:
                self._table[name] = layout.load(name)
        self._caches = self._make_caches(cache, keys_to_cache or ())
        for target, source in (keys_to_merge or {}).items():
            self.merge_col(source, target)

    def _make_caches(self, cache: CacheMode, keys_to_cache: Sequence[str]) -> dict[str, FrameCache]:
        for name in keys_to_cache:
            self._column(name)
        images = [name for name in self._layout.frames if name in self.column_names or name in keys_to_cache]
        wanted = images if cache == "decoded" else [name for name in images if name in keys_to_cache]
        limit = available_memory() // 2
        needed = self._decoded_bytes(wanted)
        if needed > limit:
            raise ContractError(
                f"caching {wanted} takes {needed >> 20} MiB, {limit >> 20} MiB are allowed; use cache='none'"
            )
        if cache == "auto" and self._decoded_bytes(images) <= limit:
            wanted = images
        blocks = {name: self._layout.frames[name].block for name in wanted}
        return {name: FrameCache(self.columns[name], self.num_rows, blocks[name]) for name in wanted}

    def _decoded_bytes(self, names: Sequence[str]) -> int:
        return sum(self.columns[name].row_bytes for name in names) * self.num_rows

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if name not in self._layout.frames:
            self._table[name] = self._layout.load(name)
            return self._values(name, rows, out)
        frames = self._layout.frames[name]
        if name in self._caches:
            return self._caches[name].read(rows, lambda rows: frames.read(rows, None), out)
        return frames.read(rows, out)


def location(name: str | None, path: PathLike | None, cache_dir: PathLike | None, kind: str) -> Path:
    """Return where a reader looks: `path`, or what `name` means. TypeError without both."""
    if name is None and path is None:
        raise TypeError(f"{kind} needs `name` or `path`")
    found = dataset_path(name or "", cache_dir) if path is None else Path(path)
    return found.expanduser().resolve()
