"""The replay buffer: the latest episodes in memory, written and sampled at the same time.

Every column is one ring of `max_steps` rows, allocated with the first episode. Rows are numbered in the order in which
they were written and never renumbered, and row r lies in slot r % max_steps; so a batch is one gather per column.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.data.columns import EPISODE_DATA_KEY, Column
from stable_worldmodel.data.dataset import Dataset, Item, Transform, collate
from stable_worldmodel.data.episode import prepare_episode
from stable_worldmodel.data.registry import PathLike, load_dataset, open_writer, warn_if_dropped
from stable_worldmodel.data.windows import ClipIndices, WindowIndex
from stable_worldmodel.errors import ContractError

Episode = Mapping[str, Any]
OPTIMISTIC_TRIES = 3  # of `sample`, before writers have to wait

Sampler = Callable[[int, "ReplayBuffer", int, int], np.ndarray]


def classic_filter(name: str) -> bool:
    """Whether `name` is one of the columns of a classic replay buffer, for `ReplayBuffer(key_filter=...)`."""
    return name in ("pixels", "action", "reward", "terminated", "truncated")


def _reader(name: str) -> Any:
    """Return the method `name` of `Dataset` over what the buffer holds at the moment of the call."""

    def method(self: ReplayBuffer, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return getattr(self._content(), name)(*args, **kwargs)

    method.__name__, method.__doc__ = name, getattr(Dataset, name).__doc__
    return method


class ReplayBuffer:
    """The latest episodes, at most `max_steps` rows of them: a writer, a source of random batches, and a dataset.

    max_steps: rows of each ring. The oldest whole episodes go when a new one needs their room.
    history_len, frameskip: T observations per window, K rows apart; windows never leave their episode.
    sampler: called as `sampler(step, buffer, batch_size, history_len)`, returns the windows of a batch, integers (B,).
        Default: uniform over all windows.
    transform: maps one window's dict to what `buffer[i]` returns; `sample` leaves it out.
    key_filter: which columns to keep: names, or a function of a name, such as `classic_filter`.
    seed: of the default sampler; None takes one from the operating system.

    All methods may be called from several threads. `sample` holds the lock only to choose rows: it copies them without,
    and chooses again when a writer took some of them meanwhile, so what it returns is never torn. The workers of a
    DataLoader must be started while no thread writes; they see what the buffer holds then.
    """

    def __init__(
        self,
        max_steps: int,
        history_len: int = 1,
        frameskip: int = 1,
        sampler: Sampler | None = None,
        transform: Transform | None = None,
        key_filter: Callable[[str], bool] | Iterable[str] | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        for name, value in (("max_steps", max_steps), ("history_len", history_len), ("frameskip", frameskip)):
            if value < 1:
                raise ContractError(f"{name}={value}: expected >= 1")
        self.max_steps, self.history_len, self.frameskip = int(max_steps), int(history_len), int(frameskip)
        self.sampler, self.transform = sampler, transform
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._keep = key_filter if key_filter is None or callable(key_filter) else frozenset(key_filter).__contains__
        self._lock = threading.RLock()
        self._filling = threading.Lock()  # one writer at a time; readers never wait for it
        self._rings: dict[str, np.ndarray] = {}
        self._columns: dict[str, Column] = {}
        self._head = 0  # rows ever written
        self._evicted = 0  # episodes ever dropped
        self._lengths = np.zeros(0, np.int64)  # of the episodes stored, oldest first; never changed in place
        self._constants: list[dict[str, Any]] = []  # per-episode ones
        self._step = 0
        self._indices: dict[int, WindowIndex] = {}  # history -> the windows of the present content
        self._view: Dataset | None = None
        self._warned: set[str] = set()

    # -- writing ------------------------------------------------------------------------------------------------------

    def write_episode(self, ep_data: Episode) -> None:
        """Copy an episode into the rings. Nothing happens for an empty dict and for one without rows.

        Values are cast to the dtypes of the first episode. Raises ContractError, and changes nothing, when columns are
        missing, unknown, of another shape or of values that cannot be cast, and when it has more than `max_steps` rows.
        """
        constants = dict(ep_data.get(EPISODE_DATA_KEY) or {})
        kept = {
            key: values
            for key, values in ep_data.items()
            if key != EPISODE_DATA_KEY and (self._keep is None or self._keep(key))
        }
        if all(hasattr(values, "__len__") and not len(values) for values in kept.values()):
            return
        columns = prepare_episode(kept, self._warned)
        rows = len(next(iter(columns.values())))
        if rows > self.max_steps:
            raise ContractError(f"an episode of {rows} rows does not fit into max_steps={self.max_steps}")
        with self._filling:
            if not self._rings:
                self._allocate(columns)
            columns = self._cast(columns)
            with self._lock:
                self._evict(self.max_steps - rows)
            # No window covers these slots now, so they are filled without the lock.
            slots = np.arange(self._head, self._head + rows) % self.max_steps
            for name, values in columns.items():
                self._rings[name][slots] = values
            with self._lock:
                self._head += rows
                self._lengths = np.append(self._lengths, rows)
                self._constants.append(constants)
                self._forget_views()

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        """Write the episodes one by one, as they come."""
        for episode in episodes:
            self.write_episode(episode)

    def load(self, name: PathLike, format: str | None = None, cache_dir: PathLike | None = None) -> None:
        """Write all episodes of a dataset, see `load_dataset`."""
        self.write_episodes(load_dataset(name, cache_dir, format).iter_episodes())

    def dump(self, path: PathLike, format: str | None = None, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write the episodes to a dataset, see `open_writer`. Size, transform and state of the draws are not stored.

        Per-episode constants are dropped with a warning where the format has no place for them. Raises ContractError
        when the buffer is empty.
        """
        if not self.num_episodes:
            raise ContractError(f"{path}: the buffer is empty, there is nothing to dump")
        warn_if_dropped(self.episode_column_names, path, format)
        with open_writer(path, format, mode, **kwargs) as writer:
            writer.write_episodes(self.episodes())

    def clear(self) -> None:
        """Forget all episodes. The memory stays allocated."""
        with self._filling, self._lock:
            self._evict(0)

    def __enter__(self) -> ReplayBuffer:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: the buffer stays usable."""

    def _allocate(self, columns: Mapping[str, np.ndarray]) -> None:
        rings = {name: np.empty((self.max_steps, *values.shape[1:]), values.dtype) for name, values in columns.items()}
        with self._lock:
            self._columns = {name: Column.of(values) for name, values in columns.items()}
            self._rings = rings
            self._forget_views()

    def _cast(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `columns` in the dtypes of the rings; ContractError naming everything that does not fit."""
        faults = [f"{name}: missing" for name in self._rings.keys() - columns.keys()]
        faults += [f"{name}: not in the buffer" for name in columns.keys() - self._rings.keys()]
        cast = {}
        for name in columns.keys() & self._rings.keys():
            values, ring = columns[name], self._rings[name]
            expected, found = self._columns[name], Column.of(values)
            castable = expected.kind != "text" != found.kind and np.can_cast(values.dtype, ring.dtype, "same_kind")
            if found.shape != expected.shape:
                faults.append(f"{name}: expected shape {expected.shape} per row, found {found.shape}")
            elif values.dtype == ring.dtype:
                cast[name] = values
            elif not castable:
                faults.append(f"{name}: expected {expected.type_name}, found {found.type_name}")
            else:
                cast[name] = values.astype(ring.dtype)
                if ring.dtype.kind in "iu" and not np.array_equal(cast[name], values):
                    faults.append(f"{name}: values do not fit into {ring.dtype.name}")
        if faults:
            raise ContractError("the episode does not match the buffer:\n  " + "\n  ".join(sorted(faults)))
        return cast

    def _evict(self, limit: int) -> None:
        """Drop the oldest episodes until at most `limit` rows are left."""
        left = np.cumsum(self._lengths[::-1])[::-1]  # rows of an episode and all younger ones
        gone = int(np.count_nonzero(left > limit))
        if gone:
            self._lengths = self._lengths[gone:]
            del self._constants[:gone]
            self._evicted += gone
            self._forget_views()

    def _forget_views(self) -> None:
        self._indices, self._view = {}, None

    # -- sampling -----------------------------------------------------------------------------------------------------

    def sample(self, batch_size: int, history_len: int | None = None, step: int | None = None) -> dict[str, np.ndarray]:
        """Return random windows as arrays (B, T, ...), images (B, T, H, W, C), `action` (B, T, K*A), texts as `str`.

        history_len: T, if not the buffer's own. step: number of the draw, on which and on the seed and the content the
        windows depend; default: one more than at the last call without.

        Raises RuntimeError when there is no window, ContractError for a sampler's answer of another shape or type,
        IndexError for windows out of range.
        """
        history = self.history_len if history_len is None else int(history_len)
        with self._lock:
            if step is None:
                step, self._step = self._step, self._step + 1
        for _ in range(OPTIMISTIC_TRIES):
            with self._lock:
                rows = self._choose(step, batch_size, history)
            batch = self._gather(*rows)
            with self._lock:
                if not batch_size or rows[1].min() >= self._tail:
                    return batch
        with self._lock:  # writers overtake us again and again: let them wait once
            return self._gather(*self._choose(step, batch_size, history))

    def num_valid_ends(self, history_len: int | None = None) -> int:
        """Return the number of windows of `history_len` observations; default: the buffer's own."""
        with self._lock:
            return len(self._windows(self.history_len if history_len is None else int(history_len)))

    def _choose(self, step: int, batch_size: int, history: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the observations (B, T) and of the actions (B, T*K) of a batch."""
        index = self._windows(history)
        if self.sampler is not None:
            windows = np.asarray(self.sampler(step, self, batch_size, history))
            if windows.shape != (batch_size,):
                raise ContractError(f"the sampler returned shape {windows.shape}: expected ({batch_size},)")
            if batch_size and windows.min() < 0:
                raise IndexError(f"the sampler returned {windows.min()}: expected within [0, {len(index)})")
        elif not len(index):
            raise RuntimeError(
                f"nothing to sample: no window of {index.span} rows in {len(self._lengths)} episodes; write more first"
            )
        else:
            windows = np.random.default_rng([self.seed, step]).integers(len(index), size=batch_size)
        return index.rows(windows)

    def _gather(self, rows: np.ndarray, action_rows: np.ndarray) -> dict[str, np.ndarray]:
        batch = {}
        for name, ring in self._rings.items():
            wanted = action_rows if name == "action" else rows
            values = np.take(ring, wanted % self.max_steps, axis=0)
            if name == "action":
                values = values.reshape(*rows.shape, self.frameskip * ring[0].size)
            batch[name] = values
        return batch

    def _windows(self, history: int) -> WindowIndex:
        if history not in self._indices:
            first = self._tail + np.cumsum(self._lengths) - self._lengths
            self._indices[history] = WindowIndex(self._lengths, first, history, self.frameskip, check=False)
        return self._indices[history]

    @property
    def _tail(self) -> int:
        """The oldest row that is stored."""
        return self._head - int(self._lengths.sum())

    # -- reading like a dataset ---------------------------------------------------------------------------------------

    load_episode = _reader("load_episode")
    read_rows = _reader("read_rows")
    get_col_data = _reader("get_col_data")
    get_row_data = _reader("get_row_data")
    get_dim = _reader("get_dim")
    get_episode_data = _reader("get_episode_data")
    windows_of = _reader("windows_of")

    lengths = property(lambda self: self._lengths.astype(np.int32), doc="Rows per episode, oldest first, int32 (E,).")
    num_episodes = property(lambda self: len(self._lengths), doc="Episodes stored.")
    num_steps_stored = property(lambda self: int(self._lengths.sum()), doc="Rows stored.")
    num_steps = property(lambda self: self.history_len, doc="Observations per window, T.")
    columns = property(lambda self: dict(self._columns), doc="What the columns hold; empty before the first episode.")
    column_names = property(lambda self: [*self._columns], doc="Names of the columns.")

    @property
    def offsets(self) -> np.ndarray:
        """First row of each episode, counted from the oldest row stored, int64 (E,)."""
        lengths = self._lengths
        return np.cumsum(lengths) - lengths

    @property
    def episode_column_names(self) -> list[str]:
        """Names of the per-episode constants of any episode stored."""
        with self._lock:
            return list(dict.fromkeys(name for constants in self._constants for name in constants))

    @property
    def clip_indices(self) -> ClipIndices:
        """The windows as a lazy sequence of (episode, start)."""
        with self._lock:
            return ClipIndices(self._windows(self.history_len))

    def __len__(self) -> int:
        """Number of windows."""
        return self.num_valid_ends()

    def __getitem__(self, index: Any) -> Item:
        """Window `index` as tensors, like an item of a dataset; a batch of windows for an array or a list."""
        return self.get_batch(index) if np.ndim(index) else self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[Item]:
        """Windows as separate dicts of tensors; `DataLoader` calls this."""
        with self._lock:
            items = self._content().__getitems__(indices)
        return [self.transform(item) for item in items] if self.transform else items

    def get_batch(self, indices: Sequence[int] | np.ndarray, out: Item | None = None) -> Item:
        """Return windows `indices` (B,) as tensors (B, T, ...), see `Dataset.get_batch`."""
        if self.transform:
            return collate(self.__getitems__(indices))
        with self._lock:
            return self._content().get_batch(indices, out)

    def load_chunk(
        self, episodes_idx: Sequence[int] | np.ndarray, start: int | Sequence[int], end: int | Sequence[int]
    ) -> list[Item]:
        """Return rows [start, end) of each episode as windows, see `Dataset.load_chunk`."""
        with self._lock:
            items = self._content().load_chunk(episodes_idx, start, end)
        return [self.transform(item) for item in items] if self.transform else items

    def episodes(self) -> Iterator[dict[str, Any]]:
        """Yield copies of the episodes stored now, as a writer takes them. One evicted before its turn is skipped."""
        with self._lock:
            first, count = self._evicted, len(self._lengths)
        for number in range(first, first + count):
            with self._lock:
                if number < self._evicted:
                    continue
                i = number - self._evicted
                episode: dict[str, Any] = self._content().read_rows(i, 0, int(self._lengths[i]))
                if self._constants[i]:
                    episode[EPISODE_DATA_KEY] = dict(self._constants[i])
            yield episode

    iter_episodes = episodes

    def iter_frames(self, name: str) -> Iterator[np.ndarray]:
        """Yield a column episode by episode, (rows, ...)."""
        for episode in self.episodes():
            yield episode[name]

    def _content(self) -> Dataset:
        if self._view is None:
            self._view = _Content(self)
        return self._view

    def __getstate__(self) -> dict[str, Any]:
        with self._filling, self._lock:
            return {**self.__dict__, "_lock": None, "_filling": None, "_view": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _filling=threading.Lock())


class _Content(Dataset):
    """What a buffer holds at one moment. Valid as long as the buffer's lock is held."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        super().__init__(
            buffer._lengths,
            None,
            buffer.frameskip,
            buffer.history_len,
            columns=buffer._columns,
            index=WindowIndex(buffer._lengths, buffer.offsets, buffer.history_len, buffer.frameskip, check=False),
        )
        self._rings, self._constants, self._first_row = buffer._rings, buffer._constants, buffer._tail
        self.episode_column_names = buffer.episode_column_names

    def _read_rows(self, name: str, rows: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        ring = self._rings[name]
        slots = (rows + self._first_row) % len(ring)
        return np.take(ring, slots, axis=0, out=out, mode="raise" if out is None else "clip")

    def get_episode_data(self, episodes: Sequence[int] | None = None) -> dict[str, list[Any]]:
        numbers = range(self.num_episodes) if episodes is None else episodes
        return {name: [self._constants[i].get(name) for i in numbers] for name in self.episode_column_names}
