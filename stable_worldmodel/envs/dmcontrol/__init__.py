"""The DeepMind Control Suite with factors of variation; each module is the table of one domain."""

from typing import TYPE_CHECKING

from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.dmcontrol.acrobot import AcrobotDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.ball_in_cup import BallInCupDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.base import DMControlWrapper
    from stable_worldmodel.envs.dmcontrol.cartpole import CartpoleDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.cheetah import CheetahDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.expert import ExpertPolicy
    from stable_worldmodel.envs.dmcontrol.finger import FingerDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.hopper import HopperDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.humanoid import HumanoidDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.manipulator import ManipulatorDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.pendulum import PendulumDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.quadruped import QuadrupedDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.reacher import ReacherDMControlWrapper
    from stable_worldmodel.envs.dmcontrol.walker import WalkerDMControlWrapper

_LAZY = {
    "AcrobotDMControlWrapper": "acrobot",
    "BallInCupDMControlWrapper": "ball_in_cup",
    "CartpoleDMControlWrapper": "cartpole",
    "CheetahDMControlWrapper": "cheetah",
    "DMControlWrapper": "base",
    "ExpertPolicy": "expert",
    "FingerDMControlWrapper": "finger",
    "HopperDMControlWrapper": "hopper",
    "HumanoidDMControlWrapper": "humanoid",
    "ManipulatorDMControlWrapper": "manipulator",
    "PendulumDMControlWrapper": "pendulum",
    "QuadrupedDMControlWrapper": "quadruped",
    "ReacherDMControlWrapper": "reacher",
    "WalkerDMControlWrapper": "walker",
}

__all__ = [
    "AcrobotDMControlWrapper",
    "BallInCupDMControlWrapper",
    "CartpoleDMControlWrapper",
    "CheetahDMControlWrapper",
    "DMControlWrapper",
    "ExpertPolicy",
    "FingerDMControlWrapper",
    "HopperDMControlWrapper",
    "HumanoidDMControlWrapper",
    "ManipulatorDMControlWrapper",
    "PendulumDMControlWrapper",
    "QuadrupedDMControlWrapper",
    "ReacherDMControlWrapper",
    "WalkerDMControlWrapper",
]

__getattr__ = lazy_exports(__name__, {name: f"{__name__}.{module}" for name, module in _LAZY.items()})
