"""An exponential moving average of a model's weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """average <- d * average + (1 - d) * weights after every step, for all that a model's state dict holds.

    d is min(decay, (1 + step) / (10 + step)), so that what the weights began with is soon forgotten. What is not
    floating point is copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step`, which counts from 1."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, rate)
            else:
                self.tensors[name].copy_(tensor)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The average in place of the model's weights, which are back afterwards."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for name, tensor in model.state_dict().items():
            weights = tensor.clone()
            tensor.copy_(self.tensors[name])
            self.tensors[name].copy_(weights)
