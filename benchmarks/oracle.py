"""How often planning succeeds when the model is the env itself: the upper bound for any world model.

    python benchmarks/oracle.py [--task two_room pusht] [--items 50] [--workers 2]

Records episodes, then scores MPPI over `SimulatorCost` with the dataset protocol: random starts, the goal 25 env steps
later, a budget of 50 env steps. Prints one JSON object per task.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.data import load_dataset
from stable_worldmodel.planning import MPPISolver
from stable_worldmodel.planning.oracle import oracle_cost, oracle_for
from stable_worldmodel.policy import PlanConfig, RandomPolicy, WorldModelPolicy
from stable_worldmodel.world import World

OFFSET, BUDGET, BLOCK = 25, 50, 5


@dataclass(frozen=True)
class Task:
    env_id: str
    recorder: Callable[[], Any]


def pusht_recorder() -> Any:
    from stable_worldmodel.envs.pusht.policies import WeakPolicy

    return WeakPolicy(dist_constraint=100, seed=0)


def two_room_recorder() -> Any:
    from stable_worldmodel.envs.two_room import ExpertPolicy

    return ExpertPolicy()


TASKS = {
    "two_room": Task("swm/TwoRoom-v1", two_room_recorder),
    "pusht": Task("swm/PushT-v1", pusht_recorder),
}


def record(task: Task, path: Path, episodes: int = 60) -> Any:
    with World(task.env_id, 4, (16, 16), max_episode_steps=100) as world:
        world.set_policy(task.recorder())
        world.collect(path, episodes, seed=0, progress=False)
    return load_dataset(path)


def measure(name: str, items: int, workers: int, num_envs: int) -> dict[str, Any]:
    task = TASKS[name]
    with tempfile.TemporaryDirectory() as folder:
        dataset = record(task, Path(folder) / "episodes.h5")
        rng = np.random.default_rng(42)
        lengths = np.asarray(dataset.lengths)
        usable = np.flatnonzero(lengths > OFFSET)
        episodes = rng.choice(usable, items)
        starts = [int(rng.integers(0, lengths[episode] - OFFSET)) for episode in episodes]
        cost = oracle_cost(task.env_id, action_block=BLOCK, workers=workers)
        settings = oracle_for(task.env_id).solver_settings()
        solver = MPPISolver(cost=cost, **settings)
        results = {}
        policies = {"oracle": WorldModelPolicy(solver, PlanConfig(5, 1, action_block=BLOCK)), "random": RandomPolicy(0)}
        begun = time.perf_counter()
        for label, policy in policies.items():
            flags: list[bool] = []
            for first in range(0, items, num_envs):
                chosen = slice(first, min(first + num_envs, items))
                with World(task.env_id, chosen.stop - first, (16, 16), max_episode_steps=2 * BUDGET) as world:
                    world.set_policy(policy)
                    scored = world.evaluate(
                        dataset=dataset,
                        episodes_idx=[int(episode) for episode in episodes[chosen]],
                        start_steps=starts[chosen],
                        goal_offset=OFFSET,
                        eval_budget=BUDGET,
                    )
                flags += [bool(flag) for flag in scored["episode_successes"]]
            results[label] = flags
            if label == "oracle":
                seconds = time.perf_counter() - begun
        cost.close()
    return {
        "task": name,
        "items": items,
        "success": round(100 * float(np.mean(results["oracle"])), 1),
        "random": round(100 * float(np.mean(results["random"])), 1),
        "seconds_per_item": round(seconds / items, 2),
        "solver": {**settings, "receding_horizon": 1},
        "failed": [i for i, flag in enumerate(results["oracle"]) if not flag],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=sorted(TASKS), default=sorted(TASKS))
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--envs", type=int, default=10)
    options = parser.parse_args()
    for name in options.task:
        print(json.dumps(measure(name, options.items, options.workers, options.envs)), flush=True)


if __name__ == "__main__":
    main()
