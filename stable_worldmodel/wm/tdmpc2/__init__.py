"""TD-MPC2, a world model that learns what rewards and values depend on, and plans with an actor's help."""

from stable_worldmodel.wm.tdmpc2.config import TDMPC2Config
from stable_worldmodel.wm.tdmpc2.model import TDMPC2

__all__ = ["TDMPC2", "TDMPC2Config"]
