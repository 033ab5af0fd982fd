"""Sums over the processes of a data-parallel run, so that a statistic of a batch is that of the whole batch.

Without `torch.distributed`, or with one process, everything here is the identity. With several, each of them must take
part: a loss that only one computes waits for the others.
"""

from __future__ import annotations

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
