"""One chunk of envs to plan for: everything a planner needs besides its algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.common import cost_parameter
from stable_worldmodel.solver.noise import Noise

Bounds = tuple[torch.Tensor, torch.Tensor]
Evaluate = Callable[[Any, torch.Tensor], torch.Tensor]


class NoFiniteCostError(ContractError):
    """No candidate of an env has a finite cost, so there is nothing to choose from.

    Attributes:
        rows: the envs, as rows of the info that was solved for.
        iteration: the first iteration in which it happened.
    """

    def __init__(self, rows: list[int], iteration: int, name: str = "rows"):
        super().__init__(
            f"{name} {rows}: every candidate of iteration {iteration} has a cost that is NaN or infinite; "
            "check the model's weights and the info for NaN values"
        )
        self.rows = rows
        self.iteration = iteration


@dataclass(frozen=True)
class Settings:
    """What all chunks of a solver share."""

    cost: Any
    bounds: Bounds | None  # each (A,)
    iterations: int  # times that costs are evaluated for choosing
    compiled: bool = False  # run the iterations as one captured graph where the device can


class Problem:
    """One chunk of n envs.

    Attributes:
        rows: which rows of the solved info they are, int64 (n,).
        episodes: first entry of each env's noise key, int64 (n,); None for a solve without keys.
        decisions: second entry, likewise.
        context: what the cost's `prepare` returned, or else the info of these rows.
        init_action: the completed warm start (n, H, A); float32 even if the cost computes in less.
        noise: keyed random numbers.
        model_steps: model transitions evaluated so far.
    """

    def __init__(
        self,
        settings: Settings,
        rows: np.ndarray,
        keys: np.ndarray | None,
        context: Any,
        init_action: torch.Tensor,
        noise: Noise,
    ):
        self.rows = rows
        self.episodes = None if keys is None else keys[:, 0]
        self.decisions = None if keys is None else keys[:, 1]
        self.context = context
        self.init_action = init_action
        self.noise = noise
        self.model_steps = 0
        self.compiled = settings.compiled
        bounds = settings.bounds
        self._bounds = bounds and (bounds[0].to(init_action), bounds[1].to(init_action))
        # As long as a plan: clamping then runs over whole sequences and not over single actions.
        self._limits = self._bounds and tuple(
            bound.expand(init_action.shape[1:]).contiguous() for bound in self._bounds
        )
        parameter = cost_parameter(settings.cost)
        self._cost_dtype = init_action.dtype if parameter is None else parameter.dtype
        self._name, self._evaluate = cost_function(settings.cost)
        # What candidates of an iteration cost; looked at once, after the last one.
        self._counted: list[tuple[int, torch.Tensor]] = []
        # Excluded candidates per iteration of a captured loop, and how many candidates an iteration has.
        self._excluded = torch.zeros(len(rows), settings.iterations, dtype=torch.int64, device=init_action.device)
        self._offered = 0

    @property
    def bounds(self) -> Bounds | None:
        """Least and greatest actions, each (A,), of the plan's dtype; infinite entries are free."""
        return self._bounds

    def clamp(self, actions: torch.Tensor) -> torch.Tensor:
        """Actions (..., H, A) moved into the action bounds, if there are any."""
        return actions if self._limits is None else actions.clamp(*self._limits)

    def clamp_(self, actions: torch.Tensor) -> torch.Tensor:
        """The same in place."""
        return actions if self._limits is None else actions.clamp_(*self._limits)

    def normal(self, iteration: int | torch.Tensor, num_samples: int) -> torch.Tensor:
        """Standard normal noise (n, S, H, A); row i is a function of env i's key and the iteration only."""
        return self.noise.normal(iteration, (num_samples, *self.init_action.shape[1:]))

    def evaluate(self, candidates: torch.Tensor, iteration: int | torch.Tensor | None = None) -> torch.Tensor:
        """Costs (n, S) of candidates (n, S, H, A), at least float32; infinity where the cost is not finite.

        With an `iteration` candidates without a finite cost are counted, and an env that has no others is an error at
        the end of the solve.
        """
        costs = self.raw_costs(candidates)
        costs = costs.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
        if iteration is not None:
            self.count_excluded(costs, iteration)
        return costs

    def raw_costs(self, candidates: torch.Tensor) -> torch.Tensor:
        """Costs (n, S) as the cost gives them, in the plan's dtype."""
        costs = self._evaluate(self.context, candidates.to(self._cost_dtype))
        self.model_steps += candidates.shape[:3].numel()
        return checked_costs(costs, candidates, self._name).to(self.init_action.dtype)

    def raw_costs_and_constraints(
        self, candidates: torch.Tensor, both: Callable[[Any, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Costs (n, S) and constraints (n, S, C) of one rollout by the cost's own function for both."""
        costs, constraints = both(self.context, candidates.to(self._cost_dtype))
        self.model_steps += candidates.shape[:3].numel()
        costs = checked_costs(costs, candidates, self._name).to(self.init_action.dtype)
        return costs, self.checked_constraints(constraints, candidates)

    def checked_constraints(self, constraints: Any, candidates: torch.Tensor) -> torch.Tensor:
        """`constraints` in the plan's dtype, or ContractError unless it is a tensor (n, S, C)."""
        expected = tuple(candidates.shape[:2])
        if not isinstance(constraints, torch.Tensor) or constraints.ndim != 3 or constraints.shape[:2] != expected:
            found = tuple(constraints.shape) if isinstance(constraints, torch.Tensor) else type(constraints).__name__
            raise ContractError(f"the constraints are {found}: expected a tensor ({expected[0]}, {expected[1]}, C)")
        return constraints.to(self.init_action.dtype)

    def count_excluded(self, costs: torch.Tensor, iteration: int | torch.Tensor) -> None:
        """Note which of the costs (n, S) are infinite; they must not be modified afterwards."""
        if isinstance(iteration, int):
            self._counted.append((iteration, costs))
        else:
            self._offered = costs.shape[1]
            self._excluded.index_copy_(1, iteration.view(1), (costs == torch.inf).sum(dim=1, keepdim=True))

    def excluded(self, needs_all_iterations: bool = True) -> torch.Tensor:
        """Candidates left out so far per env, int64 (n,).

        Raises NoFiniteCostError if an env had no others in one iteration, or, without `needs_all_iterations`, in all.
        """
        steps, counts, offered = self._counts()  # (i,), (n, i), (i,)
        failed = counts == offered
        if not needs_all_iterations:
            failed = failed.all(dim=1, keepdim=True)
        if len(steps) and failed.any():
            first = int(failed.any(dim=0).nonzero()[0])
            raise NoFiniteCostError(self.rows[failed[:, first].numpy()].tolist(), steps[first])
        return counts.sum(dim=1)

    def _counts(self) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        """Iterations that were counted, excluded candidates of each env in them, and how many there were."""
        if self._offered:
            counts = self._excluded.cpu()
            return list(range(counts.shape[1])), counts, torch.full(counts.shape[1:], self._offered)
        steps, costs = [step for step, _ in self._counted], [seen for _, seen in self._counted]
        sizes = [seen.shape[1] for seen in costs]
        if not steps:
            return [], torch.zeros(len(self.rows), 0, dtype=torch.int64), torch.zeros(0)
        if len(set(sizes)) == 1:
            counts = (torch.stack(costs, dim=1) == torch.inf).sum(dim=2)
        else:
            counts = torch.stack([(seen == torch.inf).sum(dim=1) for seen in costs], dim=1)
        return steps, counts.cpu(), torch.tensor(sizes)


def cost_function(cost: Any) -> tuple[str, Evaluate]:
    """How a cost scores candidates once its context is prepared, and the name of that function for messages."""
    name = "cost" if prepares(cost) and callable(getattr(cost, "cost", None)) else "get_cost"
    return f"{type(cost).__name__}.{name}", getattr(cost, name)


def prepares(cost: Any) -> bool:
    """Whether a cost has `prepare`."""
    return callable(getattr(cost, "prepare", None))


def checked_costs(costs: Any, candidates: torch.Tensor, name: str) -> torch.Tensor:
    """`costs`, or ContractError unless it is a tensor (n, S)."""
    if not isinstance(costs, torch.Tensor) or costs.shape != candidates.shape[:2]:
        found = f"a tensor {tuple(costs.shape)}" if isinstance(costs, torch.Tensor) else type(costs).__name__
        raise ContractError(
            f"{name} returned {found}: expected a tensor {tuple(candidates.shape[:2])}, one cost per env and candidate"
        )
    return costs
