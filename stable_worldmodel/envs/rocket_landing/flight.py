"""The package's rocket over its pad: its state as a row, and its picture."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, require

# Name of the part -> its links; -1 is the body itself.
PARTS = {"body": (-1,), "booster": (1,), "fin": (2, 3, 4, 5), "leg": (6, 7, 8)}
_TANK = 0  # link of the fuel
_CAMERA = np.array([-1.0, 0.0, 3.0])  # of the package: from the rocket's middle, in its own frame, m
_UPWARD = np.deg2rad(30.0)  # of the package's camera
_FIELD = 90.0  # of view, degrees
_NEAR, _FAR = 0.1, 1000.0  # m

# Parts of a row `state`, in this order: name -> size.
PARTS_OF_STATE = {
    "position": 3,
    "orientation": 4,
    "velocity": 3,
    "spin": 3,
    "throttle": 1,
    "fuel": 1,
    "ignition": 1,
    "gimbal": 2,
    "fins": 4,
    "fin_velocities": 12,
    "body_velocity": 3,
    "action": 7,
    "on_pad": 1,
    "steps": 1,
    "physics_steps": 1,
}
STATE_SIZE = sum(PARTS_OF_STATE.values())


def make(**arguments: Any) -> Any:
    """The package's environment without pictures of its own; MissingDependencyError names the extra."""
    with contextlib.redirect_stdout(io.StringIO()):
        module: Any = require("PyFlyt.gym_envs.rocket_envs.rocket_landing_env", "rocket")
    return module.RocketLandingEnv(**arguments)


def begin(rocket: Any, position: np.ndarray, tilt: np.ndarray, velocity: float, seed: int) -> None:
    """Put the rocket at xyz in m with roll and pitch in rad, falling at `velocity` m/s, and its pad below."""
    rocket.start_pos = np.array([position], np.float64)
    rocket.start_orn = np.array([[tilt[0], tilt[1], 0.0]], np.float64)
    with contextlib.redirect_stdout(io.StringIO()):
        rocket.reset(seed=seed, options={})
    if velocity:
        rocket.env.resetBaseVelocity(drone(rocket).Id, [0.0, 0.0, velocity], [0.0, 0.0, 0.0])
        drone(rocket).update_state()
        rocket.compute_state()


def drone(rocket: Any) -> Any:
    """The package's rocket proper."""
    return rocket.env.drones[0]


# ---------------------------------------------------------------------- state
def state_of(rocket: Any) -> np.ndarray:
    """Everything the simulation goes on from but its random stream, float64 (STATE_SIZE,)."""
    it, bullet = drone(rocket), rocket.env
    (position, orientation), (velocity, spin) = (
        bullet.getBasePositionAndOrientation(it.Id),
        bullet.getBaseVelocity(it.Id),
    )
    parts: dict[str, Any] = {
        "position": position,
        "orientation": orientation,
        "velocity": velocity,
        "spin": spin,
        "throttle": it.boosters.throttle,
        "fuel": it.boosters.ratio_fuel_remaining,
        "ignition": it.boosters.ignition_state,
        "gimbal": it.booster_gimbal.gimbal_state,
        "fins": [surface.actuation for surface in it.lifting_surfaces.surfaces],
        "fin_velocities": [surface.local_surface_velocity for surface in it.lifting_surfaces.surfaces],
        "body_velocity": it.bodies.local_body_velocities,
        "action": rocket.action,
        "on_pad": rocket.landing_pad_contact,
        "steps": rocket.step_count,
        "physics_steps": bullet.physics_steps,
    }
    return np.concatenate([np.ravel(np.asarray(parts[name], np.float64)) for name in PARTS_OF_STATE])


