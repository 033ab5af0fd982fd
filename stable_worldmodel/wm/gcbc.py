"""Earlier name of `stable_worldmodel.wm.gcrl`, for behaviour cloning."""

from stable_worldmodel.wm.gcrl import GCBC, GCBCConfig

__all__ = ["GCBC", "GCBCConfig"]
