"""A bridge to Nevergrad: any of its optimisers, one per env, all asked and told together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.solver.base import ChunkedSolver
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.problem import Problem

# (number of variables, budget, samples per iteration, low, high, start, seed) -> an ask/tell object over flat arrays
Factory = Callable[..., Any]


class NevergradSolver(ChunkedSolver):
    """Black-box optimisation of action sequences with Nevergrad's ask/tell interface.

    Every env has its own optimiser over an array (H, A). Each iteration asks every one for `num_samples` points,
    scores all of them in one evaluation (n, S, H, A), and tells. The optimisers themselves are Python on the CPU and
    the loop over them is theirs; use it to compare with, not for speed. `actions` is the best sequence seen.

    Args:
        model, cost, device, seed, batch_size, callbacks: see ChunkedSolver. Callbacks get `step, candidates, costs`.
        optimizer: the name of an optimiser in Nevergrad's registry, e.g. "NGOpt" or "CMA"; or a callable
            `(start=, low=, high=, budget=, num_workers=, seed=)` that returns an object with `ask() -> point` and
            `tell(point, cost)`, where `point.value` or the point itself is an array like `start`, (H, A). `low` and
            `high` are (H, A), or None without action bounds.
        n_steps: iterations.
        num_samples: points S per env and iteration.
        var_scale: standard deviation of the first points, for optimisers by name.

    Raises:
        MissingDependencyError: `optimizer` is a name and Nevergrad is not installed.
    """

    def __init__(
        self,
        model: Any = None,
        optimizer: str | Factory | None = None,
        n_steps: int = 30,
        device: torch.device | str = "cpu",
        *,
        cost: Any = None,
        seed: int = 1234,
        num_samples: int = 32,
        var_scale: float = 1.0,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ):
        super().__init__(model, cost=cost, device=device, seed=seed, batch_size=batch_size, callbacks=callbacks)
        if n_steps < 1 or num_samples < 1:
            raise ContractError(f"n_steps={n_steps}, num_samples={num_samples}: expected >= 1")
        optimizer = "NGOpt" if optimizer is None else optimizer
        if not isinstance(optimizer, str) and not callable(optimizer):
            raise ContractError(
                f"optimizer={optimizer!r}: expected the name of a Nevergrad optimiser or a callable that makes one per "
                "env; one object cannot be shared by several envs"
            )
        self._make = _from_registry(optimizer, var_scale) if isinstance(optimizer, str) else optimizer
        self.n_steps = n_steps
        self.num_samples = num_samples

    @torch.inference_mode()
    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, torch.Tensor]:
        optimizers = self._optimizers(problem)
        plan = problem.clamp(problem.init_action)
        cost = problem.evaluate(plan[:, None])[:, 0]
        for step in range(self.n_steps):
            points = [[optimizer.ask() for _ in range(self.num_samples)] for optimizer in optimizers]
            arrays = np.array([[np.asarray(getattr(point, "value", point)) for point in row] for row in points])
            candidates = problem.clamp(torch.from_numpy(arrays).to(plan))  # (n, S, H, A)
            costs = problem.evaluate(candidates, step)
            told = costs.clamp(max=torch.finfo(torch.float32).max).cpu().tolist()
            for optimizer, row, values in zip(optimizers, points, told, strict=True):
                for point, value in zip(row, values, strict=True):
                    optimizer.tell(point, value)
            least, best = costs.min(dim=1)
            wins = least < cost
            found = candidates.take_along_dim(best[:, None, None, None], dim=1)[:, 0]
            plan, cost = torch.where(wins[:, None, None], found, plan), torch.minimum(least, cost)
            if callbacks:
                callbacks(step=step, candidates=candidates, costs=costs)
        return {"actions": plan, "costs": cost}

    def _optimizers(self, problem: Problem) -> list[Any]:
        """One per env, seeded by its key."""
        n, shape = len(problem.rows), problem.init_action.shape[1:]
        low = high = None
        if problem.bounds is not None:
            low, high = (bound.expand(shape).cpu().numpy().astype(np.float64) for bound in problem.bounds)
        starts = problem.clamp(problem.init_action).cpu().numpy().astype(np.float64)
        seeds = (problem.noise.uniform(self.n_steps, (1,)).double() * 2**31).long().view(n).tolist()
        budget = self.n_steps * self.num_samples
        return [
            self._make(start=start, low=low, high=high, budget=budget, num_workers=self.num_samples, seed=seed)
            for start, seed in zip(starts, seeds, strict=True)
        ]

    def _iterations(self) -> int:
        return self.n_steps


def _from_registry(name: str, var_scale: float) -> Factory:
    nevergrad = require("nevergrad", "planning")
    if name not in nevergrad.optimizers.registry:
        raise ContractError(f"optimizer={name!r}: not in Nevergrad's registry, see nevergrad.optimizers.registry")

    def make(
        start: np.ndarray, low: np.ndarray | None, high: np.ndarray | None, budget: int, num_workers: int, seed: int
    ) -> Any:
        array = nevergrad.p.Array(init=start).set_mutation(sigma=var_scale)
        if low is not None and high is not None and np.isfinite(low).all() and np.isfinite(high).all():
            array = array.set_bounds(low, high)
        array.random_state = np.random.RandomState(seed)
        return nevergrad.optimizers.registry[name](array, budget=budget, num_workers=num_workers)

    return make
