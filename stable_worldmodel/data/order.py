"""The order in which windows are visited: a function of seed and epoch, computed for any stretch of positions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError

SHUFFLES = ("none", "full", "block")
TABLE_LIMIT = 1 << 26  # windows; up to here a permutation is held as an array, half a gigabyte at most
BLOCK = 1 << 18  # windows that lie together
OPEN_BLOCKS = 8  # of these are mixed


class WindowOrder:
    """Maps positions within an epoch to windows.

    Args:
        windows: their number n, or the window numbers themselves (n,), e.g. those of the training episodes.
        shuffle: 'full' (or True) permutes all; 'block' permutes blocks of neighbouring windows, and the windows of a
            few blocks among each other, for storage where neighbours are cheap; 'none' (or False) keeps their order.
        seed: of the permutations, with the number of the epoch.
        block, open_blocks: windows per block, and blocks that are mixed.
    """

    def __init__(
        self,
        windows: int | np.ndarray,
        shuffle: str | bool = "full",
        seed: int = 0,
        *,
        block: int = BLOCK,
        open_blocks: int = OPEN_BLOCKS,
    ):
        if isinstance(windows, (int, np.integer)):
            self._windows, self.size = None, int(windows)
        else:
            self._windows = np.asarray(windows, np.int64)
            self.size = len(self._windows)
        self.shuffle = shuffle if isinstance(shuffle, str) else ("full" if shuffle else "none")
        if self.shuffle not in SHUFFLES:
            raise ContractError(f"shuffle={shuffle!r}: expected a bool or one of {SHUFFLES}")
        if self.size < 1:
            raise ContractError("there is no window to visit")
        if block < 1 or open_blocks < 1:
            raise ContractError(f"block={block}, open_blocks={open_blocks}: expected both >= 1")
        self.seed = int(seed)
        self._block, self._open_blocks = int(block), int(open_blocks)

    def windows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The windows at `positions` (k,) of an epoch, int64."""
        positions = np.asarray(positions, np.int64)
        if self.shuffle == "full":
            permute = _from_table if self.size <= TABLE_LIMIT else feistel
            found = permute(positions, self.size, (self.seed, epoch))
        elif self.shuffle == "block":
            found = self._in_blocks(epoch, positions)
        else:
            found = positions
        return found if self._windows is None else self._windows[found]

    def _in_blocks(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        group_size = self._block * self._open_blocks
        groups = positions // group_size
        found = np.empty_like(positions)
        for group in np.unique(groups).tolist():
            chosen = groups == group
            mixed = _mixed_group(self.size, self._block, self._open_blocks, group, (self.seed, epoch))
            found[chosen] = mixed[positions[chosen] - group * group_size]
        return found


@lru_cache(maxsize=2)
def _table(size: int, key: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(key).permutation(size)


def _from_table(positions: np.ndarray, size: int, key: tuple[int, int]) -> np.ndarray:
    return _table(size, key)[positions]


@lru_cache(maxsize=4)
def _mixed_group(size: int, block: int, open_blocks: int, group: int, key: tuple[int, int]) -> np.ndarray:
    """The windows of one group of blocks, permuted. Only the last block may be short, and it stays last."""
    whole = size // block
    order = np.random.default_rng(key).permutation(whole)
    blocks = order[group * open_blocks : (group + 1) * open_blocks]
    parts = [np.arange(b * block, (b + 1) * block) for b in blocks.tolist()]
    if len(blocks) < open_blocks and whole * block < size:
        parts.append(np.arange(whole * block, size))
    windows = np.concatenate(parts)
    return windows[np.random.default_rng((*key, group + 1)).permutation(len(windows))]


def feistel(positions: np.ndarray, size: int, key: tuple[int, int], rounds: int = 6) -> np.ndarray:
    """A keyed permutation of 0 … size - 1 at `positions`, without a table.

    A Feistel network permutes the numbers of an even number of bits; those that leave the range are sent through it
    again until they are back (cycle walking; Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, -(-max(size - 1, 1).bit_length() // 2))
    mask = np.uint64((1 << half) - 1)
    keys = np.random.default_rng(key).integers(0, 1 << 63, rounds, np.uint64)
    values = np.asarray(positions).astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        values[outside] = left << np.uint64(half) | right
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class WindowBatchSampler:
    """Batches of window numbers, for `DataLoader(dataset, sampler=..., batch_size=None)` and for `Loader`.

    The batches of an epoch do not depend on the number of processes: of the global batch at positions
    `[k * B * W, (k + 1) * B * W)` of the order, rank r of W takes every W-th from the r-th on.

    Args:
        windows, shuffle, seed: see WindowOrder; a dataset stands for all its windows.
        batch_size: B, per process.
        drop_last: leave out a last batch that is not full. Otherwise it is split among the ranks as evenly as possible;
            ContractError if that leaves a rank without any.
        rank, world_size: which process this is, of how many.
    """

    def __init__(
        self,
        windows: Any,
        batch_size: int,
        shuffle: str | bool = "full",
        seed: int = 0,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        **order: Any,
    ):
        if hasattr(windows, "windows_of"):  # a dataset
            windows = len(windows)
        self.order = WindowOrder(windows, shuffle, seed, **order)
        if batch_size < 1:
            raise ContractError(f"batch_size={batch_size}: expected an integer >= 1")
        if not 0 <= rank < world_size:
            raise ContractError(f"rank={rank}, world_size={world_size}: expected 0 <= rank < world_size")
        self.batch_size, self.drop_last = int(batch_size), bool(drop_last)
        self.rank, self.world_size = int(rank), int(world_size)
        self.epoch = 0
        self.position = 0  # of the next global batch, in windows
        rest = self.order.size % self.global_batch
        if len(self) == 0 or (not drop_last and 0 < rest < world_size):
            raise ContractError(
                f"{self.order.size} windows do not fill batches of {batch_size} on {world_size} processes; "
                "use a smaller batch_size, or another drop_last"
            )

    @property
    def global_batch(self) -> int:
        """Windows of all processes per step."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(self.order.size, self.global_batch)
        return full if self.drop_last or not rest else full + 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rest of the epoch, int64 (B,) each; then the next epoch begins."""
        for epoch, position, batch in self.upcoming(self.epoch, self.position):
            self.epoch, self.position = epoch, position
            yield batch

    def upcoming(self, epoch: int, position: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """The batches from a position to the end of its epoch, each with the epoch and position that follow it."""
        stop = len(self) * self.global_batch
        while position < stop:
            end = min(position + self.global_batch, self.order.size)
            mine = np.arange(position + self.rank, end, self.world_size)
            following = (epoch, end) if end < min(stop, self.order.size) else (epoch + 1, 0)
            yield *following, self.order.windows(epoch, mine)
            position = position + self.global_batch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.epoch, self.position = int(epoch), 0

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands; valid for any number of processes whose global batches end there."""
        order = self.order
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seed": order.seed,
            "shuffle": order.shuffle,
            "windows": order.size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; ContractError if it belongs to another order."""
        own = self.state_dict()
        differs = [name for name in ("seed", "shuffle", "windows") if state[name] != own[name]]
        if differs:
            found = ", ".join(f"{name} {state[name]!r} instead of {own[name]!r}" for name in differs)
            raise ContractError(f"the state belongs to another order: {found}")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
