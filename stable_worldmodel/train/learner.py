"""One optimiser step, and one validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from stable_worldmodel.train.average import WeightAverage
from stable_worldmodel.train.clips import Batch
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.train.optim import build_optimizer, learning_rate
from stable_worldmodel.wm.training import after_step


class Learner:
    """A model with its optimiser on the accelerator. A model called with (batch, generator) returns (loss, metrics).

    What is random in a loss depends on the seed and the step alone and is the same in all processes, which share its
    statistics; dropout differs between them.
    """

    def __init__(self, config: TrainConfig, model: nn.Module, total: int, accelerator: Accelerator) -> None:
        self.config = config
        self.total = total
        self.accelerator = accelerator
        self.device = accelerator.device
        self.model = model.to(self.device)
        self.optimizer = build_optimizer(config, model)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self._wrapped, self._optimizer = accelerator.prepare(self.model, self.optimizer)
        self._call = torch.compile(self._wrapped) if config.compile else self._wrapped

    def step(self, step: int, batch: Batch) -> dict[str, torch.Tensor]:
        """Train on one batch; `step` counts from 1. Returns detached metrics, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group["lr_scale"]
        self._wrapped.train()
        metrics = self._accumulate(batch, step)
        if self.config.clip_norm is not None:
            metrics["grad_norm"] = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        after_step(self.model)
        if self.average is not None:
            self.average.update(self.model, step)
        return metrics

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean metrics over `batches` and processes, as `val/<metric>`; empty if there is no batch.

        Of the averaged weights, where there are any.
        """
        self._wrapped.eval()
        values = defaultdict(list)
        with self.averaged():
            for number, batch in enumerate(batches):
                for name, value in self._loss(batch, self._seed(-1 - number))[1].items():
                    values[f"val/{name}"].append(value)
        return {name: self.mean(torch.stack(numbers)).double().mean().item() for name, numbers in values.items()}

    def averaged(self) -> AbstractContextManager[None]:
        """The average of the weights in their place, where there is one."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def learning_rate(self, step: int) -> float:
        """The rate of a step, before the scale of a parameter group."""
        return learning_rate(self.config, step, self.total)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of x over all processes."""
        return self.accelerator.reduce(x, "mean") if self.accelerator.num_processes > 1 else x

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of the processes, which all ask."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def _accumulate(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Add the gradients of all parts of a batch, and return the means of their metrics."""
        generator, parts = self._seed(step), self.config.accumulate
        sums: dict[str, torch.Tensor] = {}
        for number, part in enumerate(_parts(batch, parts)):
            last = number == parts - 1
            # Gradients of processes are exchanged once, with the last part.
            with nullcontext() if last else self.accelerator.no_sync(self._wrapped):
                loss, metrics = self._loss(part, generator)
                self.accelerator.backward(loss / parts)
            for name, value in metrics.items():
                sums[name] = sums[name] + value / parts if number else value / parts
        return sums

    def _loss(self, batch: Batch, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self._call(on_device, generator)

    def _seed(self, step: int) -> torch.Generator:
        """Seed the global generator, which dropout uses, and return one for the loss."""
        key = [self.config.seed, step % 2**32]
        rank = self.accelerator.process_index
        torch.manual_seed(_drawn(key if rank == 0 else [*key, rank]))
        return torch.Generator(self.device).manual_seed(_drawn(key))


def _parts(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in parts of equal size."""
    size = len(next(iter(batch.values()))) // parts
    for start in range(0, parts * size, size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def _drawn(key: list[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
