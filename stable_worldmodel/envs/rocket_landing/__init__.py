"""A rocket that lands on a pad, simulated by PyFlyt; `swm/PFRocketLanding-v0`."""

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.rocket_landing.expert import ExpertPolicy
    from stable_worldmodel.envs.rocket_landing.pyflyt_rocketlanding import RocketLandingEnv

__all__ = ["ExpertPolicy", "RocketLandingEnv"]

__getattr__ = lazy_exports(
    __name__,
    {"ExpertPolicy": f"{__name__}.expert", "RocketLandingEnv": f"{__name__}.pyflyt_rocketlanding"},
)
