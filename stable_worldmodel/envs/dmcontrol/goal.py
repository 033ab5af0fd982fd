"""Tasks whose goal is a configuration of the joints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper
from stable_worldmodel.envs.env2d import column
from stable_worldmodel.errors import ContractError


class ConfigurationGoal(DMControlWrapper):
    """Adds tasks that are a success, and terminate, when every joint is within `tolerance` of the target's.

    A target is drawn at every reset: joints with limits uniformly between them, others anywhere. Angles of joints
    without limits are compared on the circle.

    Info of such a task, in addition: `target_qpos`; `goal_state`, the target as qpos‖qvel; `goal`, a picture of it.
    Reset options: `target_qpos`, or `goal_state`, qpos‖qvel.
    """

    tolerance: ClassVar[float] = 0.05  # rad

    @property
    def has_goal(self) -> bool:
        """Whether the task is to reach a configuration."""
        return self.tasks[self.task].has_goal

    def _resized(self) -> None:
        if self._started and self.has_goal:
            self._draw_goal()

    def set_target_qpos(self, target_qpos: Any) -> None:
        """Set the target, one angle per joint, and draw the goal again. ContractError if the task has no goal."""
        self._require_episode()
        if not self.has_goal:
            named = ", ".join(name for name, task in self.tasks.items() if task.has_goal)
            raise ContractError(f"task {self.task!r} has no target configuration; expected task={named}")
        self._take_goal("target_qpos", self._with_rest(target_qpos))
        self._draw_goal()

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state, qpos‖qvel at rest; None draws from the env's own generator."""
        self._require_episode()
        return self._with_rest(self._random_configuration(None if seed is None else np.random.default_rng(seed)))

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """See DMControlWrapper; the goal is `goal_state`, or `goal_qpos`."""
        options = super().reset_options_from_dataset(init_row, goal_row)
        if not self.has_goal:
            return options
        name = "target_qpos" if "goal_qpos" in goal_row and "goal_state" not in goal_row else "goal_state"
        return options | {name: column(goal_row, "goal_state", "goal_qpos").reshape(-1)}

    def _begin_goal(self, options: Mapping[str, Any]) -> None:
        if not self.has_goal:
            return
        drawn = self._with_rest(self._random_configuration())  # always, so that the stream is the same either way
        if options.get("goal_state") is not None:
            self._take_goal("goal_state", options["goal_state"])
        elif options.get("target_qpos") is not None:
            self._take_goal("target_qpos", self._with_rest(options["target_qpos"]))
        else:
            self._take_goal("target_qpos", drawn)
        self._draw_goal()

    def _take_goal(self, name: str, state: Any) -> None:
        qpos, qvel = self._state_of(name, state)
        self._target = qpos
        self._goal_state = np.concatenate([qpos, qvel])

    def _draw_goal(self) -> None:
        self._goal = None
        if self.render_mode is not None:
            self._goal = self._simulation.picture_at(self._target, self._shape, self.camera)

    def _with_rest(self, qpos: Any) -> np.ndarray:
        return np.concatenate([np.ravel(np.asarray(qpos, np.float64)), np.zeros(self._simulation.model.nv)])

    def _random_configuration(self, rng: np.random.Generator | None = None) -> np.ndarray:
        model = self._simulation.model
        limited = model.jnt_limited.astype(bool)
        low = np.where(limited, model.jnt_range[:, 0], -np.pi)
        high = np.where(limited, model.jnt_range[:, 1], np.pi)
        return (rng or self.np_random).uniform(low, high)

    def _reached_goal(self) -> bool:
        if not self.has_goal:
            return False
        model = self._simulation.model
        difference = self._simulation.data.qpos - self._target
        turned = (difference + np.pi) % (2 * np.pi) - np.pi
        return bool((np.abs(np.where(model.jnt_limited.astype(bool), difference, turned)) < self.tolerance).all())

    def _is_success(self) -> bool:
        return self._reached_goal() if self.has_goal else super()._is_success()

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        if self.has_goal:
            info |= {"target_qpos": self._target.copy(), "goal_state": self._goal_state.copy()}
            if self._goal is not None:
                info["goal"] = self._goal.copy()
        return info
