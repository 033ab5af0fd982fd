"""Earlier name of `stable_worldmodel.wm.tdmpc2`."""

from stable_worldmodel.wm.tdmpc2 import TDMPC2, TDMPC2Config

TDMPC = TDMPC2
TDMPCConfig = TDMPC2Config

__all__ = ["TDMPC", "TDMPC2", "TDMPC2Config", "TDMPCConfig"]
