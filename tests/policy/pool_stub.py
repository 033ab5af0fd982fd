"""The attributes of a pool that policies read, and a solver whose plans are known in advance."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import batch_space


class PoolStub:
    def __init__(self, space, num_envs):
        self.num_envs = num_envs
        self.single_action_space = space
        self.action_space = batch_space(space, num_envs)


def box_pool(num_envs=2, low=-1.0, high=1.0, size=2):
    return PoolStub(gym.spaces.Box(low, high, (size,), np.float32), num_envs)


class ScriptedSolver:
    """Plan k of the run is `k + i / 100` for the i-th number of an env's plan (times `scale`); remembers its calls."""

    def __init__(self, dtype=torch.float32, scale=0.01):
        self.dtype, self.scale, self.calls = dtype, scale, []

    def configure(self, *, action_space, n_envs, config, action_bounds=None):
        self.n_envs, self.horizon, self.action_bounds = n_envs, config.horizon, action_bounds
        self.action_dim = int(np.prod(action_space.shape[1:])) * config.action_block

    def solve(self, info, init_action=None, *, keys=None):
        size = self.horizon * self.action_dim
        plan = (len(self.calls) + 1 + torch.arange(size) / 100) * self.scale
        n = len(keys)
        self.calls.append({"info": info, "init_action": init_action, "keys": keys.tolist()})
        actions = plan.reshape(1, self.horizon, self.action_dim).repeat(n, 1, 1).to(self.dtype)
        return {"actions": actions}
