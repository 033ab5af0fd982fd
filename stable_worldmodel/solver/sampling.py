"""The loop that CEM, iCEM, MPPI and predictive sampling share: draw around a mean, score, refit to the best, repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.base import ChunkedSolver
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.problem import Problem

State = dict[str, torch.Tensor]
_WARM_UP = 2  # iterations before a loop is captured


class SamplingSolver(ChunkedSolver):
    """Base of the planners that keep a mean and a standard deviation per action, both (n, H, A).

    One iteration draws `num_samples` candidates around the mean and takes the `topk` cheapest; `_weights` says how much
    each of them counts in the new mean and deviation. Candidates whose cost is not finite count nothing. The returned
    plan is evaluated as one more candidate. Nothing in the loop waits for the device.

    `solve` also returns the final sampling distribution: `mean` and `std` (alias `var`, its historical name), each a
    list of one tensor (n, H, A).

    Args:
        model, cost, device, seed, batch_size, callbacks: see ChunkedSolver.
        num_samples: candidates S per env and iteration.
        var_scale: standard deviation of the first iteration.
        n_steps: iterations.
        topk: elites refitted to, at most `num_samples`.
        min_std, max_std: bounds of the deviation, so that it cannot collapse (one elite has none) or run away.
        alpha: weight of the old mean and deviation in a refit; 0 forgets them.
        adapt_std: refit the deviation; False keeps `var_scale`.
        return_mean: return the final mean; False returns the best sequence seen in any iteration.
        compiled: capture an iteration as one CUDA graph and replay it; elsewhere the same code runs eagerly. The cost
            must not wait for the device or depend on its values, and callbacks are refused.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        cost: Any = None,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        num_samples: int,
        var_scale: float,
        n_steps: int,
        topk: int,
        min_std: float = 1e-3,
        max_std: float | None = None,
        alpha: float = 0.0,
        adapt_std: bool = True,
        return_mean: bool = True,
        compiled: bool = False,
    ):
        super().__init__(model, cost=cost, device=device, seed=seed, batch_size=batch_size, callbacks=callbacks)
        if not 1 <= topk <= num_samples:
            raise ContractError(f"topk={topk}: expected 1..num_samples ({num_samples})")
        if n_steps < 1:
            raise ContractError(f"n_steps={n_steps}: expected >= 1")
        if not 0.0 <= alpha < 1.0:
            raise ContractError(f"alpha={alpha}: expected in [0, 1)")
        if min_std < 0.0 or var_scale < 0.0 or (max_std is not None and max_std < min_std):
            raise ContractError(
                f"min_std={min_std}, max_std={max_std}, var_scale={var_scale}: expected 0 <= min_std <= max_std and "
                "var_scale >= 0"
            )
        if compiled and callbacks:
            raise ContractError("compiled=True and callbacks exclude each other: a captured loop cannot call Python")
        self.num_samples = num_samples
        self.var_scale = var_scale
        self.n_steps = n_steps
        self.topk = topk
        self.min_std = min_std
        self.max_std = max_std
        self.alpha = alpha
        self.adapt_std = adapt_std
        self.return_mean = return_mean
        self.compiled = compiled

    @torch.inference_mode()
    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, torch.Tensor]:
        state = self._start(problem)
        if problem.compiled:
            state = _captured(lambda now, step: self._iterate(problem, now, step)[0], problem, state, self.n_steps)
        else:
            for step in range(self.n_steps):
                previous = state
                state, seen = self._iterate(problem, state, step)
                if callbacks:
                    callbacks(**_recorded(problem, step, previous, state, seen))
        return self._finish(problem, state)

    def _iterate(self, problem: Problem, state: State, step: int | torch.Tensor) -> tuple[State, State]:
        """The state after one iteration, and what was seen in it."""
        candidates = self._candidates(problem, state, step)  # (n, S, H, A)
        costs = problem.evaluate(candidates, step)  # (n, S)
        values, order = self._ranked(problem, state, candidates, costs).topk(self.topk, dim=1, largest=False)
        shape = candidates.shape[2:]
        index = order[:, :, None].expand(-1, -1, shape.numel())
        flat = candidates.flatten(2).gather(1, index)  # (n, topk, H * A)
        elites = flat.unflatten(2, shape)  # (n, topk, H, A)
        weights = self._weights(values)[:, None]  # (n, 1, topk)
        mean = torch.bmm(weights, flat)  # (n, 1, H * A)
        new = {**state, "mean": self._blend(mean.view_as(state["mean"]), state["mean"])}
        if self.adapt_std:
            std = torch.bmm(weights, (flat - mean).square_()).sqrt_()
            new["std"] = self._blend(std.view_as(state["std"]), state["std"]).clamp_(self.min_std, self.max_std)
        if not self.return_mean:
            new["best"], new["best_cost"] = _better(state["best"], state["best_cost"], elites[:, 0], values[:, 0])
        if "elites" in state:
            new["elites"] = elites[:, : state["elites"].shape[1]]
        seen = {"candidates": candidates, "costs": costs, "topk_vals": values, "topk_inds": order, "elites": elites}
        return new, seen

    def _start(self, problem: Problem) -> State:
        """The state before the first iteration; `mean` and `std` at least."""
        mean = problem.clamp(problem.init_action)
        state = {"mean": mean, "std": torch.full_like(mean, self.var_scale)}
        if not self.return_mean:
            state |= {"best": mean, "best_cost": mean.new_full(mean.shape[:1], torch.inf)}
        return state

    def _candidates(self, problem: Problem, state: State, step: int | torch.Tensor) -> torch.Tensor:
        """Action sequences (n, S, H, A) within the bounds; the first is the mean."""
        noise = problem.normal(step, self.num_samples)
        candidates = torch.addcmul(state["mean"][:, None], state["std"][:, None], noise)
        candidates[:, 0] = state["mean"]
        return problem.clamp_(candidates)

    def _ranked(self, problem: Problem, state: State, candidates: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
        """The costs (n, S) by which candidates are ranked and weighted."""
        return costs

    def _weights(self, values: torch.Tensor) -> torch.Tensor:
        """How much each elite counts, (n, topk), given its cost in ascending order: all finite ones the same."""
        # Scaled by next to nothing, finite costs are equal and infinite ones stay; without a finite one none counts.
        return torch.softmax(values * -torch.finfo(values.dtype).tiny, dim=1).nan_to_num_(0.0)

    def _blend(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return torch.lerp(new, old, self.alpha) if self.alpha else new

    def _finish(self, problem: Problem, state: State) -> dict[str, torch.Tensor]:
        plan = problem.clamp(state["mean"])
        cost = problem.evaluate(plan[:, None])[:, 0]  # (n,)
        if not self.return_mean:
            plan, cost = _better(state["best"], state["best_cost"], plan, cost)
        return {"actions": plan, "costs": cost, "mean": state["mean"], "std": state["std"], "var": state["std"]}

    def _iterations(self) -> int:
        return self.n_steps

    def _compiles(self) -> bool:
        return self.compiled


def _better(
    plan: torch.Tensor, cost: torch.Tensor, other: torch.Tensor, other_cost: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per env, the one of two plans (n, H, A) whose cost (n,) is lower."""
    wins = other_cost < cost
    return torch.where(wins[:, None, None], other, plan), torch.where(wins, other_cost, cost)


def _recorded(problem: Problem, step: int, previous: State, state: State, seen: State) -> dict[str, Any]:
    """What callbacks get."""
    record: dict[str, Any] = {key: value for key, value in seen.items() if key != "elites"}
    record |= {"step": step, "topk_candidates": seen["elites"]}
    record |= {"mean": state["mean"], "prev_mean": previous["mean"], "var": state["std"], "prev_var": previous["std"]}
    if problem.bounds is not None:
        record |= dict(zip(("action_low", "action_high"), problem.bounds, strict=True))
    return record


def _captured(iterate: Callable[[State, torch.Tensor], State], problem: Problem, state: State, n_steps: int) -> State:
    """`n_steps` iterations whose state lives in fixed memory and whose step is counted on the device.

    On CUDA the third one is captured as a graph and replayed; elsewhere all run eagerly.
    """
    fixed = {key: value.clone() for key, value in state.items()}
    step = torch.zeros((), dtype=torch.int64, device=problem.init_action.device)

    def advance() -> None:
        new = iterate(fixed, step)
        for key, value in fixed.items():
            value.copy_(new[key])
        step.add_(1)

    captures = step.device.type == "cuda" and n_steps > _WARM_UP
    eager = _WARM_UP if captures else n_steps
    for _ in range(eager):
        advance()
    if captures:
        torch.cuda.synchronize(step.device)
        steps_before = problem.model_steps
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            advance()
        steps_per_replay = problem.model_steps - steps_before
        for _ in range(n_steps - eager):
            graph.replay()
        problem.model_steps = steps_before + steps_per_replay * (n_steps - eager)
    return fixed
