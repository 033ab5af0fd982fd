"""A world model in pixel space: what latent models have to beat."""

from stable_worldmodel.wm.frame.model import FrameConfig, FrameModel

__all__ = ["FrameConfig", "FrameModel"]
