"""Several PushT envs, stepped as one program."""

from __future__ import annotations

import numpy as np

from stable_worldmodel.envs.batch2d import Batch, Moved, Rows


class PushTBatch(Batch):
    """The program of several PushT envs, which saves what lies between a simulation and the infos of a pool."""

    changing = ("pos_agent", "vel_agent", "block_pose", "n_contacts", "is_success")

    def _advance(self, actions: np.ndarray, rows: Rows) -> Moved:
        count = len(self.envs)
        states = np.stack([getattr(env, "_row", np.zeros(18)) for env in self.envs])
        rewards, success, contacts = np.zeros(count), np.zeros(count, bool), np.zeros(count, np.int64)
        for i in np.arange(count)[rows].tolist():
            env = self.envs[i]
            env._move(actions[i])
            success[i], rewards[i] = env._measure(), -env._distance
            states[i], contacts[i] = env._row, env._contacts()
        self.observations["state"][rows], self.observations["proprio"][rows] = states[rows, :7], states[rows, 7:11]
        new = (states[:, 11:13], states[:, 13:15], states[:, 15:], contacts, success)
        self.infos |= dict(zip(self.changing, new, strict=True))
        return Moved(rewards, success, np.zeros(count, bool))
