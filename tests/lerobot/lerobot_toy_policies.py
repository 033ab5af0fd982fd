"""Policies with LeRobot's interface whose behaviour tests can state exactly."""

from __future__ import annotations

from collections import deque

import torch


class Chunky(torch.nn.Module):
    """A policy with LeRobot's interface: goes to the goal, `n_action_steps` actions at a time from one observation.

    `calls` holds the batch size of every prediction, `batches` the keys it was given.
    """

    class Config:
        n_obs_steps = 1
        temporal_ensemble_coeff = None

        def __init__(self, n_action_steps, input_features):
            self.n_action_steps, self.input_features = n_action_steps, input_features

    def __init__(self, n_action_steps=3, noise=0.0, input_features=None):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))
        self.config = self.Config(n_action_steps, input_features)
        self.noise = noise
        self.calls, self.resets, self.batches = [], 0, []
        self._queue = deque()

    def reset(self):
        self.resets += 1
        self._queue = deque()

    def predict_action_chunk(self, batch):
        self.calls.append(len(batch["observation.state"]))
        self.batches.append(batch)
        x, goal = batch["observation.state"], batch["observation.environment_state"]
        steps = []
        for _ in range(self.config.n_action_steps):
            action = (self.gain * (goal - x)).clamp(-1, 1)
            x = x + action
            steps.append(action + self.noise * torch.randn_like(action))
        return torch.stack(steps, dim=1)

    def select_action(self, batch):
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch).unbind(dim=1))
        return self._queue.popleft()


class OneQueue(Chunky):
    """The same, with a queue of its own that is shared by the batch, as LeRobot's policies have."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.config.n_obs_steps = 2
