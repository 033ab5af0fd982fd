"""Speed of pools: what they add to the envs, and how they compare with Gymnasium's vector envs.

    python benchmarks/rollout.py [--seconds 1.0] [--rounds 5] [--only NAME ...]

Prints JSON. Every comparison alternates its two sides within one run and reports the median of the ratios of
neighbouring rounds, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AddRenderObservation

from stable_worldmodel.pool import EnvPool, ProcessPool
from stable_worldmodel.pool.process import cpu_count
from stable_worldmodel.wrappers import MegaWrapper


class IdleEnv(gym.Env):
    """Costs nothing: what is measured around it is overhead. Its frames are drawn beforehand."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, size: int = 224, render_mode: str | None = "rgb_array"):
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-1, 1, (8,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self._state = np.zeros(8, np.float32)
        self._frames = np.random.default_rng(0).integers(0, 255, (4, size, size, 3), np.uint8)
        self._t = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._t = 0
        return self._state, {"state": self._state}

    def step(self, action):
        self._t += 1
        return self._state, 0.0, False, False, {"state": self._state}

    def render(self):
        return self._frames[self._t % 4]


def idle(size: int = 224) -> gym.Env:
    return MegaWrapper(IdleEnv(size), (size, size))


def idle_without_pixels() -> gym.Env:
    return MegaWrapper(IdleEnv(8), add_pixels=False)


def idle_observed(size: int = 224) -> gym.Env:
    """Only the frame, as the observation: the least a vector env can be asked to carry."""
    return AddRenderObservation(IdleEnv(size), render_only=True)


class Endless(gym.Wrapper):
    """Never ends, so that no side spends time on resets."""

    def step(self, action):
        observation, reward, _, _, info = self.env.step(action)
        return observation, reward, False, False, info


def two_room_env() -> gym.Env:
    return Endless(gym.make("swm/TwoRoom-v1", render_mode="rgb_array", max_episode_steps=None))


def two_room() -> gym.Env:
    return MegaWrapper(two_room_env(), (64, 64))


def two_room_observed() -> gym.Env:
    env = two_room_env()
    env.unwrapped.render_shape = (64, 64)
    return AddRenderObservation(env, render_only=True)


class AntEnv(gym.Env):
    """Gymnasium's ant, drawn off screen: what a real simulator with pixels costs."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, size: int = 224):
        import mujoco

        self.render_mode = "rgb_array"
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (29,), np.float64)
        self.action_space = gym.spaces.Box(-1, 1, (8,), np.float32)
        self._mujoco = mujoco
        assets = Path(gym.__file__).parent / "envs/mujoco/assets"
        self._model = mujoco.MjModel.from_xml_path(str(assets / "ant.xml"))
        self._data = mujoco.MjData(self._model)
        self._size = size
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._mujoco.mj_resetData(self._model, self._data)
        return self._observe(), {}

    def step(self, action):
        self._data.ctrl[:] = action
        self._mujoco.mj_step(self._model, self._data, nstep=5)
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        return np.concatenate([self._data.qpos, self._data.qvel])

    def render(self):
        if self._renderer is None:
            self._renderer = self._mujoco.Renderer(self._model, self._size, self._size)
        self._renderer.update_scene(self._data)
        return self._renderer.render()

    def close(self):
        if self._renderer is not None:
            self._renderer.close()


def ant(size: int = 224) -> gym.Env:
    return MegaWrapper(AntEnv(size), (size, size))


def ant_observed(size: int = 224) -> gym.Env:
    return AddRenderObservation(AntEnv(size), render_only=True)


def vector(kind: type, fns: list[Callable[[], gym.Env]], **kwargs: Any) -> Any:
    return kind(fns, autoreset_mode=AutoresetMode.DISABLED, **kwargs)


@contextmanager
def opened(make: Callable[[], Any]) -> Iterator[Callable[[float], float]]:
    """A function that steps for some seconds and returns env steps per second."""
    envs = make()
    envs.reset(seed=0)
    actions = envs.action_space.sample()
    envs.step(actions)

    def run(seconds: float) -> float:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(5):
                envs.step(actions)
            steps += 5
        return steps * envs.num_envs / (time.perf_counter() - start)

    try:
        yield run
    finally:
        envs.close()


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float, rounds: int) -> dict[str, Any]:
    """Median throughputs and the median ratio ours / theirs."""
    with opened(ours) as run_ours, opened(theirs) as run_theirs:
        pairs = [(run_ours(seconds), run_theirs(seconds)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "steps_per_s": [round(statistics.median(side)) for side in zip(*pairs, strict=True)],
    }


def overhead(seconds: float, rounds: int) -> dict[str, float]:
    """Microseconds per env step that pool and wrappers add to envs that cost nothing."""
    bare = IdleEnv(8, None)
    bare.reset(seed=0)
    action = np.zeros(2, np.float32)

    def step_bare() -> float:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(100):
                bare.step(action)
            steps += 100
        return (time.perf_counter() - start) / steps

    with opened(lambda: EnvPool([idle_without_pixels] * 8)) as run:
        added = [1 / run(seconds) - step_bare() for _ in range(rounds)]
    return {"microseconds": round(1e6 * statistics.median(added), 1)}


def benchmarks() -> dict[str, Callable[[float, int], dict[str, Any]]]:
    def pair(ours: Callable[[], Any], theirs: Callable[[], Any]) -> Callable[[float, int], dict[str, Any]]:
        return lambda seconds, rounds: compare(ours, theirs, seconds, rounds)

    process = functools.partial(ProcessPool, workers=2)
    asynchronous = functools.partial(vector, AsyncVectorEnv, shared_memory=True)
    synchronous = functools.partial(vector, SyncVectorEnv)
    return {
        "overhead without pixels": overhead,
        "two_room 64 px, 8 envs: EnvPool / SyncVectorEnv, same wrappers": pair(
            lambda: EnvPool([two_room] * 8), lambda: synchronous([two_room] * 8)
        ),
        "two_room 64 px, 8 envs: EnvPool / SyncVectorEnv, frames as observations only": pair(
            lambda: EnvPool([two_room] * 8), lambda: synchronous([two_room_observed] * 8)
        ),
        "idle 224 px, 8 envs: EnvPool / SyncVectorEnv, same wrappers": pair(
            lambda: EnvPool([idle] * 8), lambda: synchronous([idle] * 8)
        ),
        "idle 224 px, 8 envs: EnvPool / SyncVectorEnv, frames as observations only": pair(
            lambda: EnvPool([idle] * 8), lambda: synchronous([idle_observed] * 8)
        ),
        "idle 224 px, 8 envs: ProcessPool of 2 / AsyncVectorEnv, same wrappers": pair(
            lambda: process([idle] * 8), lambda: asynchronous([idle] * 8)
        ),
        "idle 224 px, 8 envs: ProcessPool of 2 / AsyncVectorEnv, frames as observations only": pair(
            lambda: process([idle] * 8), lambda: asynchronous([idle_observed] * 8)
        ),
        "idle 224 px, 2 envs: ProcessPool of 2 / AsyncVectorEnv, frames as observations only": pair(
            lambda: process([idle] * 2), lambda: asynchronous([idle_observed] * 2)
        ),
        "two_room 64 px, 8 envs: ProcessPool of 2 / EnvPool": pair(
            lambda: process([two_room] * 8), lambda: EnvPool([two_room] * 8)
        ),
        "mujoco 224 px, 4 envs: ProcessPool of 2 / EnvPool": pair(
            lambda: process([ant] * 4), lambda: EnvPool([ant] * 4)
        ),
        "mujoco 224 px, 4 envs: ProcessPool of 2 / AsyncVectorEnv, frames as observations only": pair(
            lambda: process([ant] * 4),
            # spawned, because its constructor draws in this process, and a forked GL context hangs
            lambda: asynchronous([ant_observed] * 4, context="spawn"),
        ),
        "idle 224 px: 64 envs / 2 envs, both in 2 workers": pair(
            lambda: process([idle] * 64), lambda: process([idle] * 2)
        ),
        "two_room 64 px: 64 envs / 2 envs, both in 2 workers": pair(
            lambda: process([two_room] * 64), lambda: process([two_room] * 2)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of names")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"cores": cpu_count()}
    for name, run in benchmarks().items():
        if any(part in name for part in arguments.only):
            results[name] = run(arguments.seconds, arguments.rounds)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    import stable_worldmodel.envs  # noqa: F401

    main()
