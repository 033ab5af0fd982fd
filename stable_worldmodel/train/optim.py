"""Optimisers by name, and their schedule.

LaProp is Adam with the order of its two averages exchanged: the gradient is scaled by its running root mean square
first, and momentum is taken of the scaled one (Ziyin, Wang, Ueda: LaProp, arXiv 2002.04839). With adaptive gradient
clipping (Brock et al., arXiv 2102.06171, with one norm for a whole tensor) it is the optimiser of Dreamer (arXiv
2301.04104).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from stable_worldmodel.train.config import TrainConfig
from stable_worldmodel.wm.training import optimizer_groups


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a run over the parameter groups of `model`, on whose device it works."""
    groups = optimizer_groups(model)
    if config.optimizer == "laprop":
        return LaProp(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=device in ("cpu", "cuda")
    )


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Of step 1 to `total`: linear from 0 over the warm-up, then constant or by a cosine to 0 at the last step."""
    warmup = max(1, round(config.warmup * total if config.warmup < 1 else config.warmup))
    if step < warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - warmup) / max(1, total - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


class LaProp(torch.optim.Optimizer):
    """LaProp with adaptive gradient clipping.

        g <- g * min(1, clip * max(|w|, 1e-3) / |g|)
        v <- b2 v + (1 - b2) g^2
        m <- b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps)
        w <- w - lr (m / (1 - b1^t) + weight_decay w)

    clip: largest norm of a tensor's gradient, as a share of the tensor's norm; 0: as it is.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        weight_decay: float = 0.0,
        clip: float = 0.3,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "clip": clip}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, w: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[w]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, as of torch's own optimisers
            state["scale"], state["momentum"] = torch.zeros_like(w), torch.zeros_like(w)
        state["step"] += 1
        t, (b1, b2) = float(state["step"]), group["betas"]
        g = clipped(w, w.grad, group["clip"]) if group["clip"] else w.grad
        state["scale"].mul_(b2).addcmul_(g, g, value=1 - b2)
        root = (state["scale"] / (1 - b2**t)).sqrt_().add_(group["eps"])
        state["momentum"].mul_(b1).addcdiv_(g, root, value=1 - b1)
        w.mul_(1 - group["lr"] * group["weight_decay"]).add_(state["momentum"], alpha=-group["lr"] / (1 - b1**t))


def clipped(weight: torch.Tensor, grad: torch.Tensor | None, share: float) -> torch.Tensor:
    """`grad`, shortened where its norm exceeds `share` times that of `weight`, which counts as 1e-3 at least."""
    assert grad is not None
    limit = share * weight.norm().clamp(min=1e-3)
    return grad * (limit / grad.norm().clamp(min=1e-30)).clamp(max=1.0)
