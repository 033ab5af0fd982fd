"""iCEM: CEM with coloured noise, momentum and elites that are kept (Pinneri et al., arXiv 2008.06389)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.problem import Problem
from stable_worldmodel.solver.sampling import SamplingSolver, State

# What an argument left at None means. "public" is CEM's budget; "paper" the published one.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "public": {
        "num_samples": 300,
        "var_scale": 1.0,
        "n_steps": 30,
        "topk": 30,
        "noise_beta": 2.0,
        "n_elite_keep": 5,
        "return_mean": True,
    },
    "paper": {
        "num_samples": 40,
        "var_scale": 0.5,
        "n_steps": 3,
        "topk": 10,
        "noise_beta": 3.0,
        "n_elite_keep": 3,
        "return_mean": False,
    },
}
_DECAY = 1.25  # samples shrink by this factor per iteration of "paper"
_KEPT_EPISODES = 4096


class ICEMSolver(SamplingSolver):
    """Improved CEM. Arguments and results not named here: see SamplingSolver.

    Noise is coloured over time: its power falls with frequency as f^-noise_beta, and every action has standard
    deviation 1 for every horizon. Means and deviations keep the share `alpha` of their old value.

    mode "public": candidate 0 is the mean, the next `n_elite_keep` are the best of the previous iteration.

    mode "paper": samples shrink by 1.25 per iteration, but not below 2 * topk; the best `n_elite_keep` are kept across
    iterations and, shifted by the executed steps with the end drawn anew, across the decisions of an episode (given
    `keys`); the mean is a candidate in the last iteration only; `var_scale` counts in half widths of the action
    bounds where there are any; and the best sequence seen is returned.

    Arguments left at None have the values of their mode: num_samples 300 | 40, var_scale 1 | 0.5, n_steps 30 | 3,
    topk 30 | 10, noise_beta 2 | 3, n_elite_keep 5 | 3, return_mean True | False.
    """

    def __init__(
        self,
        model: Any = None,
        num_samples: int | None = None,
        var_scale: float | None = None,
        n_steps: int | None = None,
        topk: int | None = None,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        *,
        cost: Any = None,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        noise_beta: float | None = None,
        alpha: float = 0.1,
        n_elite_keep: int | None = None,
        return_mean: bool | None = None,
        min_std: float = 1e-3,
        max_std: float | None = None,
        mode: str = "public",
        compiled: bool = False,
    ):
        if mode not in _DEFAULTS:
            raise ContractError(f"mode={mode!r}: expected one of {sorted(_DEFAULTS)}")
        if compiled and mode == "paper":
            raise ContractError("compiled=True needs the same number of samples throughout: expected mode='public'")
        given = {
            "num_samples": num_samples,
            "var_scale": var_scale,
            "n_steps": n_steps,
            "topk": topk,
            "return_mean": return_mean,
            "noise_beta": noise_beta,
            "n_elite_keep": n_elite_keep,
        }
        chosen = _DEFAULTS[mode] | {key: value for key, value in given.items() if value is not None}
        self.noise_beta = chosen.pop("noise_beta")
        self.n_elite_keep = chosen.pop("n_elite_keep")
        if topk is None:
            chosen["topk"] = min(chosen["topk"], chosen["num_samples"])
        super().__init__(
            model,
            cost=cost,
            device=device,
            seed=seed,
            batch_size=batch_size,
            callbacks=callbacks,
            min_std=min_std,
            max_std=max_std,
            alpha=alpha,
            compiled=compiled,
            **chosen,
        )
        if self.noise_beta < 0 or self.n_elite_keep < 0:
            raise ContractError(f"noise_beta={noise_beta}, n_elite_keep={n_elite_keep}: expected >= 0")
        self.mode = mode
        self._keep = min(self.n_elite_keep, self.topk, self.num_samples - 1)
        self._kept: dict[int, tuple[int, torch.Tensor]] = {}  # episode -> (decision, elites (keep, H, A))

    def _configured(self) -> None:
        self._kept.clear()
        self._filter = time_filter(self._horizon, self.noise_beta)

    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, torch.Tensor]:
        self._filter = self._filter.to(problem.init_action)
        return super()._plan(problem, callbacks)

    def _start(self, problem: Problem) -> State:
        state = super()._start(problem)
        n = len(problem.rows)
        state["elites"] = state["mean"][:, None].repeat(1, self._keep, 1, 1)  # (n, keep, H, A)
        state["has_elites"] = torch.zeros(n, 1, 1, 1, dtype=torch.bool, device=self.device)
        if self.mode == "paper":
            if problem.bounds is not None:
                half = (problem.bounds[1] - problem.bounds[0]) / 2
                state["std"] = state["std"] * torch.where(half.isfinite(), half, 1.0)
            self._recall(problem, state)
        return state

    def _iterate(self, problem: Problem, state: State, step: int | torch.Tensor) -> tuple[State, State]:
        new, seen = super()._iterate(problem, state, step)
        if isinstance(step, torch.Tensor):
            new["has_elites"] = torch.ones_like(state["has_elites"])
        return new, seen

    def _candidates(self, problem: Problem, state: State, step: int | torch.Tensor) -> torch.Tensor:
        count = self._count(step)
        candidates = state["mean"].new_empty(len(state["mean"]), count, self._horizon, self._action_dim)
        noise = self._noise(problem, step, count)
        torch.addcmul(state["mean"][:, None], state["std"][:, None], noise, out=candidates)
        if self.mode == "public" or step == self.n_steps - 1:
            candidates[:, 0] = state["mean"]
        slots = candidates[:, 1 : 1 + self._keep]
        if isinstance(step, int) and step > 0:
            slots.copy_(state["elites"])
        elif isinstance(step, torch.Tensor) or self.mode == "paper":
            slots.copy_(torch.where(state["has_elites"], state["elites"], slots))
        return problem.clamp_(candidates)

    def _noise(self, problem: Problem, step: int | torch.Tensor, count: int) -> torch.Tensor:
        """Coloured noise (n, S, H, A), not contiguous."""
        horizon, width = problem.init_action.shape[1:]
        white = problem.noise.normal(step, (horizon, count, width))  # (n, H, S, A)
        if self.noise_beta and horizon > 1:
            filters = self._filter.expand(len(white), -1, -1)
            white = torch.bmm(filters, white.flatten(2)).unflatten(2, (count, width))
        return white.transpose(1, 2)

    def _count(self, step: int | torch.Tensor) -> int:
        if self.mode == "public" or isinstance(step, torch.Tensor):
            return self.num_samples
        return min(self.num_samples, max(2 * self.topk, int(self.num_samples / _DECAY**step)))

    def _finish(self, problem: Problem, state: State) -> dict[str, torch.Tensor]:
        if self.mode == "paper" and problem.episodes is not None and problem.decisions is not None:
            elites = state["elites"].clone()
            for row, (episode, decision) in enumerate(zip(problem.episodes, problem.decisions, strict=True)):
                self._kept.pop(int(episode), None)
                self._kept[int(episode)] = int(decision), elites[row]
            while len(self._kept) > _KEPT_EPISODES:
                self._kept.pop(next(iter(self._kept)))
        return super()._finish(problem, state)

    def _recall(self, problem: Problem, state: State) -> None:
        """Put the shifted elites of each env's previous decision into the state."""
        if problem.episodes is None or problem.decisions is None or not self._keep:
            return
        kept = [self._kept.get(int(episode), (-2, None)) for episode in problem.episodes]
        rows = [i for i, (decision, _) in enumerate(kept) if decision == problem.decisions[i] - 1]
        if not rows:
            return
        elites = torch.stack([kept[i][1] for i in rows])  # type: ignore[misc]  # (r, keep, H, A)
        executed = self._receding_horizon
        fresh = problem.noise.normal(self.n_steps, (self._keep, executed, self._action_dim))[rows]
        end = state["mean"][rows, None, -executed:] + state["std"][rows, None, -executed:] * fresh
        state["elites"][rows] = problem.clamp(torch.cat([elites[:, :, executed:], end], dim=2))
        state["has_elites"][rows] = True


def time_filter(horizon: int, beta: float) -> torch.Tensor:
    """The matrix (H, H), float64, that colours white noise along time; every output has variance 1.

    Its frequency response is f^(-beta / 2), at frequency 0 that of the lowest other one.
    """
    if horizon == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    response = np.fft.rfftfreq(horizon)
    response[0] = response[1]
    impulse = np.fft.irfft(response ** (-beta / 2), horizon)
    impulse /= np.linalg.norm(impulse)
    shifts = (np.arange(horizon)[:, None] - np.arange(horizon)) % horizon
    return torch.from_numpy(impulse[shifts])
