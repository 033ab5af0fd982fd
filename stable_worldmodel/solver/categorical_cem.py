"""Categorical CEM: the cross-entropy method over Discrete and MultiDiscrete actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.base import ChunkedSolver
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.discrete import Categories, warm_table
from stable_worldmodel.solver.problem import Bounds, Problem


class CategoricalCEMSolver(ChunkedSolver):
    """CEM whose distribution is a probability per choice, independent per action and time step.

    Candidates are one-hot (n, S, H, A), see `solver.discrete`; candidate 0 is the most probable sequence. `actions`
    are the most probable choices, integers (n, H, V) as the env counts them; `probs` is a list of one tensor
    (n, H, V, C). A warm start is integers (n, t, V), 0 <= t <= H.

    Args:
        model, cost, device, seed, batch_size, callbacks: see ChunkedSolver.
        num_samples, n_steps, topk: candidates, iterations, elites.
        smoothing: added to the elites' counts of every choice (Laplace).
        alpha: weight of the old probabilities in a refit.
        warm_epsilon: probability that a warm start leaves to chance: p = eps / C + (1 - eps) * one_hot.
        return_mean: return the most probable sequence; False returns the best one seen.
    """

    def __init__(
        self,
        model: Any = None,
        num_samples: int = 300,
        n_steps: int = 30,
        topk: int = 30,
        smoothing: float = 0.0,
        alpha: float = 0.0,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        *,
        cost: Any = None,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        warm_epsilon: float = 0.05,
        return_mean: bool = True,
    ):
        super().__init__(model, cost=cost, device=device, seed=seed, batch_size=batch_size, callbacks=callbacks)
        if not 1 <= topk <= num_samples:
            raise ContractError(f"topk={topk}: expected 1..num_samples ({num_samples})")
        if n_steps < 1:
            raise ContractError(f"n_steps={n_steps}: expected >= 1")
        if smoothing < 0.0 or not 0.0 <= alpha < 1.0 or not 0.0 <= warm_epsilon <= 1.0:
            raise ContractError(
                f"smoothing={smoothing}, alpha={alpha}, warm_epsilon={warm_epsilon}: expected smoothing >= 0, "
                "alpha in [0, 1), warm_epsilon in [0, 1]"
            )
        self.num_samples = num_samples
        self.n_steps = n_steps
        self.topk = topk
        self.smoothing = smoothing
        self.alpha = alpha
        self.warm_epsilon = warm_epsilon
        self.return_mean = return_mean

    fills_with_zeros = False

    def _action_sizes(
        self, action_space: gym.Space, action_block: int, action_bounds: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[int, Bounds | None]:
        self._categories = Categories.of(action_space, self._n_envs or 1, action_block)
        return self._categories.width, None

    def _complete(self, context: Any, init: torch.Tensor | None, n: int, dtype: torch.dtype) -> torch.Tensor:
        probs = warm_table(self._categories, init, self._horizon, n, self.device).to(dtype)
        given = 0 if init is None else init.shape[1]
        uniform = self._categories.mask(self.device).to(dtype) / torch.tensor(self._categories.sizes)[:, None].to(probs)
        probs[:, :given] = torch.lerp(probs[:, :given], uniform.expand_as(probs[:, :given]), self.warm_epsilon)
        return self._categories.flat(probs)

    @torch.inference_mode()
    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, Any]:
        categories, mask = self._categories, self._categories.mask(self.device)
        probs = categories.table(problem.init_action)  # (n, H, V, C)
        best = torch.zeros(probs.shape[:3], dtype=torch.int64, device=self.device)
        best_cost = probs.new_full((len(probs),), torch.inf)
        for step in range(self.n_steps):
            candidates = self._draw(problem, probs, mask, step)  # (n, S, H, V, C)
            costs = problem.evaluate(categories.flat(candidates), step)
            values, order = costs.topk(self.topk, dim=1, largest=False)
            flat = candidates.flatten(2)  # (n, S, H * V * C)
            flat = flat.gather(1, order[:, :, None].expand(-1, -1, flat.shape[2]))
            elites = flat.unflatten(2, candidates.shape[2:])  # (n, topk, H, V, C)
            finite = (values != torch.inf).to(flat)[:, None]  # (n, 1, topk)
            counts = torch.bmm(finite, flat).view_as(probs)
            if self.smoothing:
                counts = counts + self.smoothing * mask
            previous, fresh = probs, counts / counts.sum(dim=-1, keepdim=True).clamp_(min=1e-30)
            probs = torch.lerp(fresh, previous, self.alpha) if self.alpha else fresh
            if not self.return_mean:
                first = elites[:, 0].argmax(dim=-1)  # (n, H, V)
                best = torch.where((values[:, 0] < best_cost)[:, None, None], first, best)
                best_cost = torch.minimum(values[:, 0], best_cost)
            if callbacks:
                callbacks(
                    step=step,
                    candidates=categories.flat(candidates),
                    costs=costs,
                    topk_vals=values,
                    topk_inds=order,
                    topk_candidates=categories.flat(elites),
                    probs=probs,
                    prev_probs=previous,
                )
        plan = probs.argmax(dim=-1)  # (n, H, V)
        cost = problem.evaluate(categories.flat(categories.one_hot(plan, probs.dtype))[:, None])[:, 0]
        if not self.return_mean:
            wins = best_cost < cost
            plan, cost = torch.where(wins[:, None, None], best, plan), torch.minimum(best_cost, cost)
        return {"actions": categories.env_actions(plan), "costs": cost, "probs": probs}

    def _draw(self, problem: Problem, probs: torch.Tensor, mask: torch.Tensor, step: int) -> torch.Tensor:
        """One-hot choices (n, S, H, V, C), where the distribution function passes a uniform number.

        The first are the most probable. Of the choices in `mask` (V, C) the last one reaches up to 1: rounding must not
        lead beyond it.
        """
        ends = probs.cumsum(dim=-1)[..., :-1].masked_fill(~mask[:, 1:], 1.0)[:, None]  # (n, 1, H, V, C - 1)
        uniform = problem.noise.uniform(step, (self.num_samples, *probs.shape[1:3]))  # (n, S, H, V)
        passed = (uniform[..., None] > ends).to(probs.dtype)  # (n, S, H, V, C - 1), ones and then zeros
        candidates = probs.new_empty(*uniform.shape, passed.shape[-1] + 1)
        candidates[..., 0] = 1.0
        candidates[..., 1:] = passed
        candidates[..., :-1] -= passed
        candidates[:, 0] = self._categories.one_hot(probs.argmax(dim=-1), probs.dtype)
        return candidates

    def _iterations(self) -> int:
        return self.n_steps
