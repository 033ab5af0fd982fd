"""The scripted expert: straight to the target, or through the nearest door that fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.scripted import NoisyPolicy
from stable_worldmodel.envs.two_room.geometry import DOOR_FIT, MAX_DOORS, WALL_CENTER

_DOOR_REACHED = 10.5  # px
_ARRIVED = 1e-8  # px
_TOLERANCE = 0.01  # px, well above the rounding of states


class ExpertPolicy(NoisyPolicy):
    """Walks at full speed to a waypoint. Reads `state` and `goal_state` from info and `layout()` from the envs.

    The waypoint is the target if it lies on the agent's side of the wall. Otherwise it is the passage (the middle, or
    what a border leaves of it) of the nearest door that fits, and the target again once that is within reach. Where no
    door fits it is the point of the wall beside the target. Under the swept collision rules an agent in a door leaves
    it straight before it turns, since otherwise it would press on against the side of the door.

    Args:
        action_noise: standard deviation of Gaussian noise added to both components before clipping to [-1, 1].
        action_repeat_prob: probability of repeating the env's previous action, never across episodes.
        door_fit_margin: a door fits if its half extent is at least this many agent radii.
        door_reach_tol: px from a door's passage at which it counts as reached; None: 10.5.
        seed: see ScriptedPolicy.
    """

    def __init__(
        self,
        action_noise: float = 0.0,
        action_repeat_prob: float = 0.0,
        door_fit_margin: float = DOOR_FIT,
        door_reach_tol: float | None = None,
        seed: int | None = None,
    ):
        super().__init__(action_noise, action_repeat_prob, seed)
        self.door_fit_margin = door_fit_margin
        self.door_reach_tol = _DOOR_REACHED if door_reach_tol is None else door_reach_tol

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        n = self.num_envs
        self._across = np.zeros(n, int)  # coordinate perpendicular to the wall
        self._passages = np.zeros((n, MAX_DOORS, 2))
        self._fits = np.zeros((n, MAX_DOORS), bool)
        self._clear = np.zeros((n, MAX_DOORS, 2))  # least and greatest coordinate along the wall in a door
        self._wall_reach = np.zeros(n)  # closer to the wall's centre line the agent is in a door; 0: legacy rules

    def _start_episodes(self, indices: np.ndarray) -> None:
        super()._start_episodes(indices)
        layouts = self._call_envs("layout")
        self._fits[indices] = False
        for i in indices:
            layout = layouts[i]
            self._across[i] = layout.across
            self._wall_reach[i] = layout.reach if layout.swept else 0.0
            for door in range(len(layout.doors)):
                passage = layout.passage(door, self.door_fit_margin)
                if passage is not None:
                    self._passages[i, door] = passage.point
                    self._clear[i, door] = passage.low, passage.high
                    self._fits[i, door] = True

    def _intended(self, obs: Mapping[str, Any]) -> np.ndarray:
        state = self._latest(obs, "state").astype(np.float64)
        way = self._waypoints(state, self._latest(obs, "goal_state").astype(np.float64)) - state
        distance = np.linalg.norm(way, axis=1, keepdims=True)
        return np.where(distance > _ARRIVED, way / np.maximum(distance, _ARRIVED), 0.0)

    def _waypoints(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Where each env's agent heads, (N, 2) in px."""
        envs = np.arange(self.num_envs)
        distances = np.where(self._fits, np.linalg.norm(self._passages - state[:, None], axis=2), np.inf)
        door = distances.argmin(axis=1)
        detour = self._passages[envs, door]
        closed = ~self._fits.any(axis=1)
        detour[closed] = goal[closed]
        detour[closed, self._across[closed]] = WALL_CENTER
        other_side = (state[envs, self._across] < WALL_CENTER) != (goal[envs, self._across] < WALL_CENTER)
        approaching = other_side & (distances[envs, door] > self.door_reach_tol)
        waypoints = np.where(approaching[:, None], detour, goal)
        if self._wall_reach.any():
            self._leave_doors(waypoints, state, goal, door, approaching)
        return waypoints

    def _leave_doors(
        self, waypoints: np.ndarray, state: np.ndarray, goal: np.ndarray, door: np.ndarray, approaching: np.ndarray
    ) -> None:
        """Swept rules: change `waypoints` (N, 2) of agents that are in a door and would turn in it."""
        envs = np.arange(self.num_envs)
        across, along = state[envs, self._across], state[envs, 1 - self._across]
        low, high = self._clear[envs, door].T
        goal_along = goal[envs, 1 - self._across]
        in_planned_door = (low - _TOLERANCE <= along) & (along <= high + _TOLERANCE)
        goes_straight = in_planned_door & (approaching | ((low <= goal_along) & (goal_along <= high)))
        leaving = (np.abs(across - WALL_CENTER) < self._wall_reach - _TOLERANCE) & ~goes_straight
        # Out of the planned door on the goal's side, out of any other one back to where the agent came from.
        exit_side = np.where(in_planned_door, goal[envs, self._across], across) < WALL_CENTER
        front = WALL_CENTER + np.where(exit_side, -1.0, 1.0) * (self._wall_reach + 1.0)
        waypoints[leaving, self._across[leaving]] = front[leaving]
        waypoints[leaving, 1 - self._across[leaving]] = along[leaving]
