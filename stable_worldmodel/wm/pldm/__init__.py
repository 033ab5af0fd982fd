"""PLDM, a joint-embedding world model held up by variance and covariance terms."""

from stable_worldmodel.wm.pldm.model import PLDM, PLDMConfig

__all__ = ["PLDM", "PLDMConfig"]
