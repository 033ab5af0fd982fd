"""Gymnasium's classic control tasks with factors of variation."""

from stable_worldmodel.envs.gymnasium_control.acrobot import AcrobotWrapper
from stable_worldmodel.envs.gymnasium_control.base import GymControlWrapper
from stable_worldmodel.envs.gymnasium_control.cartpole import CartPoleWrapper
from stable_worldmodel.envs.gymnasium_control.expert import ExpertPolicy
from stable_worldmodel.envs.gymnasium_control.mountain_car import MountainCarContinuousWrapper, MountainCarWrapper
from stable_worldmodel.envs.gymnasium_control.pendulum import PendulumWrapper

__all__ = [
    "AcrobotWrapper",
    "CartPoleWrapper",
    "ExpertPolicy",
    "GymControlWrapper",
    "MountainCarContinuousWrapper",
    "MountainCarWrapper",
    "PendulumWrapper",
]
