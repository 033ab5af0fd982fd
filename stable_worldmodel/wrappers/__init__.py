"""Per-env preprocessing: whatever an env produces ends up, checked, in `info`. Visual changes and vector envs, too."""

from stable_worldmodel.wrappers.actions import FlattenActionWrapper, flatten_actions
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
from stable_worldmodel.wrappers.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Schedule,
    Sinusoidal,
    constant,
    cosine,
    exponential,
    linear,
    sinusoidal,
)
from stable_worldmodel.wrappers.success import SuccessWrapper, add_success
from stable_worldmodel.wrappers.vector import SyncWorld, VariationWrapper
from stable_worldmodel.wrappers.visual import (
    BlurWrapper,
    ChromaKeyWrapper,
    ColorJitterWrapper,
    CutoutWrapper,
    GrayscaleWrapper,
    MovingPatchWrapper,
    NoiseWrapper,
    OcclusionWrapper,
    RandomConvWrapper,
    RandomShiftWrapper,
    ResolutionWrapper,
)
from stable_worldmodel.wrappers.visual_base import VisualWrapper

__all__ = [
    "AddPixelsWrapper",
    "BlurWrapper",
    "ChromaKeyWrapper",
    "ColorJitterWrapper",
    "Constant",
    "Cosine",
    "CutoutWrapper",
    "EnsureGoalInfoWrapper",
    "EnsureImageShape",
    "EnsureInfoKeysWrapper",
    "EverythingToInfoWrapper",
    "Exponential",
    "FlattenActionWrapper",
    "GrayscaleWrapper",
    "InfoWrapper",
    "Linear",
    "MapKeysWrapper",
    "MegaWrapper",
    "MovingPatchWrapper",
    "NoiseWrapper",
    "OcclusionWrapper",
    "RandomConvWrapper",
    "RandomShiftWrapper",
    "ResizeGoalWrapper",
    "ResolutionWrapper",
    "Schedule",
    "Sinusoidal",
    "StackedWrapper",
    "SuccessWrapper",
    "SyncWorld",
    "VariationWrapper",
    "VisualWrapper",
    "action_filler",
    "add_success",
    "constant",
    "cosine",
    "exponential",
    "flatten_actions",
    "is_image",
    "linear",
    "sinusoidal",
    "variation_space_of",
]
