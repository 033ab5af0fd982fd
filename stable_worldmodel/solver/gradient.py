"""Planning by gradient descent through the model, from several starts at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.base import ChunkedSolver
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.problem import Problem

Losses = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


class GradientSolver(ChunkedSolver):
    """Gradient descent on action sequences with any torch optimiser.

    Start 0 is the warm start, the others are random offsets of it. After every step the actions are moved into their
    bounds. Starts are independent: gradients are clipped per env and start, and one whose cost is not finite stands
    still. Of each env the start with the lowest cost after the last step is the plan.

    Args:
        model, cost, device, seed, callbacks: see ChunkedSolver; the cost must be differentiable.
        n_steps: gradient steps.
        action_noise: standard deviation of Gaussian noise added after every step.
        num_samples: starts S per env.
        batch_size: most envs per chunk; None is all. Optimisers that mix all variables, such as LBFGS, need 1 and
            num_samples=1 to keep plans independent of each other.
        var_scale: standard deviation of the offsets.
        optimizer_cls, optimizer_kwargs: by default SGD with learning rate 1; a new one for every chunk.
        grad_clip: greatest norm of the gradient of one start.
        return_last: choose among the last plans of the starts; False chooses among all that were seen.
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
        optimizer_cls: type[torch.optim.Optimizer] | None = None,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        grad_clip: float | None = None,
        callbacks: Sequence[Callback] | None = None,
        return_last: bool = True,
    ):
        super().__init__(model, cost=cost, device=device, seed=seed, batch_size=batch_size, callbacks=callbacks)
        if n_steps < 1 or num_samples < 1:
            raise ContractError(f"n_steps={n_steps}, num_samples={num_samples}: expected >= 1")
        if action_noise < 0.0 or var_scale < 0.0 or (grad_clip is not None and grad_clip <= 0.0):
            raise ContractError(
                f"action_noise={action_noise}, var_scale={var_scale}, grad_clip={grad_clip}: expected numbers >= 0, "
                "grad_clip > 0"
            )
        self.n_steps = n_steps
        self.action_noise = action_noise
        self.num_samples = num_samples
        self.var_scale = var_scale
        self.optimizer_cls = optimizer_cls or torch.optim.SGD
        self.optimizer_kwargs = {"lr": 1.0} if optimizer_kwargs is None else dict(optimizer_kwargs)
        self.grad_clip = grad_clip
        self.return_last = return_last

    _needs_all_iterations = False

    def _most_at_once(self, n: int) -> int:
        return n  # few starts per env: batches pay on every device

    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, torch.Tensor]:
        params = self._starts(problem)  # (n, S, H, A)
        best = BestSeen(params)

        def losses(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            costs = self._costs(problem, params, step)
            best.update(params, _ranked(costs))
            return costs, costs

        self._descend(problem, params, losses, range(self.n_steps), callbacks)
        with torch.no_grad():
            # A start that went where nothing can be said about its cost goes back to where it was best.
            best.update(params, problem.evaluate(params, self.n_steps), self.return_last)
        return self._selected(problem, best)

    def _starts(self, problem: Problem) -> torch.nn.Parameter:
        offsets = problem.normal(0, self.num_samples) * self.var_scale
        offsets[:, 0] = 0.0
        return torch.nn.Parameter(self._feasible(problem, problem.init_action[:, None] + offsets))

    def _descend(
        self, problem: Problem, params: torch.nn.Parameter, losses: Losses, steps: range, callbacks: Callbacks
    ) -> None:
        """These steps of a new optimiser on `params` (n, S, H, A); `losses(step)` are what is descended, and costs."""
        optimizer = self.optimizer_cls([params], **self.optimizer_kwargs)
        for step in steps:
            seen: dict[str, torch.Tensor] = {}

            def closure(step: int = step, seen: dict[str, torch.Tensor] = seen) -> torch.Tensor:
                with torch.enable_grad():
                    descended, costs = losses(step)
                    loss = descended.where(descended.isfinite(), 0.0).sum()
                    # Gradients of the model's own parameters are nobody's business.
                    (gradient,) = torch.autograd.grad(loss, params)
                params.grad = self._clipped(gradient.nan_to_num_(0.0, 0.0, 0.0))
                if not seen:
                    seen.update(cost=loss.detach(), costs=costs.detach())
                return loss.detach()

            optimizer.step(closure)  # type: ignore[arg-type]
            if callbacks:
                callbacks(step=step, params=params, **seen)
            with torch.no_grad():
                if self.action_noise:
                    params.add_(problem.noise.normal(1 + step, tuple(params.shape[1:])), alpha=self.action_noise)
                params.copy_(self._feasible(problem, params))

    def _costs(self, problem: Problem, params: torch.Tensor, step: int) -> torch.Tensor:
        """Costs (n, S) with a gradient."""
        costs = problem.raw_costs(params)
        problem.count_excluded(_ranked(costs), step)
        return self._differentiable(costs)

    def _differentiable(self, costs: torch.Tensor) -> torch.Tensor:
        if not costs.requires_grad:
            raise ContractError(
                f"{type(self.cost).__name__}: the costs do not depend differentiably on the candidates; "
                "use a sampling solver, or remove no_grad and detach from the cost"
            )
        return costs

    def _feasible(self, problem: Problem, params: torch.Tensor) -> torch.Tensor:
        """The nearest allowed `params`."""
        return problem.clamp(params)

    def _clipped(self, gradient: torch.Tensor) -> torch.Tensor:
        if self.grad_clip is None:
            return gradient
        norms = gradient.flatten(2).norm(dim=2)  # (n, S)
        return gradient * (self.grad_clip / norms.clamp(min=1e-12)).clamp(max=1.0)[:, :, None, None]

    def _selected(self, problem: Problem, best: BestSeen) -> dict[str, torch.Tensor]:
        """The start of lowest cost per env."""
        cost, start = best.scores.min(dim=1)
        return {"actions": best.plans[torch.arange(len(start), device=start.device), start], "costs": cost}

    def _iterations(self) -> int:
        return self.n_steps + 1


class BestSeen:
    """Per env and start the plan of lowest score so far: `plans` (n, S, H, A), `scores` (n, S)."""

    def __init__(self, params: torch.Tensor):
        self.plans = params.detach().clone()
        self.scores = params.detach().new_full(params.shape[:2], torch.inf)

    @torch.no_grad()
    def update(self, plans: torch.Tensor, scores: torch.Tensor, replace: bool = False) -> torch.Tensor:
        """Take over plans with lower scores, or all whose score is finite; returns which, bool (n, S)."""
        wins = scores.isfinite() if replace else scores < self.scores
        self.plans = torch.where(wins[:, :, None, None], plans.detach(), self.plans)
        self.scores = torch.where(wins, scores.detach(), self.scores)
        return wins


def _ranked(costs: torch.Tensor) -> torch.Tensor:
    return costs.detach().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
