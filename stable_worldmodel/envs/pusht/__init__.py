"""A block to be pushed to a pose."""

from stable_worldmodel.errors import require

require("pymunk", "env")

from stable_worldmodel.envs.pusht.discrete import PushTDiscrete  # noqa: E402
from stable_worldmodel.envs.pusht.env import PushT  # noqa: E402
from stable_worldmodel.envs.pusht.policies import ExpertPolicy, WeakPolicy  # noqa: E402

__all__ = ["ExpertPolicy", "PushT", "PushTDiscrete", "WeakPolicy"]
