"""Envs with LeRobot's interface whose behaviour tests can state exactly; importable in workers."""

from __future__ import annotations

import functools
import os

import gymnasium as gym
import numpy as np


class ReachEnv(gym.Env):
    """A point that moves by its action; its goal is the seed's. Ends when there, or after `max_length` steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        task: str = "reach",
        max_length: int = 12,
        fails_at: int | None = None,
        cameras: bool = False,
        render_mode: str = "rgb_array",
    ):
        self.task = task
        self.task_description = f"Please {task}."
        self._max_episode_steps = max_length
        self._fails_at = fails_at
        self.render_mode = render_mode
        frame = gym.spaces.Box(0, 255, (8, 10, 3), np.uint8)
        self.cameras = cameras
        pixels = gym.spaces.Dict({"top": frame, "side": frame}) if cameras else frame
        vector = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = gym.spaces.Dict({"pixels": pixels, "agent_pos": vector, "environment_state": vector})
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = np.float32(0)
        self.goal = np.float32(self.np_random.uniform(-3, 3))
        self.t = 0
        return self._observe(), {"is_success": False, "pid": os.getpid()}

    def step(self, action):
        if self._fails_at is not None and self.t >= self._fails_at:
            raise ArithmeticError("the simulator exploded")
        self.position = np.float32(self.position + np.clip(action[0], -1, 1))
        self.t += 1
        there = bool(abs(self.position - self.goal) < 0.5)
        info = {"is_success": there, "pid": os.getpid()}
        return self._observe(), float(-abs(self.position - self.goal)), there, self.t >= self._max_episode_steps, info

    def _observe(self):
        frame = self.render()
        pixels = {"top": frame, "side": frame[::-1].copy()} if self.cameras else frame
        return {
            "pixels": pixels,
            "agent_pos": np.array([self.position], np.float32),
            "environment_state": np.array([self.goal], np.float32),
        }

    def render(self):
        return np.full((8, 10, 3), 10 * self.t + 5, np.uint8)


def factories(count: int, **kwargs):
    return [functools.partial(ReachEnv, **kwargs)] * count


class CountingFactory:
    """A factory that counts its calls in this process."""

    def __init__(self, **kwargs):
        self.calls = 0
        self.kwargs = kwargs

    def __call__(self):
        self.calls += 1
        return ReachEnv(**self.kwargs)
