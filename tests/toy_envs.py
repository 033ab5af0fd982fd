"""Small real environments whose behaviour tests can state exactly."""

from __future__ import annotations

import gymnasium as gym
import numpy as np


class WalkEnv(gym.Env):
    """A random walk on a line that ends after a seed-dependent number of steps; draws its position and its goal."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None, max_length: int = 12):
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.max_length = max_length
        self.render_shape = (8, 8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = np.float32(self.np_random.uniform(-1, 1))
        self.length = int(self.np_random.integers(1, self.max_length + 1))
        self.t = 0
        return self._observe()

    def step(self, action):
        self.position = np.float32(self.position + action[0] + 0.1 * self.np_random.normal())
        self.t += 1
        observation, info = self._observe()
        return observation, float(self.t), self.t >= self.length, False, info

    def _observe(self):
        info = {"state": np.array([self.position], np.float32), "label": f"length {self.length}", "goal": self._draw(0)}
        return np.array([self.position], np.float32), info

    def render(self):
        return self._draw(self.t + 1)

    def _draw(self, shade: int):
        return np.full((*self.render_shape, 3), shade, np.uint8)


class CoinEnv(gym.Env):
    """Succeeds within three steps for half of the seeds and never for the others."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.lucky = bool(self.np_random.random() < 0.5)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        done = self.lucky and self.t >= 1 + int(self.np_random.integers(3))
        return np.zeros(1, np.float32), 0.0, done, False, {"is_success": done}


class FailingTermination(CoinEnv):
    """Terminates at once, and says that this is no success."""

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, True, False, {"success": False}


def register() -> None:
    """Register the toy ids once per process."""
    for name, cls in {"Walk": WalkEnv, "Coin": CoinEnv, "Failing": FailingTermination}.items():
        if f"toy/{name}-v0" not in gym.registry:
            gym.register(f"toy/{name}-v0", entry_point=cls)
    if "toy/Faulty-v0" not in gym.registry:
        gym.register("toy/Faulty-v0", entry_point="faulty_env:FaultyEnv")
