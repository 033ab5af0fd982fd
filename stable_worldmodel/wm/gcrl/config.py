"""Sizes and loss weights of the goal-conditioned policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.training import GoalDraw, Reads

_SMALL = {
    "backbone": "conv",
    "backbone_options": {"channels": [16, 32, 64], "width": 16},
    "pretrained": False,
    "frozen": False,
    "image_size": 64,
    "trunk": "mlp",
    "mlp_width": 256,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # The transformer of LeWM's encoder, trained from scratch.
    "scratch": {"backbone": "vit", "pretrained": False, "frozen": False},
    # A transformer of this size does not begin to learn within minutes; convolutions and an MLP do, as in OGBench.
    "small": _SMALL,
    "debug": {
        "backbone": "vit",
        "backbone_options": {"patch_size": 8, "width": 32, "depth": 1, "heads": 2, "mlp_width": 64},
        "pretrained": False,
        "frozen": False,
        "image_size": 32,
        "depth": 2,
        "heads": 4,
        "head_dim": 16,
        "mlp_width": 128,
    },
}


@dataclass(frozen=True)
class GCRLConfig(PresetConfig):
    """What all of them share: a backbone, and transformers over the patches of state and goal."""

    presets: ClassVar[dict[str, dict[str, Any]]] = _PRESETS
    # Draws of the goals, and of others for the actor. The published ones; see `wm.training.GoalDraw`.
    goals: ClassVar[GoalDraw]
    actor_goals: ClassVar[GoalDraw | None] = None

    action_dim: int = 2  # A: flattened env actions of one macro step
    chunk: int = 1  # consecutive actions predicted at once
    inputs: dict[str, int] = field(default_factory=dict)  # further columns and their widths, e.g. {"proprio": 4}
    backbone: str = "dinov2_small"  # see wm.backbones
    backbone_options: dict[str, Any] = field(default_factory=dict)  # of a backbone without pretrained weights
    backbone_revision: str | None = None
    pretrained: bool = True
    frozen: bool = True  # False trains the backbone
    image_size: int = 224
    embed_dim: int = 10  # width of every input's part of a token
    window: int = 3  # frames of the history
    trunk: str = "transformer"  # or mlp, which sees the newest frame alone
    depth: int = 6
    heads: int = 16
    head_dim: int = 64
    mlp_width: int = 2048
    policy: str = "gaussian"  # gaussian: likelihood with a learned deviation; mse: squared distance

    def __post_init__(self) -> None:
        self._at_least_one("action_dim", "chunk", "embed_dim", "window", "depth", "heads")
        self._one_of("policy", ("gaussian", "mse"))
        self._one_of("trunk", ("transformer", "mlp"))

    def reads(self) -> Reads:
        observed = ("pixels", *self.inputs)
        return Reads((*observed, "action"), observed=observed, goals=self.goals, actor_goals=self.actor_goals)


@dataclass(frozen=True)
class GCBCConfig(GCRLConfig):
    """Goal-conditioned behaviour cloning."""

    model_type: ClassVar[str] = "gcbc"
    goals: ClassVar[GoalDraw] = GoalDraw((0.0, 0.0, 1.0, 0.0))

    policy: str = "mse"


@dataclass(frozen=True)
class ValueConfig(GCRLConfig):
    """What the methods with a value function share."""

    goals: ClassVar[GoalDraw] = GoalDraw((0.3, 0.5, 0.0, 0.2))
    actor_goals: ClassVar[GoalDraw | None] = GoalDraw((0.5, 0.0, 0.5, 0.0))

    discount: float = 0.99
    expectile: float = 0.9
    temperature: float = 3.0  # of the advantage in the actor's weights
    max_weight: float = 100.0  # of one action in the actor's loss
    critics: int = 2  # heads of a value function; targets take the smallest
    target_rate: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("critics")
        if not 0 < self.expectile < 1:
            raise ContractError(f"expectile={self.expectile}: expected a number between 0 and 1")


@dataclass(frozen=True)
class GCIVLConfig(ValueConfig):
    """Implicit V-learning: a value function of state and goal, without actions."""

    model_type: ClassVar[str] = "gcivl"


@dataclass(frozen=True)
class GCIQLConfig(ValueConfig):
    """Implicit Q-learning (arXiv 2110.06169) with goals."""

    model_type: ClassVar[str] = "gciql"

    temperature: float = 10.0
    q_hidden: int = 256


@dataclass(frozen=True)
class HILPConfig(ValueConfig):
    """Hilbert representations (arXiv 2402.15567): the value is minus a distance of embeddings."""

    model_type: ClassVar[str] = "hilp"
    goals: ClassVar[GoalDraw] = GoalDraw((0.375, 0.625, 0.0, 0.0))

    metric_dim: int = 64  # width of an embedding
    skills: bool = False  # the policy follows directions of the embedding (the original) instead of goals
    skill_expectile: float = 0.9
    skill_temperature: float = 10.0
