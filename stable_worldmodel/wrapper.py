"""Another name of `stable_worldmodel.wrappers`, with the same classes."""

from stable_worldmodel import wrappers
from stable_worldmodel.wrappers import *  # noqa: F403

__all__ = list(wrappers.__all__)
