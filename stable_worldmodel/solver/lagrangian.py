"""Planning under constraints by the augmented Lagrangian (Bertsekas, "Constrained Optimization", 1982)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.gradient import BestSeen, GradientSolver
from stable_worldmodel.solver.problem import Problem, prepares

CostsAndConstraints = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
_INFEASIBLE = 1e30  # above every cost: among plans that break constraints the least broken one is best


class LagrangianSolver(GradientSolver):
    """Gradient descent on c + sum_i lambda_i g_i + rho sum_i max(0, g_i)^2, with constraints g (n, S, C) <= 0.

    After every `n_steps` steps each start's multipliers grow by rho * g (not below 0) and rho by `rho_scale`. The plan
    is the cheapest that was seen with all g <= `tolerance`, or if there is none, the one with the smallest violation.
    The constraints are the cost's `get_constraints`; a cost without them is descended as it is. If the cost has
    `cost_and_constraints(context, candidates)`, one rollout gives both.

    `solve` also returns `constraint_violation`, a list per chunk of max(0, g) (n, C) of the plans, and `lambdas`,
    likewise; both are None without constraints.

    Args:
        model, cost, num_samples, var_scale, action_noise, batch_size, grad_clip, device, seed, callbacks: see
            GradientSolver.
        n_steps: gradient steps per outer step.
        n_outer_steps: updates of the multipliers.
        rho_init, rho_scale, rho_max: the penalty's weight in the first outer step, its growth, its limit.
        persist_multipliers: start from the multipliers of the episode's previous decision (given `keys`; without them
            from those of the same row in the previous solve).
        optimizer_cls, optimizer_kwargs: by default Adam with learning rate 0.1; a new one for every outer step.
        tolerance: violation that still counts as feasible.
    """

    def __init__(
        self,
        model: Any = None,
        n_steps: int = 30,
        n_outer_steps: int = 5,
        num_samples: int = 1,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        *,
        cost: Any = None,
        batch_size: int | None = None,
        var_scale: float = 1.0,
        action_noise: float = 0.0,
        rho_init: float = 1.0,
        rho_scale: float = 2.0,
        rho_max: float = 1e4,
        persist_multipliers: bool = True,
        optimizer_cls: type[torch.optim.Optimizer] | None = None,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        grad_clip: float | None = None,
        callbacks: Sequence[Callback] | None = None,
        tolerance: float = 1e-4,
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
            optimizer_cls=optimizer_cls or torch.optim.Adam,
            optimizer_kwargs={"lr": 0.1} if optimizer_kwargs is None else optimizer_kwargs,
            grad_clip=grad_clip,
            callbacks=callbacks,
            return_last=False,
        )
        if n_outer_steps < 1 or not 0.0 < rho_init <= rho_max or rho_scale < 1.0 or tolerance < 0.0:
            raise ContractError(
                f"n_outer_steps={n_outer_steps}, rho_init={rho_init}, rho_scale={rho_scale}, rho_max={rho_max}, "
                f"tolerance={tolerance}: expected n_outer_steps >= 1, 0 < rho_init <= rho_max, rho_scale >= 1 and "
                "tolerance >= 0"
            )
        self.n_outer_steps = n_outer_steps
        self.rho_init = rho_init
        self.rho_scale = rho_scale
        self.rho_max = rho_max
        self.persist_multipliers = persist_multipliers
        self.tolerance = tolerance
        self._multipliers: dict[Any, tuple[int, torch.Tensor]] = {}  # env -> (decision, lambda (S, C))

    def _configured(self) -> None:
        self._multipliers.clear()

    def rho(self, outer: int) -> float:
        """Weight of the penalty in outer step `outer`."""
        return min(self.rho_max, self.rho_init * self.rho_scale**outer)

    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, Any]:
        if not callable(getattr(self.cost, "get_constraints", None)):
            plan = self._unconstrained(problem, callbacks)
            return {**plan, "constraint_violation": None, "lambdas": None}
        evaluate = self._evaluate(problem)
        params = self._starts(problem)
        with torch.no_grad():
            constraints = evaluate(params)[1]  # (n, S, C)
        multipliers = self._recall(problem, torch.zeros_like(constraints))
        best = BestSeen(params)
        violation = constraints.new_full(constraints.shape, torch.inf)
        rho = self.rho_init

        def observe(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            nonlocal violation
            costs, constraints = evaluate(params)
            over = constraints.detach().clamp(min=0.0)
            scores = self._scores(costs.detach(), over)
            problem.count_excluded(scores, step)
            violation = torch.where(best.update(params, scores)[:, :, None], over, violation)
            return costs, constraints

        def losses(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            costs, constraints = observe(step)
            penalty = (multipliers * constraints).sum(dim=2) + rho * constraints.clamp(min=0.0).square().sum(dim=2)
            return self._differentiable(costs + penalty), costs

        for outer in range(self.n_outer_steps):
            rho = self.rho(outer)
            steps = range(outer * self.n_steps, (outer + 1) * self.n_steps)
            self._descend(problem, params, losses, steps, callbacks)
            with torch.no_grad():
                constraints = observe(steps.stop)[1].nan_to_num(0.0, 0.0, 0.0)
                multipliers = (multipliers + rho * constraints).clamp_(min=0.0)
        return self._result(problem, evaluate, best, violation, multipliers)

    def _unconstrained(self, problem: Problem, callbacks: Callbacks) -> dict[str, torch.Tensor]:
        n_steps, self.n_steps = self.n_steps, self.n_steps * self.n_outer_steps
        try:
            return super()._plan(problem, callbacks)
        finally:
            self.n_steps = n_steps

    def _evaluate(self, problem: Problem) -> CostsAndConstraints:
        both = getattr(self.cost, "cost_and_constraints", None)
        if callable(both) and prepares(self.cost):
            return lambda candidates: problem.raw_costs_and_constraints(candidates, both)
        return lambda candidates: (
            problem.raw_costs(candidates),
            problem.checked_constraints(self.cost.get_constraints(problem.context, candidates), candidates),
        )

    def _scores(self, costs: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
        """What plans are compared by, (n, S): the cost of feasible ones, else the violation above every cost."""
        worst = over.amax(dim=2)
        scores = torch.where(worst <= self.tolerance, costs, _INFEASIBLE * (1.0 + worst))
        usable = costs.isfinite() & worst.isfinite()
        return scores.masked_fill(~usable, torch.inf)

    def _result(
        self,
        problem: Problem,
        evaluate: CostsAndConstraints,
        best: BestSeen,
        violation: torch.Tensor,
        multipliers: torch.Tensor,
    ) -> dict[str, Any]:
        chosen = best.scores.argmin(dim=1)
        rows = torch.arange(len(chosen), device=chosen.device)
        plans = best.plans[rows, chosen]
        with torch.no_grad():
            costs = evaluate(plans[:, None])[0][:, 0]
        for row, key in enumerate(self._keys(problem)):
            decision = -1 if problem.decisions is None else int(problem.decisions[row])
            self._multipliers[key] = decision, multipliers[row]
        return {
            "actions": plans,
            "costs": costs,
            "constraint_violation": violation[rows, chosen],
            "lambdas": multipliers[rows, chosen],
        }

    def _recall(self, problem: Problem, zeros: torch.Tensor) -> torch.Tensor:
        """Multipliers (n, S, C) to start with."""
        if not self.persist_multipliers:
            return zeros
        for row, key in enumerate(self._keys(problem)):
            decision, known = self._multipliers.get(key, (0, zeros[row]))
            follows = problem.decisions is None or decision == problem.decisions[row] - 1
            if follows and known.shape == zeros[row].shape:
                zeros[row] = known
        return zeros

    def _keys(self, problem: Problem) -> list[Any]:
        if problem.episodes is None:
            return [("row", int(row)) for row in problem.rows]
        return [int(episode) for episode in problem.episodes]

    def _iterations(self) -> int:
        return self.n_steps * self.n_outer_steps + 1
