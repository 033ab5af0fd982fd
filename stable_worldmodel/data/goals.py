"""Goal-conditioned windows: every window with a goal drawn from its future, from anywhere, or from the present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stable_worldmodel.data.composition import WrappedDataset
from stable_worldmodel.data.dataset import Dataset, Item
from stable_worldmodel.data.windows import WindowIndex
from stable_worldmodel.errors import ContractError

GOAL_KINDS = ("random", "geometric future", "uniform future", "current")
DEFAULT_GOAL_KEYS = {"pixels": "goal_pixels", "proprio": "goal_proprio"}

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class GoalDataset(WrappedDataset):
    """The windows of `dataset`, each with a goal: columns of one row, with a time axis of length 1.

    goal_probabilities: of the kinds of goal. `current` is row c of the window's episode; `geometric future` is row
        c + k*K with k ~ Geom(1 - gamma) from 1 on, cut at the last such row; `uniform future` has k uniform over these
        rows; `random` is any row of `episodes`.
    current_goal_offset: c is the row of this many-th observation of the window; default: the last one, `num_steps`.
    goal_keys: source column -> name of the goal; default: `pixels` as `goal_pixels` and `proprio` as `goal_proprio`,
        where the dataset has them. A column that has such a name already is replaced.
    seed: of the draws; None takes one from the operating system.
    episodes: those that random goals come from, such as one part of a split, which then never shows a frame of another
        part; default: all. Which windows there are does not depend on it.

    When a goal may lie in the future, only windows with c + K inside their episode are counted. The goal of window i
    is a function of (seed, epoch, i): it depends neither on the order of access nor on the worker that reads it. Call
    `set_epoch` for other goals, before the workers of a DataLoader start.

    Goals pass through the transforms of `dataset` as windows of one step. Raises ContractError for probabilities that
    are not four numbers >= 0 with sum 1, gamma outside [0, 1), no source column, or no window left, and for `episodes`
    that the dataset does not have or that have no row.
    """

    def __init__(
        self,
        dataset: Dataset,
        goal_probabilities: Sequence[float] = (0.3, 0.5, 0.0, 0.2),
        gamma: float = 0.99,
        current_goal_offset: int | None = None,
        goal_keys: Mapping[str, str] | None = None,
        seed: int | None = None,
        episodes: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.goal_probabilities = _check_probabilities(goal_probabilities)
        ends = np.cumsum(self.goal_probabilities)
        self._kind_ends = ends / ends[-1]  # exactly 1 from the last possible kind on
        if not 0 <= gamma < 1:
            raise ContractError(f"gamma={gamma}: expected within [0, 1)")
        self.gamma = float(gamma)
        self.current_goal_offset = dataset.num_steps if current_goal_offset is None else int(current_goal_offset)
        if self.current_goal_offset < 1:
            raise ContractError(f"current_goal_offset={current_goal_offset}: expected >= 1")
        self._drawn_from = _check_episodes(episodes, dataset)
        self._drawn_ends = np.cumsum(dataset.lengths[self._drawn_from])  # of their rows, counted over them in order
        self._arguments = (goal_probabilities, gamma, current_goal_offset, goal_keys)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self.epoch = 0
        future = self.goal_probabilities[1] + self.goal_probabilities[2] > 0
        self._ahead = (self.current_goal_offset - 1) * dataset.frameskip  # rows from the window's first to `current`
        index = WindowIndex(
            dataset.lengths,
            dataset.offsets,
            dataset.num_steps,
            dataset.frameskip,
            needed_rows=self._ahead + 1 + (dataset.frameskip if future else 0),
            check=False,
        )
        if not len(index):
            raise ContractError(
                f"no window has a goal {'in its future' if future else 'in its episode'}: the longest of "
                f"{dataset.num_episodes} episodes has {dataset.lengths.max(initial=0)} rows; use a smaller num_steps, "
                "frameskip or current_goal_offset"
            )
        super().__init__(dataset, index=index)
        self.goal_keys = self._choose_keys(goal_keys)
        self._goals = dataset.with_windows(1, 1, keys_to_load=None if dataset.transforms else [*self.goal_keys])

    def _choose_keys(self, goal_keys: Mapping[str, str] | None) -> dict[str, str]:
        if goal_keys is None:
            goal_keys = {key: name for key, name in DEFAULT_GOAL_KEYS.items() if key in self.column_names}
        if not goal_keys:
            raise ContractError(f"goal_keys is empty: expected columns of {self.column_names}")
        for key in goal_keys:
            self._column(key)  # MissingKeyError
        return dict(goal_keys)

    @property
    def transforms(self) -> bool:
        return True

    def set_epoch(self, epoch: int) -> None:
        """Draw the goals of epoch `epoch` from now on."""
        self.epoch = int(epoch)

    def with_windows(self, num_steps: int, frameskip: int = 1, *, keys_to_load: Sequence[str] | None = None) -> Dataset:
        inner = self.dataset.with_windows(num_steps, frameskip, keys_to_load=keys_to_load)
        view = GoalDataset(inner, *self._arguments, seed=self.seed, episodes=self._drawn_from)
        view.transform, view.batch_transform, view.epoch = self.transform, self.batch_transform, self.epoch
        return view

    def sample_goals(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the episode and the row within it of the goals of windows `indices` (B,), both int64 (B,)."""
        episode, row = self._goals._index.locate(self._draw(np.asarray(indices)))
        return episode, row

    def _draw(self, indices: np.ndarray) -> np.ndarray:
        """Return the goals of windows `indices` as row numbers, counted over all episodes in order."""
        episode, start = self._index.locate(indices)
        number = self._index.number(episode, start)  # negative indices count from the end
        which, where = (indexed_uniform(self.seed, self.epoch, number, stream) for stream in (0, 1))
        current = start + self._ahead
        last = np.maximum((self.lengths[episode] - 1 - current) // self.frameskip, 0)  # steps that the future has
        kind = np.searchsorted(self._kind_ends, which, side="right")
        geometric = np.ones_like(where)
        if self.gamma:
            geometric = 1 + np.floor(np.log1p(-where) / np.log(self.gamma))
        steps = np.select([kind == 1, kind == 2], [np.minimum(geometric, last), 1 + np.floor(where * last)], 0)
        rows = self._goals._index.number(episode, current + steps.astype(np.int64) * self.frameskip)
        return np.where(kind == 0, self._random_rows(where), rows)

    def _random_rows(self, where: np.ndarray) -> np.ndarray:
        """Return row numbers, as `_draw` does, for uniform numbers `where` in [0, 1)."""
        drawn = (where * self._drawn_ends[-1]).astype(np.int64)
        place = np.searchsorted(self._drawn_ends, drawn, side="right")
        episode = self._drawn_from[place]
        return self._goals._index.number(episode, drawn - (self._drawn_ends[place] - self.lengths[episode]))

    def _read_items(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        goals = self._goals.__getitems__(self._draw(np.asarray(indices)))
        items = super()._read_items(indices)
        return [{**item, **self._renamed(goal)} for item, goal in zip(items, goals, strict=True)]

    def _read_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None) -> Item:
        if self.dataset.transforms:
            out = None
        reused = None if out is None else {key: out[name] for key, name in self.goal_keys.items()}
        goals = self._goals.get_batch(self._draw(np.asarray(indices)), reused)
        return {**super()._read_batch(indices, out), **self._renamed(goals)}

    def _renamed(self, goals: Item) -> Item:
        if lost := self.goal_keys.keys() - goals.keys():
            raise ContractError(f"goals are made of {sorted(lost)}, which the transform of the dataset removes")
        return {name: goals[key] for key, name in self.goal_keys.items()}


def indexed_uniform(seed: int, epoch: int, numbers: np.ndarray, stream: int = 0) -> np.ndarray:
    """Return a uniform number in [0, 1) for each of `numbers`, float64: a function of all arguments, and of one entry.

    SplitMix64 (Steele, Lea, Flood 2014) with random access, two streams per (seed, epoch).
    """
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    with np.errstate(over="ignore"):
        z = key + (2 * numbers.astype(np.uint64) + np.uint64(stream + 1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX[0]
        z = (z ^ (z >> np.uint64(27))) * _MIX[1]
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


def _check_probabilities(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(GOAL_KINDS),) or not (array >= 0).all() or not np.isclose(array.sum(), 1):
        raise ContractError(f"goal_probabilities={values}: expected four numbers >= 0 with sum 1, for {GOAL_KINDS}")
    return array


def _check_episodes(episodes: Sequence[int] | np.ndarray | None, dataset: Dataset) -> np.ndarray:
    """Return the episodes of random goals, int64."""
    if episodes is None:
        return np.arange(dataset.num_episodes)
    chosen = np.asarray(episodes, dtype=np.int64).reshape(-1)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= dataset.num_episodes):
        raise ContractError(f"episodes {chosen.min()}..{chosen.max()}: expected within [0, {dataset.num_episodes})")
    if not dataset.lengths[chosen].sum():
        raise ContractError(f"the {len(chosen)} episodes for random goals have no row: expected at least one")
    return chosen
