"""The controller of OGBench's arm has the package's results to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ogbench")

from stable_worldmodel.envs.ogbench import CubeEnv, arm, package

lie = package.load("manipspace.lie")

angles = st.one_of(st.floats(-np.pi, np.pi), st.floats(-2e-5, 2e-5), st.just(0.0))
quats = st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(tuple)
points = st.lists(st.floats(-1, 1), min_size=3, max_size=3)


@given(angles)
def test_turns_about_z_are_the_packages(angle: float) -> None:
    np.testing.assert_array_equal(arm.about_z(angle), lie.SO3.from_z_radians(angle).wxyz)


@given(quats, quats, points)
def test_products_of_turns_are_the_packages(one: tuple, other: tuple, point: list) -> None:
    ours, theirs = lie.SO3(wxyz=np.array(one)), lie.SO3(wxyz=np.array(other))
    np.testing.assert_array_equal(arm.times(one, other), (ours @ theirs).wxyz)
    np.testing.assert_array_equal(arm.inverse(one), ours.inverse().wxyz)
    np.testing.assert_array_equal(arm.turned(one, point), ours @ np.array(point))


@given(quats)
def test_yaws_are_the_packages(quat: tuple) -> None:
    turn = lie.SO3(wxyz=np.array(quat))
    np.testing.assert_array_equal(arm.yaw_of(quat), turn.compute_yaw_radians())
    matrix = turn.as_matrix()
    np.testing.assert_array_equal(arm.yaw_of_matrix(matrix.ravel()), lie.SO3.from_matrix(matrix).compute_yaw_radians())


@pytest.fixture(scope="module")
def cube() -> CubeEnv:
    return CubeEnv()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_joint_angles_are_the_packages(cube: CubeEnv, seed: int) -> None:
    generator = np.random.default_rng(seed)
    start = cube._home_qpos + generator.uniform(-0.5, 0.5, 6)
    position, turn = generator.uniform([0.2, -0.4, 0.0], [0.7, 0.4, 0.4]), lie.SO3(wxyz=np.array([0.0, 1.0, 0.0, 0.0]))
    quat = (lie.SO3.from_z_radians(generator.uniform(-np.pi, np.pi)) @ turn).wxyz
    expected = cube._ik.solve(pos=position, quat=quat, curr_qpos=start)
    np.testing.assert_array_equal(arm.joint_angles(cube._ik, position, tuple(quat.tolist()), start), expected)
