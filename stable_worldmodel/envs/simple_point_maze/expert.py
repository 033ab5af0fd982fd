"""The scripted expert: the shortest way around the walls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.scripted import NoisyPolicy
from stable_worldmodel.envs.simple_point_maze.env import MAX_ACTION
from stable_worldmodel.envs.simple_point_maze.geometry import Routes, routes_to


class ExpertPolicy(NoisyPolicy):
    """Walks at full speed from corner to corner of the walls. Plans anew at every step, so noise does not mislead it.

    Reads `state` and `goal_state` from info, `layout()` and `goal_radius()` from the envs. Where no way leads to the
    goal it walks straight at it.

    Args:
        action_noise: standard deviation of Gaussian noise added to both components before clipping to [-0.2, 0.2].
        action_repeat_prob: probability of repeating the env's previous action, never across episodes.
        seed: see ScriptedPolicy.
    """

    limit = MAX_ACTION

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        self._mazes: list[Any] = [None] * self.num_envs
        self._goal_radii = [0.0] * self.num_envs
        self._routes: list[tuple[Any, Routes] | None] = [None] * self.num_envs

    def _start_episodes(self, indices: np.ndarray) -> None:
        super()._start_episodes(indices)
        mazes, radii = self._call_envs("layout"), self._call_envs("goal_radius")
        for i in indices:
            self._mazes[i], self._goal_radii[i], self._routes[i] = mazes[i], radii[i], None

    def _intended(self, obs: Mapping[str, Any]) -> np.ndarray:
        states = self._latest(obs, "state").astype(np.float64)
        goals = self._latest(obs, "goal_state").astype(np.float64)
        actions = np.zeros_like(states)
        for i, (state, goal) in enumerate(zip(states, goals, strict=True)):
            way = np.subtract(self._waypoint(i, tuple(state.tolist()), tuple(goal.tolist())), state)
            way /= self._mazes[i].speed
            actions[i] = way * min(1.0, self.limit / max(np.abs(way).max(), 1e-12))
        return actions

    def _waypoint(self, i: int, state: tuple[float, float], goal: tuple[float, float]) -> tuple[float, float]:
        known = self._routes[i]
        if known is None or known[0] != goal:
            known = self._routes[i] = (goal, routes_to(self._mazes[i], goal, self._goal_radii[i]))
        return known[1].waypoint(state) or goal
