"""Random plans: the floor under every planner."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.protocols import Info
from stable_worldmodel.solver.base import ChunkedSolver
from stable_worldmodel.solver.callbacks import Callbacks
from stable_worldmodel.solver.common import num_rows
from stable_worldmodel.solver.discrete import Categories, is_discrete
from stable_worldmodel.solver.problem import Bounds, Problem


class _Nothing:
    """The cost of a solver that compares nothing."""

    def get_cost(self, info: Info, candidates: torch.Tensor) -> torch.Tensor:
        return candidates.new_zeros(candidates.shape[:2])


class RandomSolver(ChunkedSolver):
    """Plans whose missing actions are drawn uniformly from the action bounds, or from the discrete choices.

    `actions` are (n, H, A), integers for integer spaces, and there are no `costs`. Dimensions without bounds are
    standard normal. `info` may be empty: then the plans are for all envs of the pool.
    """

    def __init__(self, *, seed: int | None = None):
        super().__init__(cost=_Nothing(), seed=int(np.random.SeedSequence().entropy) % 2**31 if seed is None else seed)  # type: ignore[arg-type]

    fills_with_zeros = False

    def _action_sizes(
        self, action_space: gym.Space, action_block: int, action_bounds: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[int, Bounds | None]:
        self._categories: Categories | None = None
        if is_discrete(action_space):
            self._categories = Categories.of(action_space, self._n_envs or 1, action_block)
            return self._categories.variables, None
        if action_bounds is None and isinstance(action_space, gym.spaces.Box):
            action_bounds = action_space.low[0].reshape(-1), action_space.high[0].reshape(-1)
        return super()._action_sizes(action_space, action_block, action_bounds)

    def _num_rows(self, info: Info) -> int:
        return num_rows(info) if info else self._n_envs or 0

    def _solve_chunk(self, info: Info, *arguments: Any) -> Any:
        return super()._solve_chunk({}, *arguments)

    def _complete(self, context: Any, init: torch.Tensor | None, n: int, dtype: torch.dtype) -> torch.Tensor:
        self._given = 0 if init is None else init.shape[1]
        return super()._complete(context, init, n, dtype)

    @torch.inference_mode()
    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, torch.Tensor]:
        plan = problem.init_action
        if self._categories is not None:
            chosen = self._categories.uniform(problem.noise.uniform(0, tuple(plan.shape[1:])))
            plan = torch.cat([plan[:, : self._given].round().long(), chosen[:, self._given :]], dim=1)
            return {"actions": plan}
        if problem.bounds is None:
            drawn = problem.normal(0, 1)[:, 0]
        else:
            low, high = problem.bounds
            bounded = low.isfinite() & high.isfinite()
            inside = low + (high - low) * problem.noise.uniform(0, tuple(plan.shape[1:]))
            drawn = problem.clamp(torch.where(bounded, inside, problem.normal(1, 1)[:, 0]))
        return {"actions": torch.cat([plan[:, : self._given], drawn[:, self._given :]], dim=1)}
