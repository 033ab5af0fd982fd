"""PYRO, the early generalisation of DINO-WM to any inputs: an earlier name of `stable_worldmodel.wm.prejepa`."""

from stable_worldmodel.wm.prejepa import PreJEPA, PreJEPAConfig

PYRO = PreJEPA
PYROConfig = PreJEPAConfig

__all__ = ["PYRO", "PYROConfig", "PreJEPA", "PreJEPAConfig"]
