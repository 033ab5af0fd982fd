"""DM Control: the contract of all envs, with the smallest domains always and the others when slow tests run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from envs.contract import EnvContract, RestorableContract
from gymnasium.utils.env_checker import check_env

pytest.importorskip("dm_control")


class DMControlContract(EnvContract):
    def test_gymnasium_finds_no_fault(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*A Box observation space m.*infinity")
            check_env(self.make(), skip_render_check=False)


PLANAR = {"gravity.y": "nothing moves across the plane"}


class TestReacherGoal(DMControlContract, RestorableContract):
    id = "swm/ReacherDMControl-v0"
    kwargs = {"task": "qpos_match"}  # noqa: RUF012
    revealing = {"rendering.render_target": 1}  # noqa: RUF012


@pytest.mark.slow
class TestBallInCup(DMControlContract):
    id = "swm/BallInCupDMControl-v0"
    revealing = {"rendering.render_target": 1}  # noqa: RUF012

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        return [np.array([1.0, 1.0]) * (-1) ** (i // 4) for i in range(count)]  # swings the ball hard enough to tell


class TestCheetah(DMControlContract):
    id = "swm/CheetahDMControl-v0"
    inert = PLANAR


@pytest.mark.slow
class TestAcrobot(DMControlContract):
    id = "swm/AcrobotDMControl-v0"
    inert = PLANAR
    revealing = {"rendering.render_target": 1}  # noqa: RUF012


@pytest.mark.slow
class TestCartpole(DMControlContract):
    id = "swm/CartpoleDMControl-v0"
    inert = PLANAR


@pytest.mark.slow
class TestFinger(DMControlContract):
    id = "swm/FingerDMControl-v0"

    def actions(self, env: Any, count: int = 20) -> list[Any]:
        env.set_state([0.0, 0.0, 1.0], [0.0, 0.0, 5.0])  # the spinner turns
        return super().actions(env, count)


@pytest.mark.slow
class TestFingerSpin(TestFinger):
    kwargs = {"task": "spin"}  # noqa: RUF012
    revealing = {"rendering.render_target": 1}  # noqa: RUF012


@pytest.mark.slow
class TestHopper(DMControlContract):
    id = "swm/HopperDMControl-v0"
    inert = PLANAR


@pytest.mark.slow
class TestHumanoid(DMControlContract):
    id = "swm/HumanoidDMControl-v0"


@pytest.mark.slow
class TestManipulator(DMControlContract):
    id = "swm/ManipulatorDMControl-v0"


@pytest.mark.slow
class TestPendulum(DMControlContract):
    id = "swm/PendulumDMControl-v0"
    inert = PLANAR


@pytest.mark.slow
class TestQuadruped(DMControlContract):
    id = "swm/QuadrupedDMControl-v0"


@pytest.mark.slow
class TestReacher(DMControlContract):
    id = "swm/ReacherDMControl-v0"


@pytest.mark.slow
class TestWalker(DMControlContract):
    id = "swm/WalkerDMControl-v0"
    inert = PLANAR
