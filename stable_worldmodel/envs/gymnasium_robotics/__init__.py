"""Gymnasium-Robotics: the Fetch arm with factors of variation and scripted controllers."""

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.gymnasium_robotics.expert import ExpertPolicy
    from stable_worldmodel.envs.gymnasium_robotics.fetch import FetchWrapper

__all__ = ["ExpertPolicy", "FetchWrapper"]

__getattr__ = lazy_exports(__name__, {"ExpertPolicy": f"{__name__}.expert", "FetchWrapper": f"{__name__}.fetch"})
