"""Action spaces whose samples lead near the block."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.pusht.physics import ACTION_SCALE, SIZE
from stable_worldmodel.envs.quantizer import Quantizable

REACH = 50.0  # px per axis


class NearBlock(gym.spaces.Box):
    """Actions whose target lies in a square around the block of `env`, a PushT."""

    def __init__(self, env: Any):
        super().__init__(env.action_space.low, env.action_space.high, dtype=np.float32)
        self._env = env

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        return near_block(self._env, self.np_random)


class BinsNearBlock(gym.spaces.MultiDiscrete):
    """Bins whose target lies in a square around the block of `env`, a PushT."""

    def __init__(self, env: Any, quantizer: Quantizable):
        super().__init__(np.array(quantizer.action_shape))
        self._env, self._quantizer = env, quantizer

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        return self._quantizer.quantize(near_block(self._env, self.np_random)).astype(self.dtype)


def near_block(env: Any, rng: np.random.Generator) -> np.ndarray:
    """An action (2,) float32 whose target is at most 50 px per axis from the block and in the arena."""
    simulation = env.simulation()
    target = np.clip(np.add(simulation.block_pose[:2], rng.uniform(-REACH, REACH, 2)), 0, SIZE)
    if env.relative:
        target = np.clip((target - simulation.agent_position) / ACTION_SCALE, -1, 1)
    return target.astype(np.float32)
