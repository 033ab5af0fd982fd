"""What decides the outcome of a training run, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.lewm.config import LeWMConfig
from stable_worldmodel.wm.registry import ModelConfig

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are those LeWM was published with (arXiv 2603.19312)."""

    model: ModelConfig = field(default_factory=LeWMConfig)  # `action_dim` is set from the dataset
    num_steps: int = 4  # frames per clip; at least the model's window + 1
    frameskip: int = 5  # env steps between two frames
    epochs: int = 10  # passes over all clips
    max_steps: int | None = None  # stop the schedule after that many optimiser steps
    batch_size: int = 128  # clips
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    warmup: float = 0.01  # share of all steps with a rising learning rate; it falls by a cosine afterwards
    clip_norm: float = 1.0  # of the gradient
    precision: str = "bf16"  # of the network: fp32, bf16; weights and losses are float32 always
    device: str = "auto"  # cpu, or auto: an accelerator if there is one
    scaler: str = "zscore"  # of the actions, see data.normalization
    val_fraction: float = 0.1  # share of episodes held out
    val_batches: int = 8  # most batches per validation
    log_every: int = 20  # steps per log row; a row is the mean over them
    loggers: tuple[str, ...] = ("jsonl", "csv", "tensorboard")
    seed: int = 3072

    def __post_init__(self) -> None:
        for name in ("num_steps", "frameskip", "epochs", "batch_size", "log_every", "val_batches"):
            if getattr(self, name) < 1:
                raise ContractError(f"{name}={getattr(self, name)}: expected an integer >= 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise ContractError(f"max_steps={self.max_steps}: expected an integer >= 1 or None")
        if not 0 < self.val_fraction < 1:
            raise ContractError(f"val_fraction={self.val_fraction}: expected a number between 0 and 1")
        if self.precision not in PRECISIONS:
            raise ContractError(f"precision={self.precision!r}: expected one of {PRECISIONS}")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """The preset `paper`, `small` or `tiny`, with single values replaced. ContractError for another name."""
        if name not in PRESETS:
            raise ContractError(f"preset {name!r}: expected one of {sorted(PRESETS)}")
        return replace(PRESETS[name], **overrides)


# Minutes on two CPU cores: about 1000 steps for 500 TwoRoom episodes, 300 for 200 (what `tiny` is for). A clip of 8
# frames gives 5 windows for the encoding of 8 frames instead of 20.
_SMALL = TrainConfig(
    model=LeWMConfig.preset("small"),
    num_steps=8,
    epochs=5,
    batch_size=64,
    learning_rate=1e-3,
    warmup=0.05,
    precision="fp32",
    device="cpu",
)
PRESETS = {"paper": TrainConfig(), "small": _SMALL, "tiny": _SMALL}
