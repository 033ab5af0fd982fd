"""Scripted controllers of the Fetch tasks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.gymnasium_robotics.striker import plan_strike
from stable_worldmodel.envs.scripted import ScriptedPolicy
from stable_worldmodel.errors import ContractError

STEP = 0.05  # m that an action of 1 moves the gripper
_GAIN = 6.0  # the arm lags behind, so it is told to go further than it should
_UP = np.array([0.0, 0.0, 0.08])  # m over a block, before going down to it
_BEHIND = 0.075  # m from a block's middle to the gripper that pushes it
_LEVEL = 0.425  # m, of the middle of a block on the table
_READY = 0.065  # m from a puck's middle to the gripper that is about to strike it
_OVER_PUCK = np.array([0.0, 0.0, 0.05])  # m
_EPISODE = 50  # steps


class ExpertPolicy(ScriptedPolicy):
    """Reaches, pushes, strikes, or picks and places, whichever the env's task is; reads `proprio` and `goal_state`.

    Strikes (FetchSlide) are chosen by trying about 110 in the env's simulator, 2 to 4 s per episode.

    Args:
        action_noise: standard deviation of Gaussian noise added before clipping to [-1, 1].
        seed: see ScriptedPolicy.
    """

    def __init__(self, action_noise: float = 0.0, seed: int | None = None):
        super().__init__(seed)
        if action_noise < 0:
            raise ContractError(f"action_noise={action_noise}: expected >= 0")
        self.action_noise = action_noise

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes. ContractError for an env that is not a Fetch task."""
        super().set_env(env)
        ids = self._call_envs("env_id")
        names = [next((name for name in _TASKS if f"Fetch{name}" in str(id)), None) for id in ids]
        if None in names:
            raise ContractError(f"env_id={ids}: expected tasks {', '.join(_TASKS)}")
        self._tasks = [str(name) for name in names]
        self._memory: list[dict[str, Any]] = [{} for _ in ids]

    def _start_episodes(self, indices: np.ndarray) -> None:
        for i in indices.tolist():
            self._memory[i] = {"run_ahead": functools.partial(self._run_ahead, i), "rng": self._streams[i]}

    def _run_ahead(self, index: int, actions: np.ndarray) -> np.ndarray:
        """What env `index` would achieve; the env itself stays where it is."""
        if hasattr(self.env, "call_each"):
            arguments: list[dict[str, Any] | None] = [None] * self.num_envs
            arguments[index] = {"actions": actions}
            return self.env.call_each("run_ahead", arguments)[index]
        return getattr(self.env, "envs", [self.env])[index].unwrapped.run_ahead(actions)

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        seen, goals = self._latest(obs, "proprio"), self._latest(obs, "goal_state")
        rows = zip(self._tasks, seen, goals, self._memory, strict=True)
        actions = np.stack([_TASKS[task](proprio, goal, memory) for task, proprio, goal, memory in rows])
        if self.action_noise:
            noise = [stream.standard_normal(4) for stream in self._streams]
            actions = actions + self.action_noise * np.stack(noise)
        actions = np.clip(actions, -1, 1).astype(np.float32)
        return actions if np.ndim(obs["proprio"]) > 1 else actions[0]


def _towards(gripper: np.ndarray, place: np.ndarray, grasp: float, gain: float = _GAIN) -> np.ndarray:
    return np.append(np.clip(gain * (place - gripper), -1, 1), grasp)


def _reach(seen: np.ndarray, goal: np.ndarray, memory: dict[str, Any]) -> np.ndarray:
    return _towards(seen[:3], goal, 0.0)


def _pick_and_place(seen: np.ndarray, goal: np.ndarray, memory: dict[str, Any]) -> np.ndarray:
    """Above the block with open fingers, down, close, and to the goal."""
    gripper, block, fingers = seen[:3], seen[3:6], seen[9:11]
    away = block - gripper
    near = np.linalg.norm(away) < 0.02
    if memory.get("held", 0) == 0 and not near:
        over = np.linalg.norm(away[:2]) < 0.015
        return _towards(gripper, block if over else block + _UP, 1.0, 12.0)
    memory["held"] = memory.get("held", 0) + 1
    if np.linalg.norm(away) > 0.05:  # it slipped away
        memory["held"] = 0
    if memory["held"] < 6 or fingers.sum() > 0.06:
        return _towards(gripper, block, -1.0)
    return _towards(gripper, goal, -1.0)


def _push(seen: np.ndarray, goal: np.ndarray, memory: dict[str, Any]) -> np.ndarray:
    """Around the block to the side away from the goal, down, and against it until it is there."""
    gripper, block = seen[:3], seen[3:6]
    way = goal[:2] - block[:2]
    distance = np.linalg.norm(way)
    if distance < 0.02:
        return np.zeros(4)
    direction = way / distance
    start = np.append(block[:2] - _BEHIND * direction, _LEVEL)
    if memory.get("pushing"):
        off = (gripper[:2] - block[:2]) @ np.array([-direction[1], direction[0]])
        if abs(off) > 0.035 or np.linalg.norm(gripper[:2] - block[:2]) > 2 * _BEHIND:
            memory["pushing"] = False
        else:
            correction = np.append(-4 * off * np.array([-direction[1], direction[0]]), 0.0)
            ahead = np.append(block[:2] + direction * min(0.03, distance), _LEVEL)
            gain = 8.0 * np.clip(distance / 0.12, 0.4, 1.0)  # so that the block does not slide past the goal
            return _towards(gripper, ahead + correction, 0.0, gain)
    if np.linalg.norm(gripper[:2] - start[:2]) > 0.02:
        if gripper[2] < _LEVEL + 0.05:  # up first, or the block is swept away
            start[:2] = gripper[:2]
        return _towards(gripper, start + _UP, 0.0, 12.0)
    if gripper[2] > _LEVEL + 0.015:
        return _towards(gripper, start, 0.0, 12.0)
    memory["pushing"] = True
    return _push(seen, goal, memory)


def _slide(seen: np.ndarray, goal: np.ndarray, memory: dict[str, Any]) -> np.ndarray:
    """Behind the puck, down, and one strike that was tried out beforehand."""
    memory["step"] = memory.get("step", -1) + 1
    if "strike" in memory:
        return memory["strike"].pop(0) if memory["strike"] else np.zeros(4)
    gripper, puck = seen[:3], seen[3:6]
    way = goal[:2] - puck[:2]
    way = way / max(float(np.linalg.norm(way)), 1e-6)
    start = np.append(puck[:2] - _READY * way, puck[2])
    if np.linalg.norm(gripper[:2] - start[:2]) > 0.012:
        return _towards(gripper, start + _OVER_PUCK, 0.0, 20.0)
    if gripper[2] > puck[2] + 0.008:
        return _towards(gripper, start, 0.0, 20.0)
    steps = _EPISODE - memory["step"]
    memory["strike"] = plan_strike(memory["run_ahead"], way, goal[:2], steps, memory["rng"])
    return memory["strike"].pop(0)


_TASKS = {"Reach": _reach, "Push": _push, "Slide": _slide, "PickAndPlace": _pick_and_place}
