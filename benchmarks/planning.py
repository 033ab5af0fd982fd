"""What planning costs on top of the model it plans with, and what not computing things twice saves.

    python benchmarks/planning.py solvers [--envs 1 8 50] [--solver cem icem mppi predictive categorical]
    python benchmarks/planning.py batching [--envs 50]
    python benchmarks/planning.py savings [--preset small]
    python benchmarks/planning.py lewm --device cuda [--envs 1 50] [--bf16 autocast|weights] [--compiled]

`solvers`: time of a solve over the time of its bare cost evaluations, which are the same candidate tensors in the same
batches, recorded in a solve before (`ratio`), and over the time that the solve itself spent in its cost
(`ratio_within`, which other load hardly disturbs). 300 samples x 30 iterations (predictive sampling: 9000 samples
once) of an MLP of 0.2 M parameters.
`batching`: envs in one solve against one solve per env. `savings`: keys and values kept against
recomputed, observation and goal encoded once against in every iteration, last prediction against all, the newest of
three frames encoded against all of them, with LeWM.
`lewm`: seconds per decision of CEM with the published LeWM.

Prints one JSON object per case. On a CPU the times are CPU time, so run with OMP_NUM_THREADS=1. The two sides
of a ratio alternate in one process, so that other load meets both; a ratio is the median over the pairs, a time the
least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from stable_worldmodel.planning import (
    CategoricalCEMSolver,
    CEMSolver,
    GoalMSE,
    ICEMSolver,
    MPPISolver,
    PredictiveSamplingSolver,
    ShootingCostEvaluator,
)
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.protocols import Info

SAMPLES, STEPS, ELITES = 300, 30, 30
HORIZON, BLOCK, ACTION = 5, 5, 2
LATENT, HIDDEN = 64, 384

SOLVERS: dict[str, Callable[..., Any]] = {
    "cem": lambda **k: CEMSolver(num_samples=SAMPLES, n_steps=STEPS, topk=ELITES, **k),
    "icem": lambda **k: ICEMSolver(num_samples=SAMPLES, n_steps=STEPS, topk=ELITES, **k),
    "mppi": lambda **k: MPPISolver(num_samples=SAMPLES, n_steps=STEPS, topk=ELITES, **k),
    "predictive": lambda **k: PredictiveSamplingSolver(num_samples=SAMPLES * STEPS, **k),
    "categorical": lambda **k: CategoricalCEMSolver(num_samples=SAMPLES, n_steps=STEPS, topk=ELITES, **k),
}


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

    def rollout(self, info: Info, candidates: torch.Tensor, *, last_only: bool = False) -> Info:
        z = info["emb"][:, None].expand(-1, candidates.shape[1], -1, -1)  # (n, S, 1, D)
        latents = [z[:, :, 0]]
        for action in candidates.unbind(dim=2):
            latents.append(self.step(torch.cat([latents[-1], action], dim=-1)))
        return {**info, "predicted_emb": latents[-1][:, :, None] if last_only else torch.stack(latents, dim=2)}


class Recorder(ShootingCostEvaluator):
    """An evaluator that keeps what it was asked."""

    calls: list[tuple[Info, torch.Tensor]] | None = None
    inside = 0.0  # seconds spent in `cost`

    def cost(self, context: Info, candidates: torch.Tensor) -> torch.Tensor:
        if self.calls is not None:
            self.calls.append((context, candidates.clone()))
        begin = time.process_time()
        costs = super().cost(context, candidates)
        self.inside += time.process_time() - begin
        return costs


def seconds(work: Callable[[], Any], device: str = "cpu") -> float:
    """CPU time of `work`, which other load does not add to; on other devices wall time, the device's queue included."""
    if device == "cpu":
        begin = time.process_time()
        work()
        return time.process_time() - begin
    begin = time.perf_counter()
    work()
    torch.accelerator.synchronize()
    return time.perf_counter() - begin


