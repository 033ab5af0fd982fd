"""What decides the outcome of a training run, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.train.presets import preset_values
from stable_worldmodel.wm.lewm.config import LeWMConfig
from stable_worldmodel.wm.registry import ModelConfig

PRECISIONS = ("fp32", "bf16")
OPTIMIZERS = ("adamw", "laprop")
SCHEDULES = ("cosine", "constant")
FEATURES = ("none", "float32", "float16")
SCALERS = ("zscore", "minmax", "percentile", "none")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are those LeWM was published with (arXiv 2603.19312)."""

    model: ModelConfig = field(default_factory=LeWMConfig)  # `action_dim` and widths are set from the dataset
    columns: tuple[str, ...] | None = None  # what the model observes, where it has a choice; None: as in `model`
    num_steps: int = 4  # frames per clip; at least the model's window + 1
    frameskip: int = 5  # env steps between two frames
    features: str = "none"  # read stored features of a frozen backbone instead of images: none, float32, float16
    to_end: bool = False  # clips may end at the last row of an episode, where it terminates, with no action block there
    epochs: int = 10  # passes over all clips
    max_steps: int | None = None  # stop the schedule after that many optimiser steps
    batch_size: int = 128  # clips per optimiser step, of all processes together
    accumulate: int = 1  # parts a batch is computed in, one after the other; batch statistics are those of a part
    optimizer: str = "adamw"  # adamw; laprop: with adaptive gradient clipping, see train.optim
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    schedule: str = "cosine"  # after the warm-up: cosine to 0 at the last step, or constant
    warmup: float = 0.01  # share of all steps with a rising learning rate; from 1 on, their number
    clip_norm: float | None = 1.0  # of the gradient; None: as it is
    ema: float | None = None  # decay of an average of the weights, which is then validated and saved in their place
    precision: str = "bf16"  # of the network: fp32, bf16; weights and losses are float32 always
    compile: bool = False  # by torch.compile
    device: str = "auto"  # cpu, or auto: an accelerator if there is one
    scaler: str = "zscore"  # of actions and observed numbers: zscore, minmax (to [-1, 1]), percentile, none
    scalers: Mapping[str, str] = field(default_factory=dict)  # other scalers of single columns
    val_fraction: float = 0.1  # share of episodes held out
    val_batches: int = 8  # most batches per validation
    log_every: int = 20  # steps per log row; a row is the mean over them
    save_every: int | None = None  # steps after which the next log row also saves the state; None: only epochs do
    loggers: tuple[str, ...] = ("jsonl", "csv", "tensorboard")  # also wandb, trackio
    seed: int = 3072

    def __post_init__(self) -> None:
        for name in ("num_steps", "frameskip", "epochs", "batch_size", "accumulate", "log_every", "val_batches"):
            _at_least_one(name, getattr(self, name))
        for name in ("max_steps", "save_every"):
            if getattr(self, name) is not None:
                _at_least_one(name, getattr(self, name))
        if not 0 < self.val_fraction < 1:
            raise ContractError(f"val_fraction={self.val_fraction}: expected a number between 0 and 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ContractError(f"ema={self.ema}: expected a decay between 0 and 1, or None")
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("features", self.features, FEATURES)
        _one_of("schedule", self.schedule, SCHEDULES)
        for column, scaler in {"scaler": self.scaler, **self.scalers}.items():
            _one_of(column if column == "scaler" else f"scalers[{column!r}]", scaler, SCALERS)

    @classmethod
    def preset(cls, name: str, model: str | ModelConfig = "lewm", **overrides: Any) -> TrainConfig:
        """The preset of a model, by its name or its config, with single values replaced.

        Every model has the presets `debug`, `small` and `paper`. ContractError for another one or an unknown value.
        """
        values = preset_values(model if isinstance(model, str) else model.model_type, name)
        if not isinstance(model, str):
            values["model"] = model
        try:
            return replace(cls(), **{**values, **overrides})
        except TypeError as error:
            raise ContractError(f"TrainConfig: {error}") from error


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ContractError(f"{name}={value}: expected an integer >= 1")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ContractError(f"{name}={value!r}: expected one of {allowed}")
