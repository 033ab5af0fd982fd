"""The world models by name. A model's code is imported when it is first built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stable_worldmodel.errors import ContractError

if TYPE_CHECKING:
    from torch import nn

    from stable_worldmodel.wm.training import Reads


class ModelConfig(Protocol):
    """A frozen dataclass of JSON values that says which model it configures."""

    model_type: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def reads(self) -> Reads: ...


@dataclass(frozen=True)
class ModelEntry:
    """Where a model and its config dataclass live."""

    module: str
    model: str
    config: str

    def load(self, name: str) -> Any:
        return getattr(importlib.import_module(self.module), name)


_WM = "stable_worldmodel.wm"
MODELS = {
    "dreamer": ModelEntry(f"{_WM}.dreamer", "Dreamer", "DreamerConfig"),
    "dummy": ModelEntry(f"{_WM}.dummy", "build_dummy", "DummyConfig"),
    "frame": ModelEntry(f"{_WM}.frame", "FrameModel", "FrameConfig"),
    "gcbc": ModelEntry(f"{_WM}.gcrl", "GCBC", "GCBCConfig"),
    "gciql": ModelEntry(f"{_WM}.gcrl", "GCIQL", "GCIQLConfig"),
    "gcivl": ModelEntry(f"{_WM}.gcrl", "GCIVL", "GCIVLConfig"),
    "hilp": ModelEntry(f"{_WM}.gcrl", "HILP", "HILPConfig"),
    "lewm": ModelEntry(f"{_WM}.lewm", "LeWM", "LeWMConfig"),
    "pldm": ModelEntry(f"{_WM}.pldm", "PLDM", "PLDMConfig"),
    "prejepa": ModelEntry(f"{_WM}.prejepa", "PreJEPA", "PreJEPAConfig"),
    "tdmpc2": ModelEntry(f"{_WM}.tdmpc2", "TDMPC2", "TDMPC2Config"),
}
# Names of earlier releases.
ALIASES = {"dinowm": "prejepa", "pyro": "prejepa", "tdmpc": "tdmpc2"}


def build_model(config: ModelConfig) -> nn.Module:
    """A freshly initialised model of `config`, in training mode on the CPU."""
    entry = _entry(config.model_type)
    return entry.load(entry.model)(config)


def preset_config(model_type: str, preset: str, **overrides: Any) -> ModelConfig:
    """The preset of a model by name, with single values replaced. ContractError for an unknown model or preset."""
    entry = _entry(model_type)
    return entry.load(entry.config).preset(preset, **overrides)


def config_from_dict(model_type: str, values: Mapping[str, Any]) -> ModelConfig:
    """The config of a model from its JSON values. ContractError for an unknown model or field."""
    entry = _entry(model_type)
    try:
        return entry.load(entry.config)(**values)
    except TypeError as error:
        raise ContractError(f"config of model {model_type!r}: {error}") from error


def _entry(model_type: str) -> ModelEntry:
    entry = MODELS.get(ALIASES.get(model_type, model_type))
    if entry is None:
        raise ContractError(f"unknown model {model_type!r}: expected one of {sorted(MODELS)}")
    return entry
