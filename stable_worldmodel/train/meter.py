"""Running means of a loop's metrics, its speed, and the share of time it waited for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from stable_worldmodel.errors import ContractError


class Meter:
    """Collects what happens between two log rows without waiting for the device at every step."""

    def __init__(self, share: Callable[[torch.Tensor], torch.Tensor] = lambda values: values) -> None:
        """`share` gives the mean of a tensor over the processes of a run, which all call it."""
        self._share = share
        self._clear()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(self, step: int, metrics: Mapping[str, torch.Tensor], samples: int) -> None:
        """Take the scalar `metrics` of one step over `samples` clips."""
        self._steps.append(step)
        self._metrics.append(metrics)
        self._samples += samples

    def flush(self) -> dict[str, float]:
        """Means since the last call, as `train/<metric>`, `samples_per_s` and `data_wait` (0 to 1); starts over.

        ContractError names the first step whose loss was not finite.
        """
        means = {}
        names = [*self._metrics[0]]
        rows = torch.stack([torch.stack([metrics[name].float() for name in names]) for metrics in self._metrics])
        for name, values in zip(names, self._share(rows).cpu().T, strict=True):  # (steps,)
            if not values.isfinite().all():
                self._fail(name, values)
            means[f"train/{name}"] = values.double().mean().item()
        elapsed = time.perf_counter() - self._start
        speed = {"samples_per_s": self._samples / elapsed, "data_wait": self._waited / elapsed}
        self._clear()
        return {**means, **speed}

    def _fail(self, name: str, values: torch.Tensor) -> None:
        first = int((~values.isfinite()).nonzero()[0])
        raise ContractError(
            f"{name} became {values[first].item()} at step {self._steps[first]}; "
            "lower learning_rate, or check the dataset for non-finite values"
        )

    def _clear(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._samples = 0
        self._steps: list[int] = []
        self._metrics: list[Mapping[str, torch.Tensor]] = []
