"""Projected gradient descent on relaxed discrete actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.solver.callbacks import Callback
from stable_worldmodel.solver.discrete import Categories, warm_table
from stable_worldmodel.solver.gradient import BestSeen, GradientSolver
from stable_worldmodel.solver.problem import Bounds, Problem


class PGDSolver(GradientSolver):
    """SGD (learning rate 1) over points of a simplex per action, projected back onto it after every step.

    For Discrete and MultiDiscrete spaces; the model gets the points where it knows one-hot blocks, see
    `solver.discrete`. `actions` are the largest entries, integers (n, H, V) as the env counts them, and `costs` those
    of the one-hot sequences. Missing steps of a warm start are the centre of the simplex.

    Args:
        model, cost, n_steps, num_samples, action_noise, var_scale, batch_size, device, seed, callbacks: see
            GradientSolver.
        from_scalar: warm starts are integers (n, t, V); False takes points (n, t, A).
    """

    def __init__(
        self,
        model: Any = None,
        n_steps: int = 30,
        action_noise: float = 0.0,
        num_samples: int = 1,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        *,
        cost: Any = None,
        batch_size: int | None = None,
        var_scale: float = 1.0,
        from_scalar: bool = True,
        callbacks: Sequence[Callback] | None = None,
    ):
        super().__init__(
            model,
            n_steps,
            action_noise,
            num_samples,
            device,
            seed,
            cost=cost,
            batch_size=batch_size,
            var_scale=var_scale,
            callbacks=callbacks,
        )
        self.from_scalar = from_scalar

    fills_with_zeros = False

    def _action_sizes(
        self, action_space: gym.Space, action_block: int, action_bounds: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[int, Bounds | None]:
        self._categories = Categories.of(action_space, self._n_envs or 1, action_block)
        return self._categories.width, None

    def _complete(self, context: Any, init: torch.Tensor | None, n: int, dtype: torch.dtype) -> torch.Tensor:
        scalars = init if self.from_scalar else None
        table = warm_table(self._categories, scalars, self._horizon, n, self.device).to(dtype)
        points = self._categories.flat(table)  # (n, H, A)
        if init is not None and not self.from_scalar:
            points[:, : init.shape[1]] = init.to(points)
        return points

    def _feasible(self, problem: Problem, params: torch.Tensor) -> torch.Tensor:
        categories = self._categories
        return categories.flat(project_to_simplex(categories.table(params), categories.mask(params.device)))

    def _selected(self, problem: Problem, best: BestSeen) -> dict[str, torch.Tensor]:
        categories = self._categories
        table = categories.table(best.plans).masked_fill(~categories.mask(best.plans.device), -torch.inf)
        chosen = table.argmax(dim=-1)  # (n, S, H, V)
        with torch.no_grad():
            costs = problem.evaluate(categories.flat(categories.one_hot(chosen, table.dtype)))
        best.plans, best.scores = chosen, costs
        result = super()._selected(problem, best)
        return {**result, "actions": categories.env_actions(result["actions"])}


def project_to_simplex(points: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The nearest points (..., V, C) on the simplex over the choices in `mask`, bool (V, C).

    Sort-based Euclidean projection (Duchi et al., 2008): x - theta, cut at 0, with theta such that the sum is 1.
    """
    descending = points.masked_fill(~mask, -torch.inf).sort(dim=-1, descending=True).values
    counts = torch.arange(1, points.shape[-1] + 1, device=points.device)
    excess = (descending.masked_fill(descending == -torch.inf, 0.0).cumsum(dim=-1) - 1.0) / counts
    rho = (descending > excess).sum(dim=-1, keepdim=True)  # the condition holds for a prefix
    theta = excess.take_along_dim((rho - 1).clamp(min=0), dim=-1)
    return (points - theta).clamp(min=0.0) * mask
