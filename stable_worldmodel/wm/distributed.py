"""Sums over the processes of a data-parallel run, so that a statistic of a batch is that of the whole batch.

Without `torch.distributed`, or with one process, everything here is the identity. With several, each of them must take
part: a loss that only one computes waits for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist


def num_processes() -> int:
    """Processes that share a training step."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: torch.Tensor) -> torch.Tensor:
    """Sum of x over all processes, differentiable: with gradients averaged over processes, as DDP does, parameters get
    the gradient of one process that holds the whole batch.
    """
    return _AllReduceSum.apply(x) if num_processes() > 1 else x


def mean_over_processes(x: torch.Tensor) -> torch.Tensor:
    """Mean of x over all processes, differentiable; each must hold a batch of the same size."""
    return sum_over_processes(x) / num_processes()


def broadcast(x: torch.Tensor) -> torch.Tensor:
    """The first process's x, detached."""
    if num_processes() > 1:
        x = x.detach().contiguous()
        dist.broadcast(x, src=0)
    return x


def gathered(x: torch.Tensor) -> torch.Tensor:
    """The x of all processes one after the other along the first axis, detached; all have the same shape."""
    if num_processes() == 1:
        return x.detach()
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(num_processes())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def drawn(
    sample: Callable[..., torch.Tensor],
    shape: Sequence[int],
    generator: torch.Generator | None,
    *,
    batch_axis: int = 0,
    **options: Any,
) -> torch.Tensor:
    """`sample(shape, generator=generator, **options)`, such as `torch.randn`, for the rows of this process.

    Processes that share a step have equal generators, and rank r of W has every W-th clip of the batch from the r-th on
    along `batch_axis`: each gets its part of what one process would draw for the whole batch.
    """
    if num_processes() == 1 or generator is None:
        return sample(tuple(shape), generator=generator, **options)
    whole = [*shape]
    whole[batch_axis] *= num_processes()
    numbers = sample(tuple(whole), generator=generator, **options)
    return numbers.unflatten(batch_axis, (shape[batch_axis], -1)).select(batch_axis + 1, dist.get_rank())


class _AllReduceSum(torch.autograd.Function):
    """y = sum of x over ranks; every rank's loss depends on y, so the gradients of all of them are summed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad
