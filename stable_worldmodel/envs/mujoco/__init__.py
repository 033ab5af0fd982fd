"""What all MuJoCo environments share: factors as tables, pictures, restoring, one GL context per process."""

from stable_worldmodel.envs.mujoco.env import MujocoEnv
from stable_worldmodel.envs.mujoco.factors import Factor, FactorEngine, color, number, switch
from stable_worldmodel.envs.mujoco.gl import Backend, backend
from stable_worldmodel.envs.mujoco.quality import QUALITIES, Quality
from stable_worldmodel.envs.mujoco.simulation import Simulation

__all__ = [
    "QUALITIES",
    "Backend",
    "Factor",
    "FactorEngine",
    "MujocoEnv",
    "Quality",
    "Simulation",
    "backend",
    "color",
    "number",
    "switch",
]
