"""The cross-entropy method: sample around a mean, refit mean and deviation to the best samples, repeat.

R. Rubinstein and D. Kroese, "The Cross-Entropy Method" (2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stable_worldmodel.solver.callbacks import Callback
from stable_worldmodel.solver.sampling import SamplingSolver


class CEMSolver(SamplingSolver):
    """CEM over action sequences: all elites count the same. Arguments and results: see SamplingSolver."""

    def __init__(
        self,
        model: Any = None,
        num_samples: int = 300,
        var_scale: float = 1.0,
        n_steps: int = 30,
        topk: int = 30,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        *,
        cost: Any = None,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        min_std: float = 1e-3,
        max_std: float | None = None,
        alpha: float = 0.0,
        return_mean: bool = True,
        compiled: bool = False,
    ):
        super().__init__(
            model,
            cost=cost,
            device=device,
            seed=seed,
            batch_size=batch_size,
            callbacks=callbacks,
            num_samples=num_samples,
            var_scale=var_scale,
            n_steps=n_steps,
            topk=topk,
            min_std=min_std,
            max_std=max_std,
            alpha=alpha,
            return_mean=return_mean,
            compiled=compiled,
        )
