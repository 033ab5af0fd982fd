"""What goes into a policy and comes out of it, by name, kind and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from stable_worldmodel.errors import ContractError, MissingKeyError


class FeatureType(str, Enum):
    """What a feature is."""

    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"
    REWARD = "REWARD"
    LANGUAGE = "LANGUAGE"


class NormalizationMode(str, Enum):
    """How a feature is scaled; see `processors.normalize`."""

    MIN_MAX = "MIN_MAX"
    MEAN_STD = "MEAN_STD"
    IDENTITY = "IDENTITY"
    QUANTILES = "QUANTILES"
    QUANTILE10 = "QUANTILE10"


@dataclass(frozen=True)
class PolicyFeature:
    """One input or output of a policy, without batch axis. Images of a policy are channel-first, (C, H, W)."""

    type: FeatureType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", FeatureType(self.type))
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as LeRobot's `config.json` has it."""
        return {"type": self.type.value, "shape": list(self.shape)}


def features_from_dict(features: Mapping[str, Any]) -> dict[str, PolicyFeature]:
    """The features of a `config.json`: name -> {"type", "shape"}."""
    return {name: PolicyFeature(FeatureType(value["type"]), value["shape"]) for name, value in features.items()}


def get_channel_first_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of an image shape given as (H, W, C) or (C, H, W), C being smaller than both sides.

    Raises ContractError where that does not tell which axis is the channel.
    """
    shape = tuple(int(size) for size in image_shape)
    if len(shape) == 3:
        first, middle, last = shape
        if last < first and last < middle:
            return last, first, middle
        if first < middle and first < last:
            return first, middle, last
    raise ContractError(f"image shape {shape}: expected (H, W, C) or (C, H, W) with C smaller than H and W")


def env_to_policy_features(env_cfg: Any) -> dict[str, PolicyFeature]:
    """The features of an env as a policy names them.

    Args:
        env_cfg: an EnvConfig, or anything with `features` (env key -> PolicyFeature) and `features_map` (env key ->
            policy key).

    Images become channel-first; all others are passed on. Raises ContractError for an image without three axes,
    MissingKeyError for a key that `features_map` does not have.
    """
    found = {}
    for key, feature in env_cfg.features.items():
        if key not in env_cfg.features_map:
            raise MissingKeyError(f"features_map has no {key!r}, only {sorted(env_cfg.features_map)}")
        if feature.type is FeatureType.VISUAL:
            if len(feature.shape) != 3:
                raise ContractError(f"image feature {key!r} has shape {tuple(feature.shape)}: expected three axes")
            feature = PolicyFeature(FeatureType.VISUAL, get_channel_first_image_shape(feature.shape))
        found[env_cfg.features_map[key]] = feature
    return found
