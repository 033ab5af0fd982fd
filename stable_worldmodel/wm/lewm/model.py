"""LeWM: a joint-embedding world model learned end to end from pixels (arXiv 2603.19312).

It learns from the error of its prediction alone, without stop-gradient, teacher or decoder. SIGReg holds the latents to
a standard normal and so keeps them from collapsing.
"""

from __future__ import annotations

import torch

from stable_worldmodel.wm.jepa import JEPA
from stable_worldmodel.wm.lewm.config import LeWMConfig
from stable_worldmodel.wm.loss import SIGReg, Terms


class LeWM(JEPA):
    """The world model of `config`. Calling it gives the training loss; planners use `encode` and `rollout`.

    loss = pred + sigreg_weight * SIGReg(z) + alignment_weight * mean (z_{t+1} - z_t)^2
    """

    config: LeWMConfig

    def __init__(self, config: LeWMConfig) -> None:
        super().__init__(config)
        self.sigreg = SIGReg(directions=config.sigreg_directions)

    def regularisers(self, z: torch.Tensor, actions: torch.Tensor, generator: torch.Generator | None) -> Terms:
        return {
            "sigreg": (self.config.sigreg_weight, self.sigreg(z.transpose(0, 1), generator)),
            "align": (self.config.alignment_weight, (z[:, 1:] - z[:, :-1]).square().mean()),
        }
