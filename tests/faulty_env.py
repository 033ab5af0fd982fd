"""An env that fails where it is told to, once per place."""

import os
import signal
import time
from pathlib import Path

from toy_envs import WalkEnv


class FaultyEnv(WalkEnv):
    """A WalkEnv that fails at the places named by files `<seed>_<step>` in `faults`, removing each file first.

    Step 0 is the reset. `kind` is raise, hang or kill; `always` leaves the files, so the same place fails again.
    """

    def __init__(self, faults: str, kind: str, always: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.faults, self.kind, self.always = Path(faults), kind, always

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        result = super().reset(seed=seed, options=options)
        self._maybe_fail(0)
        return result

    def step(self, action):
        result = super().step(action)
        self._maybe_fail(self.t)
        return result

    def _maybe_fail(self, step):
        token = self.faults / f"{self.seed}_{step}"
        if not token.exists():
            return
        if not self.always:
            token.unlink()
        if self.kind == "raise":
            raise FloatingPointError(f"the simulation of seed {self.seed} diverged")
        if self.kind == "hang":
            time.sleep(1000)
        os.kill(os.getpid(), signal.SIGKILL)
