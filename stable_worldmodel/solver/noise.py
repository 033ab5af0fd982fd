"""Random numbers as a function of a key and a counter, so that no plan depends on which envs are solved beside it.

A number is the finaliser of SplitMix64 (Steele et al., 2014) applied to `stream + iteration * a + index * b`, in 64-bit
integer tensors. The same bits come out on every device, in every batch and in every order.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ITERATION = 0xD1342543DE82EF95  # odd, unrelated to _GOLDEN
_MASK = (1 << 64) - 1
_BLOCK = 1 << 17  # numbers drawn at once, so that small draws do not pay for every tensor operation


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


class Noise:
    """The random numbers of one solve of n envs.

    Row i is a function of `streams[i]`, the iteration and the position alone. An iteration may be an integer or an
    int64 tensor without axes, so that a captured loop can count on the device. Numbers have 24 random bits.

    Args:
        streams: uint64 (n,), see `stream_ids`.
        iterations: how many there will be; small draws are made several iterations ahead.
    """

    def __init__(self, streams: np.ndarray, device: torch.device, dtype: torch.dtype, iterations: int = 1):
        self._streams = torch.from_numpy(streams.view(np.int64)).to(device)[:, None, None]  # (n, 1, 1)
        self._dtype = dtype
        self._iterations = iterations
        self._counters: dict[int, torch.Tensor] = {}
        self._ahead: tuple[torch.Tensor, range, tuple[int, ...]] | None = None

    def normal(self, iteration: int | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal numbers (n, *shape)."""
        if isinstance(iteration, torch.Tensor):
            return self._normal(iteration.view(1), shape)[:, 0]
        if self._ahead is None or iteration not in self._ahead[1] or shape != self._ahead[2]:
            count = max(1, _BLOCK // (len(self._streams) * math.prod(shape)))
            block = range(iteration, max(iteration + 1, min(iteration + count, self._iterations)))
            steps = torch.arange(block.start, block.stop, device=self._streams.device)
            self._ahead = self._normal(steps, shape), block, shape
        drawn, block, _ = self._ahead
        return drawn[:, iteration - block.start]

    def uniform(self, iteration: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform numbers (n, *shape) in (0, 1)."""
        size = math.prod(shape)
        words = self._words(torch.tensor([iteration], device=self._streams.device), (size + 1) // 2)  # (n, 1, words)
        pair = torch.cat(
            [(words >> 40).bitwise_and_(0xFFFFFF), words.bitwise_right_shift_(16).bitwise_and_(0xFFFFFF)], 1
        )
        return pair.flatten(1)[:, :size].float().add_(0.5).mul_(2.0**-24).unflatten(1, shape).to(self._dtype)

    def _normal(self, iterations: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Numbers (n, i, *shape) of the given iterations (i,)."""
        size = math.prod(shape)
        words = self._words(iterations, (size + 1) // 2)
        # Box-Muller makes two numbers of one word.
        radius = (words >> 40).bitwise_and_(0xFFFFFF).float().add_(0.5).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
        angle = words.bitwise_right_shift_(16).bitwise_and_(0xFFFFFF).float().mul_(2.0**-23 * math.pi)
        pair = torch.stack([angle.cos(), angle.sin_()], dim=2).mul_(radius[:, :, None])  # (n, i, 2, words)
        return pair.flatten(2)[:, :, :size].unflatten(2, shape).to(self._dtype)

    def _words(self, iterations: torch.Tensor, count: int) -> torch.Tensor:
        """Random int64 words (n, i, count)."""
        if count not in self._counters:
            self._counters[count] = torch.arange(count, device=self._streams.device).mul_(_signed(_GOLDEN))
        # Mixed twice: the counters of two streams never run beside each other.
        starts = _mix(self._streams + iterations[:, None] * _signed(_ITERATION))
        return _mix(starts + self._counters[count])


def _mix(words: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser over int64 tensors, in place."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        words.bitwise_xor_((words >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(_signed(factor))
    return words.bitwise_xor_((words >> 31).bitwise_and_((1 << 33) - 1))
