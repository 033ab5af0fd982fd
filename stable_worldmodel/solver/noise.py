"""Random numbers as a function of a key and a counter, so that no plan depends on which envs are solved beside it.

A number is the finaliser of SplitMix64 (Steele et al., 2014) applied to `stream + iteration * a + index * b`, in 64-bit
integer tensors. The same bits come out on every device, in every batch and in every order.

Torch shifts signed words only. What a shift draws in are therefore copies of the sign in place of zeros, which saves a
pass over memory per shift; of a result, 63 bits are random and the sign is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ITERATION = 0xD1342543DE82EF95  # odd, unrelated to _GOLDEN
_MASK = (1 << 64) - 1
_BLOCK = 1 << 16  # words made at once on the CPU: enough to forget the calls, few enough to stay in its cache


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


def _mix_words(words: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser over uint64 words."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return words ^ (words >> np.uint64(31))


def stream_ids(seed: int, keys: np.ndarray) -> np.ndarray:
    """One 64-bit word (n,) per row of the integer `keys` (n, k), mixed with the solver's own seed."""
    words = _mix_words(np.full(len(keys), (seed * _GOLDEN + 1) & _MASK, np.uint64))
    for column in np.asarray(keys, np.int64).T.astype(np.uint64):
        words = _mix_words((words ^ column) + np.uint64(_GOLDEN))
    return words


Fill = Callable[[torch.Tensor, torch.Tensor], None]


class Noise:
    """The random numbers of one solve of n envs.

    Row i is a function of `streams[i]`, the iteration and the position alone. An iteration may be an integer or an
    int64 tensor without axes, so that a captured loop can count on the device. Numbers have 23 random bits or more.

    Args:
        streams: uint64 (n,), see `stream_ids`.
        iterations: how many there will be; small draws are made several iterations ahead.
    """

    def __init__(self, streams: np.ndarray, device: torch.device, dtype: torch.dtype, iterations: int = 1):
        self._streams = torch.from_numpy(streams.view(np.int64)).to(device)[:, None, None]  # (n, 1, 1)
        self._dtype = dtype
        self._iterations = iterations
        self._counters: dict[int, torch.Tensor] = {}
        self._ahead: dict[tuple[Fill, tuple[int, ...]], tuple[torch.Tensor, range]] = {}

    def normal(self, iteration: int | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal numbers (n, *shape)."""
        return self._numbers(_fill_normal, iteration, shape)

    def uniform(self, iteration: int | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform numbers (n, *shape) in (0, 1)."""
        return self._numbers(_fill_uniform, iteration, shape)

    def _numbers(self, fill: Fill, iteration: int | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if isinstance(iteration, torch.Tensor):
            return self._drawn(fill, iteration.view(1), shape)[:, 0]
        drawn, block = self._ahead.get((fill, shape), (None, range(0)))
        if drawn is None or iteration not in block:
            count = max(1, 2 * _BLOCK // (len(self._streams) * math.prod(shape)))
            block = range(iteration, max(iteration + 1, min(iteration + count, self._iterations)))
            drawn = self._drawn(fill, torch.arange(block.start, block.stop, device=self._streams.device), shape)
            self._ahead = {(fill, shape): (drawn, block)}
        return drawn[:, iteration - block.start]

    def _drawn(self, fill: Fill, iterations: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Numbers (n, i, *shape) of the given iterations (i,); every random word makes two."""
        size = math.prod(shape)
        words = (size + 1) // 2
        # Mixed twice: the counters of two streams never run beside each other.
        starts = _mix(self._streams + iterations[:, None] * _signed(_ITERATION))  # (n, i, 1)
        counters = self._counter(words)
        pairs = torch.empty(*starts.shape[:2], 2, words, device=starts.device)
        step = words if starts.device.type != "cpu" else max(1, _BLOCK // starts.numel())
        for first in range(0, words, step):
            part = slice(first, first + step)
            fill(_mix(starts + counters[part]), pairs[..., part])
        return pairs.flatten(2)[:, :, :size].unflatten(2, shape).to(self._dtype)

    def _counter(self, words: int) -> torch.Tensor:
        if words not in self._counters:
            self._counters[words] = torch.arange(words, device=self._streams.device).mul_(_signed(_GOLDEN))
        return self._counters[words]


def _fill_normal(words: torch.Tensor, pairs: torch.Tensor) -> None:
    """Standard normal numbers `pairs` (n, i, 2, w) of words (n, i, w), by Box and Muller."""
    # 63 bits make the radius; 2^-26 keeps it finite. The low 32 make the angle.
    radius = words.float().mul_(2.0**-63).add_(2.0**-26).log_().mul_(-2.0).sqrt_()
    pairs.copy_(words.int()[:, :, None]).mul_(2.0**-31 * math.pi)
    pairs[:, :, 0].cos_()
    pairs[:, :, 1].sin_()
    pairs.mul_(radius[:, :, None])


def _fill_uniform(words: torch.Tensor, pairs: torch.Tensor) -> None:
    """Uniform numbers `pairs` (n, i, 2, w) in (0, 1) of words (n, i, w)."""
    halves = words.view(torch.int32).bitwise_and_(0x7FFFFF)  # (n, i, 2 * w); 23 bits and a half are exact in float32
    pairs.copy_(halves.view(*words.shape, 2).transpose(2, 3)).add_(0.5).mul_(2.0**-23)


def _mix(words: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser over int64 tensors, in place, with shifts that keep the sign."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        words.bitwise_xor_(words >> shift).mul_(_signed(factor))
    return words.bitwise_xor_(words >> 31)
