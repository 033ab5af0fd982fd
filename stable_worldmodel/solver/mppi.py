"""MPPI: candidates count by the exponential of their cost (Williams et al., arXiv 1707.02342)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.callbacks import Callback
from stable_worldmodel.solver.problem import Problem
from stable_worldmodel.solver.sampling import SamplingSolver, State


class MPPISolver(SamplingSolver):
    """Model predictive path integral control. Arguments and results not named here: see SamplingSolver.

    Elite s counts softmax(-cost_s / temperature). By default the temperature is in units of how much the elites cost
    above the best one on average, so that it means the same whatever a cost is the sum of, and the deviation of the
    noise is refitted with the same weights. `relative=False, adapt_std=False` is MPPI as published.

    Args:
        num_elites, use_elites: early names; `topk` is `num_elites` if `use_elites`, else all candidates count.
        temperature: 0 leaves only the cheapest.
        topk: candidates that count; more than `num_samples` means all.
        relative: measure the temperature in the elites' mean cost above the best.
        perturbation_weight: lambda of the term lambda * u' Sigma^-1 noise, which is added to every cost.
        sample_elite: return an elite drawn with the final weights in place of the mean.
        num_proposals: sequences that the model proposes and that are candidates of every iteration, behind the mean.
            The cost then has `propose(context, noise (n, P, H, A)) -> (n, P, H, A)`, noise being standard normal.
    """

    def __init__(
        self,
        model: Any = None,
        num_samples: int = 300,
        num_elites: int = 30,
        var_scale: float = 1.0,
        n_steps: int = 30,
        use_elites: bool = True,
        temperature: float = 0.5,
        device: torch.device | str = "cpu",
        *,
        cost: Any = None,
        batch_size: int | None = None,
        topk: int | None = None,
        seed: int = 1234,
        callbacks: Sequence[Callback] | None = None,
        relative: bool = True,
        adapt_std: bool = True,
        min_std: float = 1e-3,
        max_std: float | None = None,
        alpha: float = 0.0,
        perturbation_weight: float = 0.0,
        sample_elite: bool = False,
        num_proposals: int = 0,
        return_mean: bool = True,
        compiled: bool = False,
    ):
        if temperature < 0.0:
            raise ContractError(f"temperature={temperature}: expected >= 0")
        elites = topk if topk is not None else num_elites if use_elites else num_samples
        super().__init__(
            model,
            cost=cost,
            device=device,
            seed=seed,
            batch_size=batch_size,
            callbacks=callbacks,
            num_samples=num_samples,
            var_scale=var_scale,
            n_steps=n_steps,
            topk=min(elites, num_samples),
            min_std=min_std,
            max_std=max_std,
            alpha=alpha,
            adapt_std=adapt_std,
            return_mean=return_mean,
            compiled=compiled,
        )
        self.temperature = temperature
        self.relative = relative
        self.perturbation_weight = perturbation_weight
        self.sample_elite = sample_elite
        if not 0 <= num_proposals < num_samples:
            raise ContractError(f"num_proposals={num_proposals}: expected 0..num_samples - 1 ({num_samples - 1})")
        if num_proposals and not _proposes(self.cost):
            raise ContractError(
                f"num_proposals={num_proposals}: {type(self.cost).__name__} has no propose(context, noise); "
                "plan with a model that has an actor, or without proposals"
            )
        self.num_proposals = num_proposals

    @classmethod
    def tdmpc2(cls, cost: Any, **settings: Any) -> MPPISolver:
        """The planner of TD-MPC2 (arXiv 2310.16828): 6 iterations, 512 samples, 64 elites, deviation <= 2.

        Its score is exp(0.5 * (value - best value)), and the executed sequence is drawn from the elites. 24 of the
        candidates are proposals of the cost, if it makes any. The caller gives actions in [-1, 1] and `settings` to
        differ in.
        """
        published: dict[str, Any] = {
            "num_samples": 512,
            "topk": 64,
            "n_steps": 6,
            "var_scale": 2.0,
            "min_std": 0.05,
            "max_std": 2.0,
            "temperature": 1 / 0.5,
            "relative": False,
            "sample_elite": True,
            "num_proposals": 24 if _proposes(cost) else 0,
        }
        return cls(cost=cost, **{**published, **settings})

    def _start(self, problem: Problem) -> State:
        state = super()._start(problem)
        if self.num_proposals:
            noise = problem.normal(self.n_steps, self.num_proposals)  # no iteration has this number
            proposals = self.cost.propose(problem.context, noise).to(noise)
            if proposals.shape != noise.shape:
                raise ContractError(
                    f"{type(self.cost).__name__}.propose returned {tuple(proposals.shape)}: "
                    f"expected {tuple(noise.shape)}, the shape of its noise"
                )
            state["proposals"] = problem.clamp(proposals)  # (n, P, H, A)
        if self.sample_elite:
            state["elites"] = state["mean"][:, None].repeat(1, self.topk, 1, 1)
            state["values"] = state["mean"].new_zeros(len(problem.rows), self.topk)
        return state

    def _candidates(self, problem: Problem, state: State, step: int | torch.Tensor) -> torch.Tensor:
        candidates = super()._candidates(problem, state, step)
        if self.num_proposals:
            candidates[:, 1 : 1 + self.num_proposals] = state["proposals"]
        return candidates

    def _iterate(self, problem: Problem, state: State, step: int | torch.Tensor) -> tuple[State, State]:
        new, seen = super()._iterate(problem, state, step)
        if self.sample_elite:
            new["values"] = seen["topk_vals"]
        return new, seen

    def _ranked(self, problem: Problem, state: State, candidates: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
        if not self.perturbation_weight:
            return costs
        mean = state["mean"][:, None]
        force = mean / state["std"][:, None].square().clamp(min=torch.finfo(mean.dtype).tiny)
        return costs + self.perturbation_weight * (force * (candidates - mean)).sum(dim=(2, 3))

    def _weights(self, values: torch.Tensor) -> torch.Tensor:
        below = values[:, :1] - values  # (n, topk), descending from 0
        tiny = torch.finfo(values.dtype).tiny
        if not self.relative:
            return torch.softmax(below / max(self.temperature, tiny), dim=1)
        finite = (values != torch.inf).to(values.dtype)
        total = below.nan_to_num(neginf=0.0).sum(dim=1, keepdim=True)  # (n, 1), of the finite ones
        scale = total.mul_(-self.temperature).div_(finite.sum(dim=1, keepdim=True)).clamp_(min=tiny)
        return torch.softmax(below / scale, dim=1)

    def _finish(self, problem: Problem, state: State) -> dict[str, torch.Tensor]:
        result = super()._finish(problem, state)
        if self.sample_elite:
            uniform = problem.noise.uniform(self.n_steps, (self.topk,))
            scores = self._weights(state["values"]).log() - uniform.log().neg().log()
            chosen = scores.argmax(dim=1, keepdim=True)  # (n, 1)
            result["actions"] = state["elites"].take_along_dim(chosen[:, :, None, None], dim=1)[:, 0]
            result["costs"] = state["values"].take_along_dim(chosen, dim=1)[:, 0]
        return result


def _proposes(cost: Any) -> bool:
    return callable(getattr(cost, "propose", None))
