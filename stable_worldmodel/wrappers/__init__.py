"""Per-env preprocessing: whatever an env produces ends up, checked, in `info`."""

from stable_worldmodel.wrappers.base import InfoWrapper, variation_space_of
from stable_worldmodel.wrappers.history import StackedWrapper
from stable_worldmodel.wrappers.images import AddPixelsWrapper, EnsureImageShape, ResizeGoalWrapper, is_image
from stable_worldmodel.wrappers.info import (
    EnsureGoalInfoWrapper,
    EnsureInfoKeysWrapper,
    EverythingToInfoWrapper,
    MapKeysWrapper,
    action_filler,
)
from stable_worldmodel.wrappers.mega import MegaWrapper

__all__ = [
    "AddPixelsWrapper",
    "EnsureGoalInfoWrapper",
    "EnsureImageShape",
    "EnsureInfoKeysWrapper",
    "EverythingToInfoWrapper",
    "InfoWrapper",
    "MapKeysWrapper",
    "MegaWrapper",
    "ResizeGoalWrapper",
    "StackedWrapper",
    "action_filler",
    "is_image",
    "variation_space_of",
]
