"""A scripted pilot: falls, brakes late at full need, and keeps upright over the pad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.rocket_landing.flight import PARTS_OF_STATE
from stable_worldmodel.envs.scripted import ScriptedPolicy

# Of the package's rocket.
_DRY, _FUEL = 138.2, 410.9  # kg: empty, and of a full tank
_LEAST, _MOST = 2966.7, 7607.0  # N, of the engine when it burns
_GRAVITY = 9.81  # m/s²
_STANDING = 2.6  # m, height of the rocket's middle on the pad

_BRAKE = 12.0  # m/s²: braking starts when this would do
_NEAR = 1.0  # m above the pad, where the last bit is flown at a steady speed
_TOUCH = 0.8  # m/s of that
_BACK, _DAMP, _PUSH = 0.3, 1.2, 2.5  # sideways: 1/s², 1/s, and at most so many m/s²
_LEAN = 0.12  # rad at most
_TURN, _CALM = 9.0, 5.0  # attitude: 1/s², 1/s
_GIMBAL, _FINS = 0.7, 0.3  # command per rad/s² that is asked for
_FAST = 10.0  # m/s, below which fins do nothing


class ExpertPolicy(ScriptedPolicy):
    """Lands the rocket of `swm/PFRocketLanding-v0`; reads `state`.

    The engine cannot burn low enough to hover, so braking starts when the deceleration that stops the rocket at the pad
    has grown to 12 m/s², and follows what is needed from there. Sideways a proportional-derivative law asks for a lean,
    a second one turns the rocket by gimbal and fins.
    """

    def set_env(self, env: Any) -> None:
        """Attach a pool or a single env and forget all episodes."""
        super().set_env(env)
        self._burning = np.zeros(self.num_envs, bool)

    def _start_episodes(self, indices: np.ndarray) -> None:
        self._burning[indices] = False

    def _act(self, obs: Mapping[str, Any]) -> np.ndarray:
        states = self._latest(obs, "state")
        actions = np.stack([self._pilot(i, state) for i, state in enumerate(states)]).astype(np.float32)
        return actions if np.ndim(obs["state"]) > 1 else actions[0]

    def _pilot(self, index: int, state: np.ndarray) -> np.ndarray:
        ends = np.cumsum(list(PARTS_OF_STATE.values()))[:-1]
        parts = dict(zip(PARTS_OF_STATE, np.split(state, ends), strict=True))
        turned = _matrix(parts["orientation"])
        fall = parts["velocity"][2]
        need = self._braking(index, max(parts["position"][2] - _STANDING, 0.0), fall)
        thrust = (_DRY + _FUEL * parts["fuel"][0]) * need / max(turned[2, 2], 0.5)
        throttle = np.clip((thrust - _LEAST) / (_MOST - _LEAST), 0.0, 1.0)
        asked = _turning(parts, turned)
        gimbal = np.clip(-_GIMBAL * asked[:2], -1, 1) if self._burning[index] else np.zeros(2)
        fins = np.clip(_FINS * asked[1::-1], -1, 1) * (abs(fall) > _FAST)
        return np.array([*fins, 0.0, float(self._burning[index]), throttle, *gimbal])

    def _braking(self, index: int, height: float, fall: float) -> float:
        """Acceleration upwards that the engine should give, m/s²; says whether it burns."""
        burns = self._burning[index]
        if height > _NEAR:
            stop = fall**2 / (2 * height) if fall < 0 else 0.0
            self._burning[index] = stop > (0.6 * _BRAKE if burns else _BRAKE)
            return _GRAVITY + 1.05 * stop
        self._burning[index] = fall < (-0.5 if burns else -1.0)
        return _GRAVITY + float(np.clip(6.0 - 2.0 * (_TOUCH + fall), 0.0, 30.0))


def _turning(parts: Mapping[str, np.ndarray], turned: np.ndarray) -> np.ndarray:
    """Angular acceleration (3,) in the rocket's frame that takes it over the pad, rad/s²."""
    aside = np.clip(-_BACK * parts["position"][:2] - _DAMP * parts["velocity"][:2], -_PUSH, _PUSH)
    lean = np.clip(aside / (2 * _GRAVITY), -_LEAN, _LEAN)
    axis = np.cross(turned[:, 2], [*lean, 1.0])
    return turned.T @ (_TURN * axis - _CALM * parts["spin"])


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of a unit quaternion xyzw."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