def compared(ours: Callable[[], Any], other: Callable[[], Any], repeats: int, device: str = "cpu") -> dict[str, float]:
    """Times of two pieces of work, and the median of ours / other over alternating runs."""
    ours(), other()  # warm up
    pairs = []
    for i in range(repeats):
        order = (ours, other) if i % 2 == 0 else (other, ours)
        times = [seconds(work, device) for work in order]
        pairs.append(times if i % 2 == 0 else times[::-1])
    ratios = sorted(mine / theirs for mine, theirs in pairs)
    return {
        "seconds": round(min(pair[0] for pair in pairs), 4),
        "other_seconds": round(min(pair[1] for pair in pairs), 4),
        "ratio": round(statistics.median(ratios), 3),
        "best_ratio": round(min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs), 3),
    }


def problem(n_envs: int, solver: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Configure a solver for `n_envs` envs; their info and keys."""
    discrete = isinstance(solver, CategoricalCEMSolver)
    space = gym.spaces.MultiDiscrete([2] * n_envs) if discrete else gym.spaces.Box(-1, 1, (n_envs, ACTION))
    bounds = None if discrete else (np.full(ACTION, -2.0), np.full(ACTION, 2.0))
    config = PlanConfig(HORIZON, HORIZON, action_block=BLOCK)
    solver.configure(action_space=space, n_envs=n_envs, config=config, action_bounds=bounds)
    rng = np.random.default_rng(0)
    info = {key: rng.normal(size=(n_envs, 1, 8)).astype(np.float32) for key in ("state", "goal_state")}
    return info, np.stack([np.arange(n_envs), np.zeros(n_envs, int)], axis=1)


def solvers(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in options.solver:
        for n_envs in options.envs:
            torch.manual_seed(0)
            cost = Recorder(MLPDynamics(), GoalMSE())
            solver = SOLVERS[name](cost=cost)
            info, keys = problem(n_envs, solver)
            cost.calls = []
            solver.solve(info, keys=keys)
            calls, cost.calls = cost.calls, None

            @torch.inference_mode()
            def bare(cost: Recorder = cost, calls: list[tuple[Info, torch.Tensor]] = calls) -> None:
                for context, candidates in calls:
                    cost.cost(context, candidates)

            shares: list[float] = []

            def solve(solver: Any = solver, info: Any = info, keys: Any = keys, shares: list[float] = shares) -> None:
                solver.cost.inside, begin = 0.0, time.process_time()
                solver.solve(info, keys=keys)
                shares.append((time.process_time() - begin) / solver.cost.inside)

            times = compared(solve, bare, max(3, options.repeats // n_envs))
            times["ratio_within"] = round(statistics.median(shares), 3)
            per_decision = round(1e3 * times["seconds"] / n_envs, 1)
            yield {"case": "solvers", "solver": name, "envs": n_envs, "ms_per_decision": per_decision, **times}


def batching(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """`seconds` is one solve of all envs, `other_seconds` one solve per env."""
    n_envs = max(options.envs)
    for name in options.solver:
        torch.manual_seed(0)
        solver = SOLVERS[name](cost=ShootingCostEvaluator(MLPDynamics(), GoalMSE()))
        info, keys = problem(n_envs, solver)

        def apart(solver: Any = solver, info: Any = info, keys: Any = keys) -> None:
            for i in range(n_envs):
                solver.solve({key: value[i : i + 1] for key, value in info.items()}, keys=keys[i : i + 1])

        def together(solver: Any = solver, info: Any = info, keys: Any = keys) -> None:
            solver.solve(info, keys=keys)

        yield {"case": "batching", "solver": name, "envs": n_envs, **compared(together, apart, 3)}


def savings(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """`seconds` is with the saving, `other_seconds` without it; `ratio` < 1 is a gain."""
    from stable_worldmodel.wm.lewm import LeWM, LeWMConfig

    torch.manual_seed(0)
    config = LeWMConfig.preset(options.preset)
    model = LeWM(config).eval()
    cost = ShootingCostEvaluator(model, GoalMSE())
    size = config.image_size
    info = {key: torch.randint(0, 256, (1, 1, 3, size, size), dtype=torch.uint8) for key in ("pixels", "goal")}
    candidates = torch.randn(1, options.samples, HORIZON, config.action_dim)
    newest = {**info, "past_emb": torch.randn(1, 2, config.latent_dim)}
    frames = {**info, "pixels": info["pixels"].expand(-1, 3, -1, -1, -1).contiguous()}
    with torch.inference_mode():
        context = cost.prepare(info)
        known = {"goal_emb": context["goal_emb"]}
        n = options.samples
        emb = context["emb"].expand(n, -1, -1)
        act_emb = model.embed_actions(candidates[0])
        sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "keys and values kept": (lambda: model._imagine(emb, act_emb), lambda: recomputed(model, emb, act_emb)),
            "encoded once": (lambda: cost.cost(context, candidates), lambda: cost.get_cost(info, candidates)),
            "last prediction only": (
                lambda: cost.cost(context, candidates),
                lambda: cost.objective({**model.rollout(context, candidates), "action_candidates": candidates}),
            ),
            "newest frame encoded only": (
                lambda: cost.prepare({**newest, **known}),
                lambda: cost.prepare({**frames, **known}),
            ),
        }
        torch.testing.assert_close(model._imagine(emb, act_emb), recomputed(model, emb, act_emb), rtol=1e-4, atol=1e-4)
        for saving, (ours, other) in sides.items():
            case = {"case": "savings", "saving": saving, "preset": options.preset, "samples": options.samples}
            yield {**case, **compared(ours, other, options.repeats)}


def recomputed(model: Any, emb: torch.Tensor, act_emb: torch.Tensor) -> torch.Tensor:
    """LeWM's rollout with the whole window computed in every step."""
    modulations = model.predictor.modulations(act_emb)
    latents = [*emb.unbind(1)]
    for stop in range(len(latents), act_emb.shape[1] + 1):
        start = max(0, stop - model.config.window)
        x = model.lift(torch.stack(latents[start:stop], dim=1))
        x, _ = model.predictor(x, modulations[:, start:stop], None)
        latents.append(model.pred_projector(x[:, -1:])[:, 0])
    return torch.stack(latents, dim=1)


def lewm(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """`other_seconds` is the same envs one after the other."""
    from stable_worldmodel.wm.lewm import LeWM, LeWMConfig

    torch.manual_seed(0)
    config = LeWMConfig.preset(options.preset)
    model = LeWM(config).eval().to(options.device)
    if options.bf16 == "weights":
        model = model.bfloat16()
    cost = ShootingCostEvaluator(model, GoalMSE(), autocast=torch.bfloat16 if options.bf16 == "autocast" else None)
    for n_envs in options.envs:
        solver = CEMSolver(cost=cost, device=options.device, compiled=options.compiled)
        problem(n_envs, solver)
        pixels = torch.randint(0, 256, (n_envs, 1, 3, config.image_size, config.image_size), dtype=torch.uint8)
        info = {"pixels": pixels, "goal": pixels.flip(0)}

        def together(solver: Any = solver, info: Any = info) -> None:
            solver.solve(info)

        def apart(solver: Any = solver, info: Any = info, n_envs: int = n_envs) -> None:
            for i in range(n_envs):
                solver.solve({key: value[i : i + 1] for key, value in info.items()})

        times = compared(together, apart, min(3, options.repeats), options.device)
        yield {
            "case": "lewm",
            "device": options.device,
            "bf16": options.bf16,
            "compiled": options.compiled,
            "envs": n_envs,
            "ms_per_decision": round(1e3 * times["seconds"] / n_envs, 2),
            **times,
        }


CASES = {"solvers": solvers, "batching": batching, "savings": savings, "lewm": lewm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES, nargs="?", default="solvers")
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 8, 50])
    parser.add_argument("--solver", nargs="+", choices=sorted(SOLVERS), default=sorted(SOLVERS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", choices=["autocast", "weights"])
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    for result in CASES[options.case](options):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
