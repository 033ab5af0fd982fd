"""PLDM: planning with a latent dynamics model learned from reward-free offline data (arXiv 2502.14819).

Encoder and predictor are those of LeWM. VICReg's variance and covariance terms, over the batch and over time, keep the
latents from collapsing; an inverse-dynamics head may ask them to tell which action was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from stable_worldmodel.wm.jepa import DEBUG_JEPA, JEPA, SMALL_JEPA, JEPAConfig
from stable_worldmodel.wm.loss import PLDMLoss, Terms
from stable_worldmodel.wm.tensors import fill_nan

# Weights of the original code; the variance and covariance of the first frame only.
_TWO_ROOMS = {
    "std_weight": 3.98,
    "cov_weight": 6.92,
    "std_t_weight": 0.245,
    "temp_align_weight": 0.742,
    "idm_weight": 1.07,
    "first_only": True,
}
_MAZE = {
    "std_weight": 35.0,
    "cov_weight": 11.9,
    "std_t_weight": 2.9,
    "temp_align_weight": 0.0,
    "idm_weight": 5.4,
    "first_only": True,
}


@dataclass(frozen=True)
class PLDMConfig(JEPAConfig):
    """Sizes and loss weights of a PLDM. The defaults are the weights found by a grid of 256 for the LeWM encoder."""

    model_type: ClassVar[str] = "pldm"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "two_rooms": _TWO_ROOMS,
        "maze": _MAZE,
        "small": {**SMALL_JEPA, "temp_align_weight": 1.0},
        "debug": {**DEBUG_JEPA, "temp_align_weight": 1.0},
    }

    std_weight: float = 18.0
    cov_weight: float = 12.0
    std_t_weight: float = 0.7
    cov_t_weight: float = 0.0
    temp_align_weight: float = 0.2
    temp_straight_weight: float = 0.0
    idm_weight: float = 0.0  # of the inverse-dynamics error; 0: there is no such head
    idm_hidden: int = 512
    first_only: bool = False  # variance and covariance of each clip's first frame only

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("idm_hidden")


class PLDM(JEPA):
    """The world model of `config`. Calling it gives the training loss; planners use `encode` and `rollout`.

    loss = pred + std_weight * std(z) + cov_weight * cov(z) + std_t_weight * std_t(z) + cov_t_weight * cov_t(z)
         + temp_align_weight * mean (z_{t+1} - z_t)^2 + idm_weight * mean (head(z_{t+1}, z_t) - a_t)^2
    """

    config: PLDMConfig

    def __init__(self, config: PLDMConfig) -> None:
        super().__init__(config)
        self.pldm_loss = PLDMLoss(
            std=config.std_weight,
            cov=config.cov_weight,
            std_t=config.std_t_weight,
            cov_t=config.cov_t_weight,
            temp_align=config.temp_align_weight,
            temp_straight=config.temp_straight_weight,
            first_only=config.first_only,
        )
        if config.idm_weight:
            self.inverse_dynamics = nn.Sequential(
                nn.Linear(2 * config.latent_dim, config.idm_hidden),
                nn.LayerNorm(config.idm_hidden),
                nn.GELU(),
                nn.Linear(config.idm_hidden, config.action_dim),
            )

    def regularisers(self, z: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None) -> Terms:
        terms = self.pldm_loss(z)
        if self.config.idm_weight:
            pairs = torch.cat([z[:, 1:], z[:, :-1]], dim=-1)  # (B, T - 1, 2 * D)
            error = self.inverse_dynamics(pairs).float() - fill_nan(actions[:, :-1].float())  # (B, T - 1, A)
            terms["idm"] = (self.config.idm_weight, error.square().mean())
        return terms
