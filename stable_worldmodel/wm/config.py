"""What the configs of all models share: presets, and checks of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.training import Reads

Config = TypeVar("Config", bound="PresetConfig")


class PresetConfig:
    """Base of the config dataclasses. Their values are JSON values; the defaults are the published model.

    Every model has the presets `debug` (seconds on a CPU), `small` (minutes on a CPU) and `paper` (a GPU).
    """

    model_type: ClassVar[str]  # name in wm.registry.MODELS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}  # what differs from the defaults

    @classmethod
    def preset(cls: type[Config], name: str, **overrides: Any) -> Config:
        """The preset `name`, with single values replaced. ContractError for another name or an unknown value."""
        if name not in cls.presets:
            raise ContractError(f"preset {name!r}: expected one of {sorted(cls.presets)}")
        try:
            return cls(**{**cls.presets[name], **overrides})
        except TypeError as error:
            raise ContractError(f"{cls.__name__}: {error}") from error

    def reads(self) -> Reads:
        """What a training batch of the model consists of."""
        return Reads(("pixels", "action"))

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ContractError(f"{name}={getattr(self, name)}: expected an integer >= 1")

    def _one_of(self, name: str, allowed: Any) -> None:
        if getattr(self, name) not in allowed:
            raise ContractError(f"{name}={getattr(self, name)!r}: expected one of {sorted(allowed)}")
