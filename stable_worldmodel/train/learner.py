"""One optimiser step, and one validation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from stable_worldmodel.train.clips import Batch
from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.wm.training import after_step, optimizer_groups


class Learner:
    """A model with its optimiser on the accelerator. A model called with (batch, generator) returns (loss, metrics).

    The noise of a step (dropout, random directions) depends on the seed and the step alone.
    """

    def __init__(self, config: TrainConfig, model: nn.Module, total: int) -> None:
        self.config = config
        self.total = total
        # Precision is not left to accelerate, whose process-wide state would fix it for every later run.
        self.accelerator = Accelerator(mixed_precision="no", cpu=config.device == "cpu")
        self.device = self.accelerator.device
        self.model = model.to(self.device)
        self.optimizer = torch.optim.AdamW(
            optimizer_groups(model),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self._model, self._optimizer = self.accelerator.prepare(self.model, self.optimizer)

    def step(self, step: int, batch: Batch) -> dict[str, torch.Tensor]:
        """Train on one batch; `step` counts from 1. Returns detached metrics, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group["lr_scale"]
        self._model.train()
        loss, metrics = self._loss(batch, step)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self._model.parameters(), self.config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        after_step(self.model)
        return metrics

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean metrics over `batches`, as `val/<metric>`; empty if there is no batch."""
        self._model.eval()
        values = defaultdict(list)
        for number, batch in enumerate(batches):
            _, metrics = self._loss(batch, -1 - number)
            for name, value in metrics.items():
                values[f"val/{name}"].append(value.item())
        return {name: float(np.mean(numbers)) for name, numbers in values.items()}

    def learning_rate(self, step: int) -> float:
        """Linear from 0 to the peak over the warm-up, then by a cosine to 0 at the last step."""
        warmup = max(1, round(self.config.warmup * self.total))
        if step < warmup:
            return self.config.learning_rate * step / warmup
        done = (step - warmup) / max(1, self.total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def _loss(self, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        generator = self._seed(step)
        on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self._model(on_device, generator)

    def _seed(self, step: int) -> torch.Generator:
        """Seed the global generator, which dropout uses, and return one for the loss."""
        seed = int(np.random.SeedSequence([self.config.seed, step % 2**32]).generate_state(1)[0])
        torch.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)
