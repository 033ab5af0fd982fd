"""Index arithmetic of windows: which rows of a dataset make up window i.

A window covers `num_steps * frameskip` consecutive rows (its span) of one episode. Observations are read at every
`frameskip`-th row, actions at all of them. Windows are numbered episode by episode, by ascending start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError

logger = logging.getLogger(__name__)


class WindowIndex:
    """Maps window numbers to (episode, start) and to dataset rows, for whole arrays at once.

    `lengths` and `offsets` (E,) give the rows of each episode and its first row. Episodes shorter than the span have
    no window: one warning tells how many, ContractError when no window is left at all. `check=False` leaves out both.

    needed_rows: rows of its episode that there must be from a window's first row on, where that is more than the span.
    to_end: windows may also end within the actions that follow their last observation, at the latest where that is the
        last row of the episode. What is missing of these actions repeats the last row, whose action is a filler.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        offsets: np.ndarray,
        num_steps: int = 1,
        frameskip: int = 1,
        *,
        needed_rows: int = 0,
        to_end: bool = False,
        check: bool = True,
    ) -> None:
        if num_steps < 1 or frameskip < 1:
            raise ContractError(f"num_steps={num_steps}, frameskip={frameskip}: expected both >= 1")
        self.num_steps = int(num_steps)
        self.frameskip = int(frameskip)
        self.span = self.num_steps * self.frameskip
        self._offsets = np.asarray(offsets, dtype=np.int64)
        self._last_rows = self._offsets + np.asarray(lengths, dtype=np.int64) - 1 if to_end else None  # (E,)
        self._needed = max(self.span - self.frameskip + 1 if to_end else self.span, int(needed_rows))
        self._counts = np.maximum(np.asarray(lengths, dtype=np.int64) - self._needed + 1, 0)  # (E,)
        self._ends = np.cumsum(self._counts)  # (E,)
        if check:
            self._check_lengths(np.asarray(lengths))

    @classmethod
    def concatenate(cls, parts: Sequence[WindowIndex], first_rows: Sequence[int] | np.ndarray) -> WindowIndex:
        """Return the windows of `parts`, one after another, the rows of each shifted by its entry in `first_rows`."""
        joined = cls(np.empty(0), np.empty(0), parts[0].num_steps, parts[0].frameskip, check=False)
        joined._offsets = np.concatenate([part._offsets + row for part, row in zip(parts, first_rows, strict=True)])
        joined._counts = np.concatenate([part._counts for part in parts])
        joined._ends = np.cumsum(joined._counts)
        if all(part._last_rows is not None for part in parts):
            joined._last_rows = np.concatenate([p._last_rows + row for p, row in zip(parts, first_rows, strict=True)])
        return joined

    @property
    def counts(self) -> np.ndarray:
        """Windows of each episode, (E,) int64."""
        return self._counts

    def _check_lengths(self, lengths: np.ndarray) -> None:
        short = int(np.count_nonzero(self._counts == 0))
        if not len(self):
            longest = int(lengths.max(initial=0))
            raise ContractError(
                f"no window of {self._needed} rows (num_steps={self.num_steps} x frameskip={self.frameskip}) fits: "
                f"the longest of {len(lengths)} episodes has {longest} rows; use a smaller num_steps or frameskip"
            )
        if short:
            logger.warning(
                "%d of %d episodes are shorter than %d rows and give no window", short, len(lengths), self._needed
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the episode and the first row within it, both int64 shaped like `windows`.

        Negative numbers count from the end; IndexError when one is out of range, ContractError for other types.
        """
        windows = np.asarray(windows)
        if windows.size and windows.dtype.kind not in "iu":
            raise ContractError(f"window indices: expected integers, found {windows.dtype.name}")
        windows = windows.astype(np.int64)
        windows = np.where(windows < 0, windows + len(self), windows)
        if windows.size and (windows.min() < 0 or windows.max() >= len(self)):
            raise IndexError(f"window index out of range: expected within [{-len(self)}, {len(self)})")
        episode = np.searchsorted(self._ends, windows, side="right")
        return episode, windows - (self._ends - self._counts)[episode]

    def rows(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the dataset rows of the observations (B, T) and of the actions (B, T*K), int64."""
        episode, start = self.locate(windows)
        first = (self._offsets[episode] + start)[:, None]
        actions = first + np.arange(self.span)
        if self._last_rows is not None:
            actions = np.minimum(actions, self._last_rows[episode][:, None])
        return first + np.arange(0, self.span, self.frameskip), actions

    def number(self, episodes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the window that begins at row `starts` of `episodes`, int64: what `locate` undoes. Not checked."""
        return (self._ends - self._counts)[episodes] + starts

    def windows_of(self, episodes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the numbers of all windows of `episodes`, in the given order, int64 (n,)."""
        episodes = np.asarray(episodes, dtype=np.int64).reshape(-1)
        if episodes.size and (episodes.min() < 0 or episodes.max() >= len(self._counts)):
            raise IndexError(f"episode index out of range: expected within [0, {len(self._counts)})")
        counts = self._counts[episodes]
        firsts = self._ends[episodes] - counts
        before = np.cumsum(counts) - counts
        return np.repeat(firsts - before, counts) + np.arange(counts.sum())


class ClipIndices(Sequence[tuple[int, int]]):
    """Read-only view of all windows as (episode, start) pairs; nothing is stored per window."""

    def __init__(self, index: WindowIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        episode, start = self._index.locate(np.asarray(i))
        return int(episode), int(start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return (self[i] for i in range(len(self)))
