"""Gymnasium spaces that remember a value: the factors of variation of an environment.

Every space has a current `value`, an optional default `init_value` and an optional constraint `constrain_fn`. Values go
in only through `reset`, `sample` and `set_value`, always as the space's own dtype and shape; what comes out is a copy.

    space = Dict(
        {
            "wall": Dict({"axis": Discrete(2, init_value=1)}),
            "agent": Dict({"color": RGBBox(init_value=(255, 0, 0)), "radius": Box(7, 14, init_value=7)}),
        }
    )
    reset_variation_space(space, seed=0, options={"variation": ["agent.color"], "variation_values": {"wall.axis": 0}})
    space["wall"]["axis"].value  # 0
"""

from stable_worldmodel.spaces.leaf import Box, Discrete, MultiDiscrete, RGBBox, SamplingError
from stable_worldmodel.spaces.tree import Dict
from stable_worldmodel.spaces.variation import reset_variation_space

__all__ = ["Box", "Dict", "Discrete", "MultiDiscrete", "RGBBox", "SamplingError", "reset_variation_space"]
