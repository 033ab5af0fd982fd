"""The world models by name. A model's code is imported when it is first built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from torch import nn


class ModelConfig(Protocol):
    """A frozen dataclass of JSON values that says which model it configures."""

    model_type: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(frozen=True)
class ModelEntry:
    """Where a model and its config dataclass live."""

    module: str
    model: str
    config: str

    def load(self, name: str) -> Any:
        return getattr(importlib.import_module(self.module), name)


MODELS = {"lewm": ModelEntry("stable_worldmodel.wm.lewm", "LeWM", "LeWMConfig")}


def build_model(config: ModelConfig) -> nn.Module:
    """A freshly initialised model of `config`, in training mode on the CPU."""
    entry = _entry(config.model_type)
    return entry.load(entry.model)(config)


def config_from_dict(model_type: str, values: Mapping[str, Any]) -> ModelConfig:
    """The config of a model from its JSON values. ContractError for an unknown model or field."""
    entry = _entry(model_type)
    try:
        return entry.load(entry.config)(**values)
    except TypeError as error:
        raise ContractError(f"config of model {model_type!r}: {error}") from error


def _entry(model_type: str) -> ModelEntry:
    if model_type not in MODELS:
        raise ContractError(f"unknown model {model_type!r}: expected one of {sorted(MODELS)}")
    return MODELS[model_type]
