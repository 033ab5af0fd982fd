"""Actions as one array, which policies, planners and datasets need."""

from __future__ import annotations

import gymnasium as gym
from gymnasium import spaces


class FlattenActionWrapper(gym.ActionWrapper):
    """Takes one array (n,) for a Dict or Tuple of Box spaces, in the order of `gymnasium.spaces.flatten`."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.action_space = spaces.flatten_space(env.action_space)

    def action(self, action):
        return spaces.unflatten(self.env.action_space, action)


def flatten_actions(env: gym.Env) -> gym.Env:
    """Wrap `env` if its actions are a Dict or Tuple of Box spaces, nested or not; otherwise return it unchanged."""
    compound = isinstance(env.action_space, (spaces.Dict, spaces.Tuple))
    return FlattenActionWrapper(env) if compound and _only_boxes(env.action_space) else env


def _only_boxes(space: gym.Space) -> bool:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.values() if isinstance(space, spaces.Dict) else space
        return all(_only_boxes(part) for part in parts)
    return isinstance(space, spaces.Box)
