"""Our environments the way LeRobot's evaluation expects them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.utils import flatten_dict
from stable_worldmodel.wrappers import add_success, flatten_actions
from stable_worldmodel.wrappers.images import ImageFormat

PIXELS = "pixels"
# Where a vector of the observation may come from, in the env's observation or info.
SOURCES = {
    "agent_pos": ("agent_pos", "proprio"),
    "environment_state": ("environment_state", "state", "observation"),
}


@dataclass(frozen=True)
class View:
    """What one env shows and is told. Shapes are without batch axis."""

    shapes: Mapping[str, tuple[int, ...]]  # observation key -> shape; `pixels` is (H, W, 3)
    task: str
    task_description: str
    max_episode_steps: int
    fps: int = 30
    # Observation key -> key of the env's observation or info, where it is not one of SOURCES.
    sources: Mapping[str, str] = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)  # the env's view -> its name in `pixels`; empty: one frame


class LeRobotEnv(gym.Wrapper):
    """An env with the observations, infos and attributes that LeRobot's rollouts read.

    Observation: a dict of `pixels`, uint8 (H, W, 3) or a dict of cameras, and vectors such as `agent_pos`, float32; of
    a longer vector the first entries. Info is the env's own, with `is_success` at every reset and step. Actions are
    float32 (A,); of an env with discrete actions the one number is rounded.

    Attributes: `task`, `task_description`, `_max_episode_steps`; `metadata["render_fps"]`.
    """

    def __init__(self, env: gym.Env, view: View):
        super().__init__(flatten_actions(add_success(env)))
        self._view = view
        self.task, self.task_description = view.task, view.task_description
        self._max_episode_steps = view.max_episode_steps
        self.metadata = {**env.metadata, "render_fps": view.fps}
        spaces = {key: _space(key, shape) for key, shape in view.shapes.items()}
        if view.cameras and PIXELS in spaces:
            spaces[PIXELS] = gym.spaces.Dict(dict.fromkeys(view.cameras.values(), spaces[PIXELS]))
        self.observation_space = gym.spaces.Dict(spaces)
        self._number_of_actions = 0
        space = self.env.action_space
        if isinstance(space, gym.spaces.Discrete):
            self._number_of_actions, self._first_action = int(space.n), int(space.start)
            space = gym.spaces.Box(0, self._number_of_actions - 1, (1,), np.float32)
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise ContractError(f"actions {space}: expected one axis of numbers, or a discrete space")
        self.action_space = space
        self._format = ImageFormat(view.shapes[PIXELS]) if PIXELS in view.shapes else None
        if self._format is not None and hasattr(env.unwrapped, "render_shape"):
            env.unwrapped.render_shape = view.shapes[PIXELS][:2]  # drawn at this size, not scaled to it

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._shown(observation, info, False)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if self._number_of_actions:
            number = int(np.rint(np.asarray(action).reshape(-1)[0]))
            action = self._first_action + min(max(number, 0), self._number_of_actions - 1)
        observation, reward, terminated, truncated, info = self.env.step(action)
        shown, info = self._shown(observation, info, terminated)
        return shown, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """The frame of the observation, of several cameras the first; without frames the env's own picture."""
        if self._format is None:
            return self.env.render()
        frame = self._pixels({})
        return next(iter(frame.values())) if self._view.cameras else frame

    def _shown(
        self, observation: Any, info: Mapping[str, Any], terminated: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        seen = flatten_dict(observation) if isinstance(observation, Mapping) else {"observation": observation}
        known = {**info, **seen}
        shown: dict[str, Any] = {}
        for key, shape in self._view.shapes.items():
            shown[key] = self._pixels(seen) if key == PIXELS else self._vector(key, shape, known)
        rest = {key: value for key, value in info.items() if key not in shown}
        success = rest.get("is_success", rest.get("success", terminated))
        return shown, {**rest, "is_success": bool(np.any(success))}

    def _pixels(self, seen: Mapping[str, Any]) -> Any:
        """The frame, or a frame per camera: of the observation if it has them, else drawn."""
        if not self._view.cameras:
            return self._frame(seen[PIXELS] if PIXELS in seen else self.env.render())
        views = {key.removeprefix(f"{PIXELS}."): value for key, value in seen.items() if key.startswith(f"{PIXELS}.")}
        if not views:
            draw = getattr(self.env.unwrapped, "render_multiview", None)
            drawn = draw() if callable(draw) else {}
            views = dict(drawn) if isinstance(drawn, Mapping) else {str(i): frame for i, frame in enumerate(drawn)}
        missing = [camera for camera in self._view.cameras if camera not in views]
        if missing:
            raise MissingKeyError(f"{self.env.unwrapped} has no cameras {missing}, only {sorted(views)}")
        return {name: self._frame(views[camera]) for camera, name in self._view.cameras.items()}

    def _frame(self, frame: Any) -> np.ndarray:
        if frame is None or self._format is None:
            raise ContractError(f"{self.env.unwrapped} renders nothing: expected render_mode='rgb_array'")
        return self._format(frame)

    def _vector(self, key: str, shape: tuple[int, ...], known: Mapping[str, Any]) -> np.ndarray:
        names = (self._view.sources[key],) if key in self._view.sources else SOURCES.get(key, (key,))
        name = next((name for name in names if name in known), None)
        if name is None:
            raise MissingKeyError(f"{self.env.unwrapped} gives none of {names} for {key!r}; it has {sorted(known)}")
        value = np.asarray(known[name], np.float32).reshape(-1)
        if value.size < shape[0]:
            raise ContractError(f"{name!r} has {value.size} entries: expected at least {shape[0]} for {key!r}")
        return value[: shape[0]].copy()


def _space(key: str, shape: tuple[int, ...]) -> gym.Space:
    if key == PIXELS:
        return gym.spaces.Box(0, 255, shape, np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def make_lerobot_env(spec: Any, kwargs: Mapping[str, Any], view: View) -> gym.Env:
    """Build one env by its Gymnasium spec, which also works where its id is not registered."""
    arguments = {"render_mode": "rgb_array", **copy.deepcopy(dict(kwargs))}
    env = gym.make(spec, max_episode_steps=view.max_episode_steps, disable_env_checker=True, **arguments)
    try:
        return LeRobotEnv(env, view)
    except BaseException:
        env.close()
        raise
