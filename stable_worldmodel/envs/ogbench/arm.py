"""The package's controller of the arm, to the last bit, without most of what it spends in Python.

The package turns poses with objects that hold arrays of three or four numbers. Here they are plain floats: sums and
products in the same order give the same bits. Functions whose bits depend on a library (sine, arc tangent, products of
matrices, MuJoCo's own) are the ones that the package calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Quat = tuple[float, float, float, float]  # w, x, y, z

_SMALL = 1e-10  # squared angle below which the package uses a series
_CLOSE = 1e-4  # m and rad that the inverse kinematics aims for
_ITERATIONS = 20


def clipped(value: float, low: float, high: float) -> float:
    """`value`, or the bound that it exceeds."""
    return min(max(value, low), high)


def yaw_of(quat: Sequence[float]) -> Any:
    """The angle about z, float64 in -π…π."""
    w, x, y, z = quat
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))


def yaw_of_matrix(matrix: np.ndarray) -> Any:
    """The angle about z of a rotation matrix (9,)."""
    import mujoco

    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, matrix)
    return yaw_of(quat.tolist())


def about_z(angle: float) -> Quat:
    """A turn by `angle` about z."""
    squared = angle * angle
    if squared < _SMALL:
        fourth = squared * squared
        real, factor = 1.0 - squared / 8.0 + fourth / 384.0, 0.5 - squared / 48.0 + fourth / 3840.0
    else:
        size = math.sqrt(squared)
        real, factor = float(np.cos(0.5 * size)), float(np.sin(0.5 * size)) / size
    return real, 0.0, 0.0, factor * angle


def times(one: Quat, other: Quat) -> Quat:
    """The turn `other`, then the turn `one`."""
    w0, x0, y0, z0 = one
    w1, x1, y1, z1 = other
    return (
        -x0 * x1 - y0 * y1 - z0 * z1 + w0 * w1,
        x0 * w1 + y0 * z1 - z0 * y1 + w0 * x1,
        -x0 * z1 + y0 * w1 + z0 * x1 + w0 * y1,
        x0 * y1 - y0 * x1 + z0 * w1 + w0 * z1,
    )


def inverse(quat: Quat) -> Quat:
    """The turn back."""
    w, x, y, z = quat
    return w, -x, -y, -z


def turned(quat: Quat, point: Sequence[float]) -> tuple[float, float, float]:
    """A point after a turn about the origin."""
    x, y, z = point
    return times(times(quat, (0.0, x, y, z)), inverse(quat))[1:]


def joint_angles(ik: Any, position: Any, quat: Quat, start: np.ndarray) -> np.ndarray:
    """What brings the arm's flange to a pose, float64 (6,), by damped least squares from the angles `start`.

    Args:
        ik: the package's `DiffIKController`, whose model and matrices are used.
        position, quat: where the flange is to be, xyz in m and how it is turned.
    """
    import mujoco

    model, data, site = ik._model, ik._data, ik._site_ids[0]
    wanted, aim = np.array(position), np.array(quat)
    qpos, found, matrix = data.qpos, data.site_xpos[site], data.site_xmat[site]
    error, jacobian, turn = ik._err.reshape(6), ik._jac, ik._err_quat[0]
    offset, angle, now, back = error[:3], error[3:], ik._site_quat[0], ik._site_quat_inv[0]
    linear, angular = jacobian[:3], jacobian[3:]
    qpos[:] = start
    for _ in range(_ITERATIONS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        np.subtract(wanted, found, out=offset)
        mujoco.mju_mat2Quat(now, matrix)
        mujoco.mju_negQuat(back, now)
        mujoco.mju_mulQuat(turn, aim, back)
        mujoco.mju_quat2Vel(angle, turn, 1.0)
        if math.sqrt(offset.dot(offset)) <= _CLOSE and math.sqrt(angle.dot(angle)) <= _CLOSE:
            break
        mujoco.mj_jacSite(model, data, linear, angular, site)
        update = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + ik._damping, error)
        largest = np.abs(update).max()
        if largest > ik._max_angle_change:
            update *= ik._max_angle_change / largest
        mujoco.mj_integratePos(model, qpos, update, 1.0)
    return qpos.copy()
