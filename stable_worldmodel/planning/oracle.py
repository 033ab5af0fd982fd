"""What it takes to plan with the env itself, per environment: the upper bound for every world model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.planning.simulator import Row, Score, SimulatorCost, env_factory, goal_distance
from stable_worldmodel.protocols import Info


def remaining_way(env: gym.Env, infos: list[Info], row: Row) -> float:
    """TwoRoom: the shortest way that is left at the end of the plan, in px; and a little for every step."""
    from stable_worldmodel.envs.two_room.geometry import WALL_CENTER, shortest_way

    layout = env.unwrapped.layout()  # type: ignore[attr-defined]
    position, goal = infos[-1]["state"], row["goal_state"]
    same_side = (position[layout.across] < WALL_CENTER) == (goal[layout.across] < WALL_CENTER)
    way = None if same_side else shortest_way(layout, position, goal)
    return (math.dist(position, goal) if way is None else way) + 0.1 * len(infos)


def pose_error(env: gym.Env, infos: list[Info], row: Row) -> float:
    """PushT: the least error on the way, in units of 20 px and 20 degrees, and a little of the mean error."""
    poses = np.array([[*info["pos_agent"], *info["block_pose"]] for info in infos])  # (t, 5)
    error = poses - row["goal_state"][:5]
    error[:, 4] = (error[:, 4] + math.pi) % (2 * math.pi) - math.pi
    squares = ((error[:, :4] / 20) ** 2).sum(axis=1) + (error[:, 4] / math.radians(20)) ** 2
    return float(squares.min() + 0.05 * squares.mean())


@dataclass(frozen=True)
class Oracle:
    """What MPPI minimises in an env, and how hard it looks."""

    score: Score = goal_distance
    num_samples: int = 64
    n_steps: int = 4
    topk: int = 16
    var_scale: float = 1.0  # deviation of the first candidates, in env units

    def solver_settings(self) -> dict[str, Any]:
        """Arguments of `MPPISolver`. The simulator is exact, so the best plan seen is what it was seen to be."""
        sizes = {name: getattr(self, name) for name in ("num_samples", "n_steps", "topk", "var_scale")}
        return {**sizes, "return_mean": False}


ORACLES = {
    "swm/TwoRoom-v1": Oracle(remaining_way),
    "swm/PushT-v1": Oracle(pose_error, num_samples=128, n_steps=8, var_scale=0.5),
}


def oracle_for(env_id: str) -> Oracle:
    """The entry of an env, or the distance of its `state` from its `goal_state`, all numbers alike."""
    return ORACLES.get(env_id, Oracle())


def oracle_cost(
    env_id: str, arguments: Mapping[str, Any] | None = None, *, action_block: int = 5, workers: int | None = None
) -> SimulatorCost:
    """What plans of `action_block` env steps per macro step cost in the env itself; close it after use.

    Args:
        arguments: of the env's constructor.
        workers: processes; 1 keeps the env in this one. None is one per CPU core.
    """
    backend = "sync" if workers == 1 else "process"
    make_env = env_factory(env_id, arguments)
    return SimulatorCost(
        make_env, oracle_for(env_id).score, action_block=action_block, workers=workers, backend=backend
    )