def write_state(rocket: Any, state: Any) -> None:
    """Go on from a row; ContractError unless it has STATE_SIZE finite numbers.

    What Bullet keeps to itself, such as where it thinks the links are, is not in it: a restored flight departs from the
    recorded one by 1e-6 at first.
    """
    values = np.array(state, np.float64).reshape(-1)
    if values.shape != (STATE_SIZE,) or not np.isfinite(values).all():
        raise ContractError(f"state has shape {np.shape(state)}: expected {STATE_SIZE} finite numbers, as in info")
    ends = np.cumsum(list(PARTS_OF_STATE.values()))[:-1]
    parts = dict(zip(PARTS_OF_STATE, np.split(values, ends), strict=True))
    it, bullet = drone(rocket), rocket.env
    it.boosters.throttle, it.boosters.ratio_fuel_remaining = parts["throttle"], parts["fuel"]
    it.boosters.ignition_state = parts["ignition"] > 0
    it.booster_gimbal.gimbal_state = parts["gimbal"][None]
    fuel = parts["fuel"][0]
    bullet.changeDynamics(
        it.Id,
        _TANK,
        mass=float(fuel * it.boosters.total_fuel_mass[0]),
        localInertiaDiagonal=fuel * it.boosters.max_inertia[0],
    )
    bullet.resetBasePositionAndOrientation(it.Id, parts["position"], parts["orientation"])
    bullet.resetBaseVelocity(it.Id, parts["velocity"], parts["spin"])
    for surface, fin in zip(it.lifting_surfaces.surfaces, parts["fins"], strict=True):
        surface.actuation = fin
    rocket.action, rocket.landing_pad_contact = parts["action"], float(parts["on_pad"][0])
    rocket.step_count, bullet.physics_steps = int(parts["steps"][0]), int(parts["physics_steps"][0])
    it.update_state()
    rocket.compute_state()
    for surface, speed in zip(it.lifting_surfaces.surfaces, parts["fin_velocities"].reshape(4, 3), strict=True):
        surface.local_surface_velocity = speed
    it.bodies.local_body_velocities = parts["body_velocity"].reshape(np.shape(it.bodies.local_body_velocities))


def stream_of(rocket: Any) -> np.ndarray:
    """The random stream of the engine's noise, uint64 (6,)."""
    state = rocket.np_random.bit_generator.state
    words = [part for name in ("state", "inc") for part in divmod(state["state"][name], 1 << 64)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def write_stream(rocket: Any, stream: Any) -> None:
    """Go on with a recorded stream; ContractError unless it is uint64 (6,)."""
    words = [int(word) for word in np.asarray(stream).reshape(-1)]
    if len(words) != 6:
        raise ContractError(f"stream has {len(words)} words: expected 6, as in info")
    generator = rocket.np_random.bit_generator
    generator.state = {
        **generator.state,
        "state": {"state": (words[0] << 64) + words[1], "inc": (words[2] << 64) + words[3]},
        "has_uint32": words[4],
        "uinteger": words[5],
    }


# ---------------------------------------------------------------------- pictures
def paint(rocket: Any, colors: Mapping[str, np.ndarray], pad: np.ndarray) -> None:
    """Colour the parts of the rocket, by name, and the pad; colours in 0…255."""
    for name, color in colors.items():
        for link in PARTS[name]:
            rocket.env.changeVisualShape(drone(rocket).Id, link, rgbaColor=[*(color / 255.0), 1.0])
    rocket.env.changeVisualShape(rocket.landing_pad_id, -1, rgbaColor=[*(pad / 255.0), 1.0])


def picture(rocket: Any, shape: tuple[int, int], sky: np.ndarray) -> np.ndarray:
    """What the package's camera sees from above the rocket, uint8 (H, W, 3), before a sky of this colour."""
    bullet = rocket.env
    position, orientation = bullet.getBasePositionAndOrientation(drone(rocket).Id)
    turned = np.reshape(bullet.getMatrixFromQuaternion(orientation), (3, 3))
    roll, pitch, yaw = bullet.getEulerFromQuaternion(orientation)
    tilted = np.reshape(
        bullet.getMatrixFromQuaternion(bullet.getQuaternionFromEuler([roll, pitch + _UPWARD, yaw])), (3, 3)
    )
    height, width = shape
    view = bullet.computeViewMatrix((np.array(position) + turned @ _CAMERA).tolist(), position, tilted[:, 2].tolist())
    lens = bullet.computeProjectionMatrixFOV(_FIELD, width / height, _NEAR, _FAR)
    found = bullet.getCameraImage(width, height, view, lens, renderer=bullet.ER_TINY_RENDERER)
    image = np.reshape(np.asarray(found[2], np.uint8), (height, width, 4))[..., :3].copy()
    image[np.reshape(np.asarray(found[4]), (height, width)) < 0] = sky
    return image
