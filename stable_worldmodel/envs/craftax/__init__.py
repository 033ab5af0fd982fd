"""Craftax: an open world to survive in, compiled by JAX; four ids `swm/Craftax…-v1`."""

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.craftax.craftax import (
        CraftaxClassicPixelsWrapper,
        CraftaxClassicSymbolicWrapper,
        CraftaxPixelsWrapper,
        CraftaxSymbolicWrapper,
        CraftaxWrapper,
    )

__all__ = [
    "CraftaxClassicPixelsWrapper",
    "CraftaxClassicSymbolicWrapper",
    "CraftaxPixelsWrapper",
    "CraftaxSymbolicWrapper",
    "CraftaxWrapper",
]

__getattr__ = lazy_exports(__name__, dict.fromkeys(__all__, f"{__name__}.craftax"))
