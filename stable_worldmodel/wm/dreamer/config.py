"""Sizes and loss weights of Dreamer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.training import Reads


def _size(deter: int, hidden: int, classes: int, depth: int, units: int) -> dict[str, Any]:
    return {"deter": deter, "hidden": hidden, "classes": classes, "depth": depth, "units": units}


_SMALL = {**_size(256, 64, 8, 8, 64), "groups": 16, "bins": 63}


@dataclass(frozen=True)
class DreamerConfig(PresetConfig):
    """A Dreamer. The defaults are the published size of 12 million parameters (arXiv 2301.04104)."""

    model_type: ClassVar[str] = "dreamer"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "1m": _size(512, 64, 4, 4, 64),
        "12m": _size(2048, 256, 16, 16, 256),
        "25m": _size(3072, 384, 24, 24, 384),
        "50m": _size(4096, 512, 32, 32, 512),
        "100m": _size(6144, 768, 48, 48, 768),
        "200m": _size(8192, 1024, 64, 64, 1024),
        "400m": _size(12288, 1536, 96, 96, 1536),
        "small": _SMALL,
        "debug": {**_SMALL, **_size(64, 16, 4, 4, 32), "groups": 8, "bins": 31, "imagined_steps": 5},
    }

    action_dim: int = 2  # A: width of an action, the number of actions if they are discrete
    discrete: bool = False  # one-hot actions
    inputs: dict[str, int] = field(default_factory=dict)  # vector columns and their widths
    images: list[str] = field(default_factory=lambda: ["pixels"])  # image columns
    image_size: int = 64
    deter: int = 2048  # width of the recurrent state
    blocks: int = 8  # of the recurrent layers
    hidden: int = 256
    groups: int = 32  # categorical variables of the stochastic state
    classes: int = 16  # of each
    depth: int = 16  # channels of the image networks
    units: int = 256  # width of the other networks
    unimix: float = 0.01  # share of a uniform distribution in every categorical one
    free_nats: float = 1.0
    dynamics_weight: float = 1.0
    representation_weight: float = 0.1
    behaviour: bool = True  # learn reward, critic and actor; False: a world model of data without rewards
    bins: int = 255  # of reward and value
    discount_horizon: int = 333
    imagined_steps: int = 15
    return_lambda: float = 0.95
    entropy_weight: float = 3e-4
    slow_critic_weight: float = 1.0
    slow_critic_rate: float = 0.02
    replay_value_weight: float = 0.3

    def __post_init__(self) -> None:
        self._at_least_one("action_dim", "groups", "classes", "imagined_steps")
        if not self.inputs and not self.images:
            raise ContractError("no inputs and no images: expected at least one column to observe")
        if self.deter % self.blocks:
            raise ContractError(f"deter={self.deter}: expected a multiple of blocks={self.blocks}")
        if self.image_size % 16:
            raise ContractError(f"image_size={self.image_size}: expected a multiple of 16")

    def reads(self) -> Reads:
        reward = ("reward",) if self.behaviour else ()
        return Reads((*self.images, *self.inputs, "action", *reward), optional=("terminated",))
