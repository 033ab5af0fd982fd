"""What CEM costs on top of the model it plans with: solver time over the time of the cost evaluations alone.

    python benchmarks/planning.py [--envs 1 8] [--repeats 15] [--device cpu]

Prints one JSON object per number of envs. Solver and bare evaluation (the same calls on fixed candidates) alternate in
one process, so that other load meets both; the best time of each counts. `ratio` should be at most 1.05 on a CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from stable_worldmodel.planning import GoalMSE, ShootingCostEvaluator
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.protocols import Info
from stable_worldmodel.solver import CEMSolver

SAMPLES, STEPS, ELITES = 300, 30, 30
HORIZON, BLOCK, ACTION = 5, 5, 2
LATENT, HIDDEN = 64, 384


class MLPDynamics(nn.Module):
    """0.2 M parameters, states for observations: the cheapest model anyone plans with, hence the hardest case."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, LATENT)
        self.step = nn.Sequential(
            nn.Linear(LATENT + ACTION * BLOCK, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, LATENT),
        )

    def encode(self, info: Info) -> Info:
        return {**info, "emb": self.encoder(info["state"])}

    def rollout(self, info: Info, candidates: torch.Tensor) -> Info:
        z = info["emb"][:, None].expand(-1, candidates.shape[1], -1, -1)  # (n, S, 1, D)
        latents = [z[:, :, 0]]
        for action in candidates.unbind(dim=2):
            latents.append(self.step(torch.cat([latents[-1], action], dim=-1)))
        return {**info, "predicted_emb": torch.stack(latents, dim=2)}


def seconds(work: Callable[[], Any], device: str) -> float:
    """Wall time of `work`, the device's queue included."""
    begin = time.perf_counter()
    work()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begin


def measure(n_envs: int, repeats: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = MLPDynamics().to(device)
    cost = ShootingCostEvaluator(model, GoalMSE())
    solver = CEMSolver(cost=cost, num_samples=SAMPLES, n_steps=STEPS, topk=ELITES, device=device)
    space = gym.spaces.Box(-1, 1, (n_envs, ACTION))
    config = PlanConfig(HORIZON, HORIZON, action_block=BLOCK)
    bounds = (np.full(ACTION, -2.0), np.full(ACTION, 2.0))
    solver.configure(action_space=space, n_envs=n_envs, config=config, action_bounds=bounds)
    rng = np.random.default_rng(0)
    info = {key: rng.normal(size=(n_envs, 1, 8)).astype(np.float32) for key in ("state", "goal_state")}
    keys = np.stack([np.arange(n_envs), np.zeros(n_envs, int)], axis=1)

    chunk = 1 if device == "cpu" else n_envs  # the solver's own choice
    first = {key: torch.from_numpy(value[:chunk]).to(device) for key, value in info.items()}
    prepared = cost.prepare(first)
    candidates = torch.randn(chunk, SAMPLES, HORIZON, BLOCK * ACTION, device=device)

    @torch.inference_mode()
    def evaluate() -> None:
        for _ in range(STEPS * n_envs // chunk):
            cost.get_cost(prepared, candidates)

    def solve() -> None:
        solver.solve(info, keys=keys)

    solve(), evaluate()  # warm up
    pairs = [(seconds(solve, device), seconds(evaluate, device)) for _ in range(repeats)]
    solver_s, bare_s = (min(column) for column in zip(*pairs, strict=True))
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "envs": n_envs,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "samples": SAMPLES,
        "iterations": STEPS,
        "solver_s": round(solver_s, 4),
        "bare_s": round(bare_s, 4),
        "ms_per_decision": round(1e3 * solver_s / n_envs, 2),
        "decisions_per_s": round(n_envs / solver_s, 1),
        "ratio": round(solver_s / bare_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for n_envs in options.envs:
        print(json.dumps(measure(n_envs, options.repeats, options.device)))


if __name__ == "__main__":
    main()
