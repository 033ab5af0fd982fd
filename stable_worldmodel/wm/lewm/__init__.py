"""LeWM, a world model learned end to end from pixels."""

from stable_worldmodel.wm.lewm.config import PRESETS, LeWMConfig
from stable_worldmodel.wm.lewm.model import LeWM

__all__ = ["PRESETS", "LeWM", "LeWMConfig"]
