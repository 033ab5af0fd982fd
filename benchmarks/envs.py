"""Speed of the 2-D environments: drawing, stepping, and a World of them against one that draws large and shrinks.

    OMP_NUM_THREADS=1 python benchmarks/envs.py [--seconds 1.0] [--rounds 7] [--only NAME ...]

Prints JSON. Everything runs in one thread and is measured in CPU time, so that other programs on the machine disturb
it little. Ratios alternate their two sides within one run and are the median over the rounds; times are those of the
fastest round.

The other side of the World comparison, `naive_*` below, is written the way such environments usually are: the picture
is drawn by pygame on a new canvas of 512x512 px and shrunk to 224x224 (by OpenCV if it is there, else by Pillow), and
the World shrinks that to what was asked for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gymnasium as gym
import numpy as np
import pygame
import pymunk
import pymunk.pygame_util
from PIL import Image

import stable_worldmodel as swm
from stable_worldmodel.envs.pusht import PushT
from stable_worldmodel.envs.pusht.drawing import Painter
from stable_worldmodel.envs.pusht.physics import DT, SUBSTEPS, WALLS, Simulation
from stable_worldmodel.envs.pusht.shapes import SHAPES

try:
    import cv2
except ImportError:
    cv2 = None
else:
    cv2.setNumThreads(1)

Run = Callable[[float], float]  # seconds to run -> seconds per unit of work


# ---------------------------------------------------------------------- the other side
def shrunk(surface: pygame.Surface, size: int) -> np.ndarray:
    """What is on a surface as a picture (size, size, 3)."""
    picture = np.transpose(np.array(pygame.surfarray.pixels3d(surface)), (1, 0, 2))
    if cv2 is not None:
        return cv2.resize(picture, (size, size))
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))


class NaivePushT(gym.Env):
    """The dynamics of PushT in pymunk's own types, drawn by pymunk's debug drawing."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = "rgb_array", size: int = 224):
        self.render_mode, self._size = render_mode, size
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (7,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._contacts = 0
        self._space = pymunk.Space()
        self._space.damping = 0
        static = self._space.static_body
        walls = [pymunk.Segment(static, start, end, 2) for start, end in WALLS]
        for wall in walls:
            wall.color = (211, 211, 211, 255)
        self._space.add(*walls)
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        circle = pymunk.Circle(self._agent, 15)
        circle.color = (65, 105, 225, 255)
        self._space.add(self._agent, circle)
        polygons = SHAPES["T"].polygons(30)
        self._block = pymunk.Body(1, sum(pymunk.moment_for_poly(1, polygon) for polygon in polygons))
        self._block.center_of_gravity = SHAPES["T"].center_of_mass(30)
        shapes = [pymunk.Poly(self._block, polygon) for polygon in polygons]
        for shape in shapes:
            shape.color = (119, 136, 153, 255)
        self._space.add(self._block, *shapes)
        self._space.on_collision(0, 0, post_solve=self._count)
        goal = [*self.np_random.uniform(50, 450, 2), *self.np_random.uniform(100, 400, 2), 0.5, 0.0, 0.0]
        self._goal_state = np.array(goal)
        self._place(self._goal_state)
        self._goal = self.render()
        self._place(self.np_random.uniform([50, 50, 100, 100, -6, 0, 0], [450, 450, 400, 400, 6, 0, 0]))
        return self._observation(), self._info()

    def _place(self, state: np.ndarray) -> None:
        self._agent.position = list(state[:2])
        self._block.angle = state[4]
        self._block.position = list(state[2:4])
        self._space.step(DT)

    def _count(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: Any) -> None:
        self._contacts += len(arbiter.contact_point_set.points)

    def step(self, action):
        self._contacts = 0
        target = self._agent.position + np.array(action) * 100
        for _ in range(SUBSTEPS):
            pull = 100 * (target - self._agent.position) + 20 * (pymunk.Vec2d.zero() - self._agent.velocity)
            self._agent.velocity += pull * DT
            self._space.step(DT)
        observation = self._observation()
        reward = -np.linalg.norm(self._goal_state - observation)
        return observation, reward, False, False, self._info()

    def _observation(self) -> np.ndarray:
        angle = self._block.angle % (2 * np.pi)
        return np.array(
            tuple(self._agent.position) + tuple(self._block.position) + (angle,) + tuple(self._agent.velocity)
        )

    def _info(self) -> dict[str, Any]:
        return {
            "pos_agent": np.array(self._agent.position),
            "vel_agent": np.array(self._agent.velocity),
            "block_pose": np.array([*self._block.position, self._block.angle]),
            "goal_state": self._goal_state,
            "n_contacts": int(np.ceil(self._contacts / SUBSTEPS)),
            "goal": self._goal,
        }

    def render(self):
        canvas = pygame.Surface((512, 512))
        canvas.fill((255, 255, 255))
        goal = pymunk.Body(1, 1)
        goal.position, goal.angle = (256, 256), math.pi / 4
        for shape in self._block.shapes:
            points = [goal.local_to_world(vertex) for vertex in shape.get_vertices()]
            pygame.draw.polygon(canvas, (144, 238, 144), [*points, points[0]])
        self._space.debug_draw(pymunk.pygame_util.DrawOptions(canvas))
        return shrunk(canvas, self._size)


class NaiveTwoRoom(gym.Env):
    """Two rooms and a disc, without the soft edge of the disc, which would cost more. It gives no goal picture."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = "rgb_array", size: int = 224):
        self.render_mode, self._size = render_mode, size
        self.observation_space = gym.spaces.Box(0.0, 224.0, (4,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self._agent, self._target = self.np_random.uniform([21, 21], [90, 200], (2, 2)).astype(np.float32)
        return self._observation(), self._info()

    def step(self, action):
        position = np.clip(self._agent + np.clip(action, -1, 1) * 5.0, 21, 203).astype(np.float32)
        if abs(position[1] - 49) > 15.75:
            position[0] = min(position[0], 100.0)
        self._agent = position
        distance = np.linalg.norm(self._agent - self._target)
        return self._observation(), 0.0, bool(distance < 16), False, self._info()

    def _observation(self) -> np.ndarray:
        return np.concatenate([self._agent, self._target])

    def _info(self) -> dict[str, Any]:
        return {"state": self._agent, "goal_state": self._target, "proprio": self._agent}

    def render(self):
        scale = 512 / 224
        canvas = pygame.Surface((512, 512))
        canvas.fill((255, 255, 255))
        for x, y, width, height in (
            *((107, 0, 11, 35), (107, 64, 11, 160)),
            *((10, 10, 4, 204), (210, 10, 4, 204), (10, 10, 204, 4), (10, 210, 204, 4)),
        ):
            pygame.draw.rect(canvas, (0, 0, 0), [round(side * scale) for side in (x, y, width, height)])
        pygame.draw.circle(canvas, (255, 0, 0), [float(side) * scale for side in self._agent], 7 * scale)
        return shrunk(canvas, self._size)


gym.register("naive/PushT-v0", NaivePushT)
gym.register("naive/TwoRoom-v0", NaiveTwoRoom)


# ---------------------------------------------------------------------- measurements
def timed(work: Callable[[], Any], units: int = 1) -> Run:
    """Repeats `work`, which does `units` units of work."""

    def run(seconds: float) -> float:
        count, start = 0, time.process_time()
        while (elapsed := time.process_time() - start) < seconds or not count:
            work()
            count += units
        return elapsed / count

    return run


def compare(ours: Run, other: Run, seconds: float, rounds: int, unit: str) -> dict[str, Any]:
    """Time per unit of both, and how many times longer the other takes."""
    for run in (ours, other):
        run(0.0)
    pairs = [(ours(seconds), other(seconds)) for _ in range(rounds)]
    fastest = [round(1e6 * min(times), 1) for times in zip(*pairs, strict=True)]
    return {
        f"ours, us per {unit}": fastest[0],
        f"other, us per {unit}": fastest[1],
        "ratio": round(statistics.median(theirs / mine for mine, theirs in pairs), 2),
    }


def world(env: str, size: int | None, num_envs: int = 8, **kwargs: Any) -> Run:
    """Steps of a World in this process, resets included."""
    made = swm.World(
        env,
        num_envs,
        image_shape=None if size is None else (size, size),
        add_pixels=size is not None,
        goal_conditioned=False,
        backend="sync",
        verbose=0,
        **kwargs,
    )
    made.set_policy(swm.policy.RandomPolicy(seed=0))
    seeds = itertools.count(0, num_envs)

    def run(seconds: float) -> float:
        steps, start = 0, time.process_time()
        while (elapsed := time.process_time() - start) < seconds or not steps:
            made.reset(seed=next(seeds))
            for _ in range(100):
                steps += num_envs - int((made.terminateds | made.truncateds).sum())
                made.step()
        return elapsed / steps

    return run


def worlds(ours: str, other: str, size: int) -> Callable[[float, int], dict[str, Any]]:
    def measure(seconds: float, rounds: int) -> dict[str, Any]:
        result = compare(world(ours, size), world(other, size), seconds, rounds, "env step")
        return result | {"ours, env steps per s": round(1e6 / result["ours, us per env step"])}

    return measure


def picture(size: int) -> Callable[[float, int], dict[str, Any]]:
    """One frame of PushT, of a block that moves and of one that stands still."""

    def measure(seconds: float, rounds: int) -> dict[str, Any]:
        env = PushT(resolution=size)
        env.reset(seed=0)
        setup = env.setup()
        painter = Painter(setup.agent, 0.0, setup.block, env.variation_space.look(True), (size, size))
        rng = np.random.default_rng(0)
        low, high = [50, 50, 120, 120, 0], [460, 460, 390, 390, 6]
        poses = itertools.cycle([((x, y), tuple(pose)) for x, y, *pose in rng.uniform(low, high, (50, 5)).tolist()])
        still = (256.0, 200.0, 1.0)
        runs = {
            "block moves": timed(lambda: [painter.frame(*next(poses)) for _ in range(50)], 50),
            "block stands": timed(lambda: [painter.frame(next(poses)[0], still) for _ in range(50)], 50),
        }
        return {
            f"us, {name}": round(1e6 * min(run(seconds / 4) for _ in range(4 * rounds)), 1)
            for name, run in runs.items()
        }

    return measure


def pusht_step(start: tuple[float, ...]) -> Callable[[float, int], dict[str, Any]]:
    """A step without pixels against ten bare `Space.step` of a space in which the same happens."""

    def measure(seconds: float, rounds: int) -> dict[str, Any]:
        env = PushT(render_mode=None, resolution=64)
        env.reset(seed=0, options={"state": start, "goal_state": (60, 60, 400, 100, 0)})
        action = np.array([0.3, 0.0], np.float32)
        path = [env.simulation().agent_position]
        for _ in range(12):
            env.step(action)
            path.append(env.simulation().agent_position)
        speeds = [(after[0] - before[0]) / (SUBSTEPS * DT) for before, after in itertools.pairwise(path)]

        def ours() -> float:
            env._set_state(start)
            begin = time.process_time()
            for _ in speeds:
                env.step(action)
            return time.process_time() - begin

        def bare(counts: bool) -> float:
            simulation = Simulation(env.setup(), count_contacts=counts)
            simulation.place(start[:2], (0.0, 0.0), start[2:5])
            space, agent = simulation.space, simulation.agent
            begin = time.process_time()
            for speed in speeds:
                agent.velocity = (speed, 0.0)
                for _ in range(SUBSTEPS):
                    space.step(DT)
            return time.process_time() - begin

        samples = [(ours(), bare(True), bare(False)) for _ in range(max(1, int(300 * seconds)) * rounds)]
        mine, counting, silent = (min(times) / len(speeds) for times in zip(*samples, strict=True))
        return {
            "us per step": round(1e6 * mine, 1),
            "us, ten Space.step, contacts counted": round(1e6 * counting, 1),
            "us, ten Space.step, contacts not counted": round(1e6 * silent, 1),
            "ratio, contacts counted": round(mine / counting, 2),
            "ratio, contacts not counted": round(mine / silent, 2),
        }

    return measure


def vector(id: str, num_envs: int = 64) -> Callable[[float, int], dict[str, Any]]:
    """The vector entry point against its envs one by one, without pictures; steps that reset an env are left out."""

    def run(mode: str) -> Run:
        envs = gym.make_vec(id, num_envs, vectorization_mode=mode, render_mode=None)
        for env in envs.unwrapped.envs:
            env.unwrapped.render_shape = (8, 8)
        envs.action_space.seed(0)
        actions = itertools.cycle([envs.action_space.sample() for _ in range(32)])

        envs.reset(seed=0)

        def run_some(seconds: float) -> float:
            steps, spent, ended = 0, 0.0, True
            while spent < seconds or not steps:
                begin = time.process_time()
                _, _, terminated, truncated, _ = envs.step(next(actions))
                if not ended:
                    spent += time.process_time() - begin
                    steps += num_envs
                ended = bool((terminated | truncated).any())
            return spent / steps

        return run_some

    return lambda seconds, rounds: compare(run("vector_entry_point"), run("sync"), seconds, rounds, "env step")


BENCHMARKS: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "pusht frame, 64 px": picture(64),
    "pusht frame, 224 px": picture(224),
    "pusht step without pixels, nothing touches": pusht_step((100.0, 100.0, 350.0, 350.0, 0.0, 0.0, 0.0)),
    "pusht step without pixels, pushing": pusht_step((273.0, 300.0, 350.0, 280.0, 0.0, 0.0, 0.0)),
    **{f"vector entry point, 64 envs, {id}": vector(id) for id in (
        "swm/TwoRoom-v1", "swm/Piecewise-v0", "swm/SimplePointMaze-v0", "swm/SimpleNavigation-v0",
    )},
    **{
        f"World of 8, {name}, {size} px": worlds(f"swm/{name}-v1", f"naive/{name}-v0", size)
        for name in ("PushT", "TwoRoom")
        for size in (64, 224)
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of names")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    results: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "shrinks": "cv2" if cv2 else "PIL"}
    for name, measure in BENCHMARKS.items():
        if any(part in name for part in arguments.only):
            results[name] = measure(arguments.seconds, arguments.rounds)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
