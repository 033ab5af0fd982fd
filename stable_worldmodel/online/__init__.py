"""Online training: a model that learns from rewards collects its own episodes.

config = OnlineConfig("swm/PendulumControl-v1", TrainConfig.preset("debug", "tdmpc2"), env_steps=20_000)
result = train_online(config, "runs/pendulum")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

# Public name -> module.
_LAZY = {
    "OnlineConfig": "stable_worldmodel.online.config",
    "OnlineResult": "stable_worldmodel.online.loop",
    "train_online": "stable_worldmodel.online.loop",
}
__all__ = sorted(_LAZY)

if TYPE_CHECKING:
    from stable_worldmodel.online.config import OnlineConfig as OnlineConfig
    from stable_worldmodel.online.loop import OnlineResult as OnlineResult
    from stable_worldmodel.online.loop import train_online as train_online

__getattr__ = lazy_exports(__name__, _LAZY)
