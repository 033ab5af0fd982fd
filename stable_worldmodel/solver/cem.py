"""The cross-entropy method: sample around a mean, refit mean and deviation to the best samples, repeat.

R. Rubinstein and D. Kroese, "The Cross-Entropy Method" (2004).
"""

from __future__ import annotations

from typing import Any

import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.base import ChunkedSolver
from stable_worldmodel.solver.common import Problem


class CEMSolver(ChunkedSolver):
    """CEM over action sequences. Candidate 0 of every iteration is the current mean.

    `solve` also returns the final sampling distribution: `mean` and `std` (alias `var`, its historical name), each a
    list of one tensor (n, H, A).

    Args:
        model, cost, device, seed, batch_size: see ChunkedSolver.
        num_samples: candidates S per env and iteration.
        var_scale: standard deviation of the first iteration.
        n_steps: iterations.
        topk: elites refitted to, at most `num_samples`.
        min_std: floor of the deviation, so that it cannot collapse (one elite has none).
        alpha: weight of the old mean and deviation in a refit; 0 forgets them.
        return_mean: return the final mean; False returns the best sequence seen in any iteration.
    """

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
        min_std: float = 1e-3,
        alpha: float = 0.0,
        return_mean: bool = True,
    ):
        super().__init__(model, cost=cost, device=device, seed=seed, batch_size=batch_size)
        if not 1 <= topk <= num_samples:
            raise ContractError(f"topk={topk}: expected 1..num_samples ({num_samples})")
        if n_steps < 1:
            raise ContractError(f"n_steps={n_steps}: expected >= 1")
        if not 0.0 <= alpha < 1.0:
            raise ContractError(f"alpha={alpha}: expected in [0, 1)")
        if min_std < 0.0 or var_scale < 0.0:
            raise ContractError(f"min_std={min_std}, var_scale={var_scale}: expected >= 0")
        self.num_samples = num_samples
        self.var_scale = var_scale
        self.n_steps = n_steps
        self.topk = topk
        self.min_std = min_std
        self.alpha = alpha
        self.return_mean = return_mean

    @torch.inference_mode()
    def _plan(self, problem: Problem) -> dict[str, torch.Tensor]:
        mean = problem.clamp(problem.init_action)  # (n, H, A)
        std = torch.full_like(mean, self.var_scale)
        best, best_cost = mean, mean.new_full(mean.shape[:1], torch.inf)
        noise = problem.normal(self.n_steps, self.num_samples)  # (n, n_steps, S, H, A)
        noise[:, :, 0] = 0.0
        for step in range(self.n_steps):
            candidates = problem.clamp(torch.addcmul(mean[:, None], std[:, None], noise[:, step]))  # (n, S, H, A)
            costs, order = problem.evaluate(candidates).topk(self.topk, dim=1, largest=False)  # (n, topk)
            elites = torch.take_along_dim(candidates, order[:, :, None, None], dim=1)  # (n, topk, H, A)
            if not self.return_mean:
                best, best_cost = _better(best, best_cost, elites[:, 0], costs[:, 0])
            elite_std, elite_mean = torch.std_mean(elites, dim=1, correction=0)
            mean = torch.lerp(elite_mean, mean, self.alpha)
            std = torch.lerp(elite_std, std, self.alpha).clamp_min(self.min_std)
        plan = problem.clamp(mean)
        plan_cost = problem.evaluate(plan[:, None])[:, 0]  # (n,)
        if not self.return_mean:
            plan, plan_cost = _better(best, best_cost, plan, plan_cost)
        return {"actions": plan, "costs": plan_cost, "mean": mean, "std": std, "var": std}


def _better(
    plan: torch.Tensor, cost: torch.Tensor, other: torch.Tensor, other_cost: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per env, the one of two plans (n, H, A) whose cost (n,) is lower."""
    wins = other_cost < cost
    return torch.where(wins[:, None, None], other, plan), torch.where(wins, other_cost, cost)
