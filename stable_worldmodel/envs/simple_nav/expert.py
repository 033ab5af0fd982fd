"""The scripted expert: the shortest way through the maze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.scripted import ScriptedPolicy
from stable_worldmodel.envs.simple_nav.env import FORWARD, TURN_LEFT, TURN_RIGHT
from stable_worldmodel.envs.simple_nav.maze import STEPS, distances_to
from stable_worldmodel.errors import ContractError


class ExpertPolicy(ScriptedPolicy):
    """Faces the next square of the shortest way and walks; turns back by two turns to the left.

    Every action follows from the present pose alone, so the agent may be anywhere. Reads `pos_agent`, `dir_agent` and
    `pos_goal` from info and `layout()` from the envs. Actions are int64: (N,), or a scalar for one env's own info.

    Args:
        random_prob: probability of an action drawn from all three instead.
        seed: see ScriptedPolicy.
    """

    def __init__(self, random_prob: float = 0.0, seed: int | None = None):
        super().__init__(seed)
        if not 0 <= random_prob <= 1:
            raise ContractError(f"random_prob={random_prob}: expected a probability")
        self.random_prob = random_prob

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        self._mazes: list[Any] = [None] * self.num_envs
        self._distances: list[tuple[Any, np.ndarray] | None] = [None] * self.num_envs

    def _start_episodes(self, indices: np.ndarray) -> None:
        mazes = self._call_envs("layout")
        for i in indices:
            self._mazes[i], self._distances[i] = mazes[i], None

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        positions, goals = self._latest(obs, "pos_agent"), self._latest(obs, "pos_goal")
        directions = self._latest(obs, "dir_agent", 0)
        actions = np.array(
            [
                self._next(i, tuple(position.tolist()), int(direction), tuple(goal.tolist()))
                for i, (position, direction, goal) in enumerate(zip(positions, directions, goals, strict=True))
            ]
        )
        if self.random_prob:
            drawn = [(stream.random() < self.random_prob, stream.integers(3)) for stream in self._streams]
            actions = np.where([instead for instead, _ in drawn], [action for _, action in drawn], actions)
        return actions if np.ndim(obs["pos_agent"]) > 1 else actions[0]

    def _next(self, i: int, position: tuple[int, int], direction: int, goal: tuple[int, int]) -> int:
        known = self._distances[i]
        if known is None or known[0] != goal:
            known = self._distances[i] = (goal, distances_to(self._mazes[i], goal))
        distances, (x, y) = known[1], position
        for turn in (0, 1, 3, 2):
            dx, dy = STEPS[(direction + turn) % 4]
            if distances[y + dy, x + dx] == distances[y, x] - 1 >= 0:
                return FORWARD if turn == 0 else TURN_RIGHT if turn == 1 else TURN_LEFT
        return TURN_LEFT  # on the goal, or shut off from it
