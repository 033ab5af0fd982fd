"""What a planner did while its plans were executed: every decision, what it imagined, and what was seen afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.planning.diagnostics import imagine, per_env
from stable_worldmodel.planning.simulator import Row, restore
from stable_worldmodel.protocols import Info, Solver, Transformable
from stable_worldmodel.solver.common import cost_parameter, to_device

# What a recorder measures, as it is called in tables.
MEASURES = {
    "BestCostRecorder": "best cost",
    "MeanCostRecorder": "mean cost",
    "EliteSpreadRecorder": "elite spread",
    "VarNormRecorder": "deviation",
}


@dataclass(frozen=True)
class Decision:
    """One solve: what it was about, and what it gave."""

    info: Info  # prepared, (n, ...)
    result: dict[str, Any]

    def search(self, env: int = 0) -> dict[str, list[float]]:
        """What the recorders of the solver saw in every iteration, for one env, under the names of `MEASURES`."""
        histories = self.result.get("callbacks") or {}
        return {name: per_env(histories[key])[env].tolist() for key, name in MEASURES.items() if histories.get(key)}


class TracedSolver:
    """A solver that keeps every `Decision`, for a policy to plan with.

    Attributes:
        decisions: of all solves since it was made or cleared.
    """

    def __init__(self, solver: Solver):
        self.solver = solver
        self.decisions: list[Decision] = []
        self._keyed = "keys" in inspect.signature(solver.solve).parameters
        self._bounded = "action_bounds" in inspect.signature(solver.configure).parameters

    @property
    def n_envs(self) -> int | None:
        return self.solver.n_envs

    @property
    def action_dim(self) -> int:
        return self.solver.action_dim

    @property
    def horizon(self) -> int:
        return self.solver.horizon

    @property
    def fills_with_zeros(self) -> bool:
        return bool(getattr(self.solver, "fills_with_zeros", False))

    def configure(self, *, action_space: Any, n_envs: int, config: Any, action_bounds: Any = None) -> None:
        optional = {"action_bounds": action_bounds} if self._bounded else {}
        self.solver.configure(action_space=action_space, n_envs=n_envs, config=config, **optional)

    def solve(self, info: Info, init_action: Any = None, *, keys: Any = None) -> dict[str, Any]:
        optional = {"keys": keys} if self._keyed else {}
        result = self.solver.solve(info, init_action, **optional)
        self.decisions.append(Decision(info, result))
        return result


@torch.no_grad()
def latent_paths(cost: Any, decisions: Sequence[Decision]) -> tuple[np.ndarray, list[np.ndarray], list[torch.Tensor]]:
    """What a world model saw and imagined for the first env of each decision.

    Args:
        cost: the ShootingCostEvaluator that was planned with.
        decisions: of one env that plans again after every macro step.

    Returns:
        The latents of what was observed (T, d), flattened; per decision those of its plan (H + 1, d), from the present
        on; and the latter as the model gives them, (1, H + 1, ...).
    """
    parameter = cost_parameter(cost)
    like = torch.zeros(()) if parameter is None else parameter
    latents = []
    for decision in decisions:
        actions = decision.result["actions"]
        futures = imagine(cost, to_device(decision.info, like.device, like.dtype), actions.to(like))
        latents.append(futures[:1, -1 - actions.shape[1] :])  # (1, H + 1, ...)
    plans = [path.flatten(2)[0].float().cpu().numpy() for path in latents]
    return np.stack([plan[0] for plan in plans]), plans, latents


def simulated_paths(
    make_env: Callable[[], gym.Env],
    rows: Sequence[Row],
    decisions: Sequence[Decision],
    action_block: int,
    scaler: Transformable | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The `state` that was observed (T, d), and per decision that which its plan leads to in the real env (H + 1, d).

    Args:
        rows: what the env was in at each decision, see `SimulatorCost.prepare`.
        scaler: what the planned actions are scaled by.
    """
    env = make_env()
    plans = []
    try:
        for row, decision in zip(rows, decisions, strict=True):
            restore(env, row)
            macro_actions = np.asarray(decision.result["actions"][0], np.float64)  # (H, A)
            states = [np.asarray(row["state"], np.float64)]
            for macro in macro_actions.reshape(len(macro_actions), action_block, -1):
                actions = macro if scaler is None else np.asarray(scaler.inverse_transform(macro))
                for action in actions:
                    info = _executed(env, action)
                states.append(np.asarray(info["state"], np.float64))
            plans.append(np.stack(states))
    finally:
        env.close()
    return np.stack([plan[0] for plan in plans]), plans


def _executed(env: gym.Env, action: np.ndarray) -> Info:
    space = env.action_space
    if not isinstance(space, gym.spaces.Box):
        raise ContractError(f"action space {space}: expected a Box")
    return env.step(np.clip(action, space.low, space.high).astype(space.dtype).reshape(space.shape))[4]


def principal_components(executed: np.ndarray, plans: Sequence[np.ndarray], count: int = 3) -> tuple[Any, Any, float]:
    """Observed (T, d) and imagined (H + 1, d) paths in the `count` directions in which they vary most.

    Returns both, (T, k) and [(H + 1, k)], k = min(count, d), and the share of the variance that these directions have.
    """
    points = np.concatenate([executed, *plans])
    mean = points.mean(axis=0)
    _, values, directions = np.linalg.svd(points - mean, full_matrices=False)
    directions = directions[:count].T  # (d, k)
    share = float((values[:count] ** 2).sum() / max(float((values**2).sum()), 1e-30))
    return (executed - mean) @ directions, [(plan - mean) @ directions for plan in plans], share


def merged_search(decisions: Sequence[Decision]) -> dict[str, Any]:
    """The histories of several decisions as those of one solve, for `plot_search`."""
    merged: dict[str, list[Any]] = {}
    for decision in decisions:
        for key, history in (decision.result.get("callbacks") or {}).items():
            merged.setdefault(key, []).extend(history)
    return {"callbacks": merged}
