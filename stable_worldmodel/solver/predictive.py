"""Predictive sampling: the best of some perturbations of the warm start (Howell et al., arXiv 2212.00541)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stable_worldmodel.solver.callbacks import Callback
from stable_worldmodel.solver.problem import Problem
from stable_worldmodel.solver.sampling import SamplingSolver, State


class PredictiveSamplingSolver(SamplingSolver):
    """One evaluation of the warm start and `num_samples - 1` perturbations of it; the cheapest is the plan.

    Args:
        model, cost, device, seed, batch_size, callbacks: see ChunkedSolver.
        num_samples: candidates S per env.
        noise_scale: standard deviation of the perturbations.
    """

    def __init__(
        self,
        model: Any = None,
        num_samples: int = 300,
        noise_scale: float = 1.0,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        *,
        cost: Any = None,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ):
        super().__init__(
            model,
            cost=cost,
            device=device,
            seed=seed,
            batch_size=batch_size,
            callbacks=callbacks,
            num_samples=num_samples,
            var_scale=noise_scale,
            n_steps=1,
            topk=1,
            adapt_std=False,
            return_mean=False,
        )

    def _finish(self, problem: Problem, state: State) -> dict[str, torch.Tensor]:
        return {"actions": state["best"], "costs": state["best_cost"]}
