"""Speed of MuJoCo environments with pixels: ours against the naive way, within one run.

    python benchmarks/mujoco_envs.py [--seconds 2.0] [--rounds 3] [--only NAME ...]

The naive way draws with dm_control's own renderer at 224 x 224 pixels, as most wrappers do, shrinks with Pillow where
64 are wanted, and steps 8 envs one after the other. Ours is a World of 8 envs and a random policy. Every comparison
alternates its two sides and reports the median of the ratios of neighbouring rounds. Prints JSON, and each result to
stderr as soon as it is there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium as gym
import numpy as np

import stable_worldmodel as swm
from stable_worldmodel.envs.mujoco import backend
from stable_worldmodel.pool.process import cpu_count

NUM_ENVS = 8
EPISODE = 50  # steps of OGBench between resets, which are part of what is measured
OGBENCH = {"Cube": ("cube_env", "CubeEnv", "single"), "Scene": ("scene_env", "SceneEnv", "scene")}
DOMAINS = {"Reacher": ("reacher", "hard"), "Cheetah": ("cheetah", "run")}
Run = Callable[[float], float]  # seconds -> env steps per second


class Naive:
    """Envs of the suite, drawn large by dm_control, shrunk, one after the other; two suite steps per env step."""

    def __init__(self, name: str, size: int, drawn: int = 224):
        from dm_control import suite

        self._envs = [suite.load(*DOMAINS[name]) for _ in range(NUM_ENVS)]
        self._size, self._drawn = size, drawn
        self._rng = np.random.default_rng(0)
        for env in self._envs:
            env.reset()

    def step(self) -> None:
        from PIL import Image

        for env in self._envs:
            action = self._rng.uniform(-1, 1, env.action_spec().shape)
            env.step(action)
            env.step(action)
            frame = env.physics.render(self._drawn, self._drawn, camera_id=0)
            if self._size != self._drawn:
                np.asarray(Image.fromarray(frame).resize((self._size, self._size), Image.Resampling.BILINEAR))

    def close(self) -> None:
        for env in self._envs:
            env.physics.free()


class NaiveOGBench:
    """The package's own envs, which draw with mujoco's renderer, one after the other; reset every `EPISODE` steps."""

    def __init__(self, name: str, size: int, drawn: int = 224):
        module, cls, kind = OGBENCH[name]
        make = getattr(importlib.import_module(f"ogbench.manipspace.envs.{module}"), cls)
        self._envs = [make(kind, width=drawn, height=drawn, terminate_at_goal=False) for _ in range(NUM_ENVS)]
        self._size, self._drawn = size, drawn
        self._rng = np.random.default_rng(0)
        self._steps = 0
        for env in self._envs:
            env.reset()

    def step(self) -> None:
        from PIL import Image

        self._steps += 1
        for env in self._envs:
            if self._steps % EPISODE == 0:
                env.reset()
            env.step(self._rng.uniform(-1, 1, 5))
            frame = env.render(camera="front_pixels")
            if self._size != self._drawn:
                np.asarray(Image.fromarray(frame).resize((self._size, self._size), Image.Resampling.BILINEAR))

    def close(self) -> None:
        for env in self._envs:
            if env._renderer is not None:
                env._renderer.close()


class Ours:
    """A World with a random policy."""

    def __init__(self, name: str, size: int, quality: str = "matched", **kwargs: Any):
        if name in OGBENCH:
            kwargs["terminate_at_goal"] = False
        self._world = swm.World(
            f"swm/OGB{name}-v0" if name in OGBENCH else f"swm/{name}DMControl-v0",
            NUM_ENVS,
            (size, size),
            max_episode_steps=None,
            goal_conditioned=False,
            quality=quality,
            **kwargs,
        )
        self._world.set_policy(swm.policy.RandomPolicy(seed=0))
        self._world.reset(seed=0)
        self._steps = 0
        self._episode = EPISODE if name in OGBENCH else 400  # before the suite's limit

    def step(self) -> None:
        self._steps += 1
        if self._steps % self._episode == 0:
            self._world.reset()
        self._world.step()

    def close(self) -> None:
        self._world.close()


def throughput(side: Any, seconds: float) -> float:
    """Env steps per second."""
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        side.step()
        steps += 1
    return steps * NUM_ENVS / (time.perf_counter() - start)


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float, rounds: int) -> dict[str, Any]:
    """Median throughputs and the median ratio ours / theirs."""
    sides = ours(), theirs()
    try:
        for side in sides:
            side.step()
            side.step()
        pairs = [tuple(throughput(side, seconds) for side in sides) for _ in range(rounds)]
    finally:
        for side in sides:
            side.close()
    ratios = sorted(one / other for one, other in pairs)
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "steps_per_s": [round(statistics.median(side)) for side in zip(*pairs, strict=True)],
    }


def resets(name: str, options: dict[str, Any], count: int = 50) -> dict[str, float]:
    """Milliseconds of a reset, and of processor time, which other processes disturb less."""
    id = f"swm/OGB{name}-v0" if name in OGBENCH else f"swm/{name}DMControl-v0"
    env = gym.make(id, disable_env_checker=True).unwrapped
    env.reset(seed=0, options=options)
    times, processor = [], []
    for seed in range(count):
        start, start_processor = time.perf_counter(), time.process_time()
        env.reset(seed=seed, options=options)
        processor.append(1e3 * (time.process_time() - start_processor))
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": round(statistics.median(times), 2),
        "least_ms": round(min(times), 2),
        "processor_median_ms": round(statistics.median(processor), 2),
    }


def without_pixels(name: str, rounds: int, steps: int = 40) -> dict[str, Any]:
    """Processor milliseconds of a step of ours and of the package's env, and of MuJoCo's part of it alone.

    The least of twenty times as many short rounds, which other processes disturb less.
    """
    import mujoco

    module, cls, kind = OGBENCH[name]
    ours = gym.make(f"swm/OGB{name}-v0", disable_env_checker=True, terminate_at_goal=False).unwrapped
    theirs = getattr(importlib.import_module(f"ogbench.manipspace.envs.{module}"), cls)(kind, terminate_at_goal=False)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 5))
    theirs.reset()
    ours.reset(seed=0)
    controls = [ours.step(action)[4]["control"] for action in actions]
    model, bare = ours.model, mujoco.MjData(ours.model)

    def hold(control: np.ndarray) -> None:
        bare.ctrl[:] = control
        mujoco.mj_step(model, bare, ours._n_steps)

    times: dict[str, list[float]] = {"ours": [], "package": [], "mj_step": []}
    for _ in range(20 * rounds):
        info = ours.reset(seed=0)[1]
        bare.qpos[:], bare.qvel[:] = info["qpos"], info["qvel"]
        for side, step, inputs in (
            ("ours", ours.step, actions),
            ("package", theirs.step, actions),
            ("mj_step", hold, controls),
        ):
            start = time.process_time()
            for each in inputs:
                step(each)
            times[side].append(1e3 * (time.process_time() - start) / steps)
    least = {side: min(values) for side, values in times.items()}
    ratios = {f"{side} / mj_step": round(least[side] / least["mj_step"], 2) for side in ("ours", "package")}
    return {f"{side}_ms": round(value, 3) for side, value in least.items()} | ratios


def benchmarks() -> dict[str, Callable[[float, int], dict[str, Any]]]:
    def pair(ours: Callable[[], Any], theirs: Callable[[], Any]) -> Callable[[float, int], dict[str, Any]]:
        return lambda seconds, rounds: compare(ours, theirs, seconds, rounds)

    workers = {"backend": "process", "workers": 2}
    table: dict[str, Callable[[float, int], dict[str, Any]]] = {}
    for name in (*DOMAINS, *OGBENCH):
        for size in (64, 224):
            where = f"{name} {size} px"
            naive = lambda name=name, size=size: (NaiveOGBench if name in OGBENCH else Naive)(name, size)  # noqa: E731
            for label, quality, backend_ in (
                ("matched, 2 workers", "matched", workers),
                ("matched, in process", "matched", {"backend": "sync"}),
                ("fast, 2 workers", "fast", workers),
                ("full, 2 workers", "full", workers),
                ("full, in process", "full", {"backend": "sync"}),
            ):
                table[f"{where}: {label} / naive"] = pair(
                    lambda name=name, size=size, quality=quality, kwargs=backend_: Ours(name, size, quality, **kwargs),
                    naive,
                )
    for id in sorted(world for world in swm.envs.WORLDS if "DMControl" in world):
        name = id.removeprefix("swm/").removesuffix("DMControl-v0")
        for label, options in (("default", {}), ("everything varied", {"variation": ["all"]})):
            table[f"{name} reset, {label}"] = lambda _, __, name=name, options=options: resets(name, options)
    looks = ["cube.color", "agent.color", "floor.color", "camera.angle_delta", "light.intensity"]
    for name in OGBENCH:
        table[f"{name} step without pixels"] = lambda _, rounds, name=name: without_pixels(name, rounds)
        for label, options in (
            ("default", {}),
            ("other looks", {"variation": looks}),
            ("everything", {"variation": ["all"]}),
        ):
            table[f"{name} reset, {label}"] = lambda _, __, name=name, options=options: resets(name, options)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of names")
    arguments = parser.parse_args()
    found = backend()
    results: dict[str, Any] = {"cores": cpu_count(), "gl": f"{found.name}, {found.renderer}"}
    for name, run in benchmarks().items():
        if any(part in name for part in arguments.only):
            results[name] = run(arguments.seconds, arguments.rounds)
            print(name, results[name], file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
