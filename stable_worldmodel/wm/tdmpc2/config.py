"""Sizes and loss weights of TD-MPC2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.config import PresetConfig
from stable_worldmodel.wm.training import GoalDraw, Reads

_SMALL = {"latent_dim": 64, "mlp_width": 128, "encoder_width": 64, "bins": 51}


@dataclass(frozen=True)
class TDMPC2Config(PresetConfig):
    """A TD-MPC2. The defaults are the official single-task model (arXiv 2310.16828)."""

    model_type: ClassVar[str] = "tdmpc2"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "small": _SMALL,
        "debug": {**_SMALL, "latent_dim": 32, "mlp_width": 32, "encoder_width": 32, "bins": 21},
        # Images from scratch, reaching drawn goals. With the published weights latents become equal before anything is
        # learned from them: consistency counts most, rewards tell little, and shifted images hide where things are.
        # No clip goes on behind its goal, so only a predicted end tells a plan that what follows does not count.
        "goals": {
            **_SMALL,
            "goals": True,
            "episodic": True,
            "shift": 0,
            "consistency_weight": 2.0,
            "reward_weight": 1.0,
            "value_weight": 0.5,
            "encoder_lr_scale": 1.0,
        },
        # Offline data without rewards outside of it: pessimistic values, and an actor that stays near the data.
        "offline": {"discount": 0.99, "uncertainty_weight": 0.5, "bc_weight": 1.0},
    }

    action_dim: int = 10  # A: flattened env actions of one macro step, in [-1, 1]
    inputs: dict[str, int] = field(default_factory=dict)  # vector columns and their widths; goals are columns, too
    images: list[str] = field(default_factory=lambda: ["pixels"])  # image columns, 64 x 64
    image_size: int = 64
    shift: int = 3  # pixels by which training images move; 0: they stay
    latent_dim: int = 512  # per column; a multiple of simnorm_group
    encoder_width: int = 256
    mlp_width: int = 512
    simnorm_group: int = 8
    critics: int = 5  # Q heads
    critic_dropout: float = 0.01
    bins: int = 101
    value_min: float = -10.0  # of the bins, in symlog units
    value_max: float = 10.0
    episodic: bool = False  # learn when episodes terminate: at the goal, or from the column `terminated`
    goals: bool = False  # reach drawn goals: -1 per step until then, in place of recorded rewards
    discount: float = 0.99
    temporal_weight: float = 0.5  # rho: weight of each further step of the unroll
    consistency_weight: float = 20.0
    reward_weight: float = 0.1
    value_weight: float = 0.1
    terminal_weight: float = 1.0
    entropy_weight: float = 1e-4
    bc_weight: float = 0.0  # of the actor's squared distance from the data's actions
    uncertainty_weight: float = 0.0  # c: planning values lose c * |mean| * std of the Q heads
    target_rate: float = 0.01  # tau of the target Q heads and of the value scale
    log_std_min: float = -10.0
    log_std_max: float = 2.0
    encoder_lr_scale: float = 0.3
    actor_lr_scale: float = 1.0

    def __post_init__(self) -> None:
        self._at_least_one("action_dim", "latent_dim", "mlp_width", "simnorm_group")
        if not self.inputs and not self.images:
            raise ContractError("no inputs and no images: expected at least one column to observe")
        if self.latent_dim % self.simnorm_group:
            raise ContractError(f"latent_dim={self.latent_dim}: expected a multiple of {self.simnorm_group}")
        if self.critics < 2:
            raise ContractError(f"critics={self.critics}: expected at least 2, of which targets take the smaller")
        if self.image_size < 40:
            raise ContractError(f"image_size={self.image_size}: expected at least 40 for four strided convolutions")

    # Half of the goals lie ahead, some are the present: the draw of implicit V-learning, arXiv 2110.06169.
    goal_draw: ClassVar[GoalDraw] = GoalDraw((0.3, 0.5, 0.0, 0.2))

    @property
    def encoded_images(self) -> list[str]:
        """Image columns with an encoder, those of goals among them."""
        return [*self.images, *(f"goal_{name}" for name in self.images if self.goals)]

    @property
    def encoded_inputs(self) -> dict[str, int]:
        """Vector columns with an encoder, and their widths, those of goals among them."""
        return {**self.inputs, **{f"goal_{name}": width for name, width in self.inputs.items() if self.goals}}

    def reads(self) -> Reads:
        if self.goals:
            observed = (*self.images, *self.inputs)
            return Reads((*observed, "action"), observed=observed, goals=self.goal_draw)
        columns = (*self.images, *self.inputs, "action", "reward")
        if self.episodic:
            return Reads((*columns, "terminated"))
        return Reads(columns, optional=("terminated",))


def episode_discount(steps: float) -> float:
    """The official discount for episodes of `steps` macro steps: (T/5 - 1) / (T/5), within [0.95, 0.995]."""
    fifth = max(steps / 5, 1.0)
    return min(max((fifth - 1) / fifth, 0.95), 0.995)
