"""`swm/CartpoleDMControl-v0`: swing a pole up on a cart."""

from __future__ import annotations

from stable_worldmodel.envs.dmcontrol import common
from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper, Task
from stable_worldmodel.envs.mujoco.effects import Density, Outline
from stable_worldmodel.envs.mujoco.factors import Factor, number, switch


class CartpoleDMControlWrapper(DMControlWrapper):
    """Cart and pole."""

    domain = "cartpole"
    tasks = {name: Task(name) for name in ("swingup_sparse", "swingup", "balance", "balance_sparse")}  # noqa: RUF012
    default_task = "swingup_sparse"

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        return (
            *common.LOOKS,
            *common.GRAVITY,
            number("agent.cart_mass", 0.5, 1.5, Density(names="cart"), "kg"),
            common.density("pole", "pole_1"),
            switch("agent.cart_shape", Outline("geom", "cart"), "looks only; 0: box, 1: sphere"),
        )
