"""Module alias: the buffers under the name of earlier releases."""

from stable_worldmodel.buffer import HistoryBuffer
from stable_worldmodel.data.replay import ReplayBuffer, classic_filter

__all__ = ["HistoryBuffer", "ReplayBuffer", "classic_filter"]
