"""Which library draws: one PushT frame with each, its time and its error.

    OMP_NUM_THREADS=1 python benchmarks/drawing.py [--rounds 60]

Prints a Markdown table. Every library draws the same polygons and discs, anti-aliased if it can, on a copy of a picture
of what stands still, and gives back a new uint8 array (H, W, 3). The reference is a picture averaged down from point
samples. Libraries that are not installed are named and left out: opencv-python-headless, pygame-ce, cairocffi,
skia-python, blend2d-py. None of them but pygame-ce is a dependency of this package.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stable_worldmodel.envs.pusht.drawing import OUTLINE, RIM, SHIFT, WALLS, Look, Painter
from stable_worldmodel.envs.pusht.physics import SIZE, WALL_COLOR
from stable_worldmodel.envs.pusht.shapes import SHAPES, Figure

SIDES = (64, 224)
SCALE = 30.0
OUTER, INNER, AGENT, AGENT_CORE = (119, 136, 153), (143, 163, 184), (65, 105, 225), (78, 126, 255)
GOAL, GOAL_POSE = (144, 238, 144), (256.0, 256.0, math.pi / 4)
RADIUS = 15.0

Pose = tuple[float, float, float]
Scene = tuple[tuple[float, float], Pose]
Draw = Callable[[Any, Any], np.ndarray]


def grown_boxes(grow: float) -> np.ndarray:
    return np.array(SHAPES["T"].boxes) * SCALE + [-grow, grow, -grow, grow]


@functools.cache
def box_sides(grow: float) -> list[list[float]]:
    return grown_boxes(grow).tolist()


def polygons(pose: Pose, scale: float, inset: float = 0.0) -> Iterator[tuple[list[tuple[float, float]], Any]]:
    """Corners in px of the picture, and colours, in the order of drawing; `inset` px smaller all round."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    x, y = pose[0] + SHIFT, pose[1] + SHIFT
    layers = [box_sides(side * OUTLINE - inset / scale) for side in (1, -1)]
    for outer, inner in zip(*layers, strict=True):
        for (x0, x1, y0, y1), color in ((outer, OUTER), (inner, INNER)):
            corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
            yield [((x + cos * u - sin * v) * scale, (y + sin * u + cos * v) * scale) for u, v in corners], color


def discs(agent: Any, scale: float) -> Iterator[tuple[float, float, float, Any]]:
    for radius, color in ((RADIUS, AGENT), (RADIUS - RIM, AGENT_CORE)):
        yield (agent[0] + SHIFT) * scale, (agent[1] + SHIFT) * scale, radius * scale, color


def reference(scene: Scene | None, side: int) -> np.ndarray:
    """The frame averaged down from about 2000 x 2000 point samples; without a scene, what stands still."""
    times = 2048 // side
    x, y = np.meshgrid(*[(np.arange(side * times) + 0.5) * SIZE / (side * times)] * 2)
    picture = np.full((*x.shape, 3), 255, np.float32)

    def paint_boxes(pose: Pose, grow: float, color: Any, boxes: np.ndarray) -> None:
        dx, dy, cos, sin = x - pose[0] - SHIFT, y - pose[1] - SHIFT, math.cos(pose[2]), math.sin(pose[2])
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        for x0, x1, y0, y1 in np.add(boxes, [-grow, grow, -grow, grow]):
            picture[(u > x0) & (u < x1) & (v > y0) & (v < y1)] = color

    boxes = grown_boxes(0.0)
    paint_boxes(GOAL_POSE, 0.0, GOAL, boxes)
    if scene is not None:
        agent, pose = scene
        for box in boxes:
            paint_boxes(pose, OUTLINE, OUTER, box[None])
            paint_boxes(pose, -OUTLINE, INNER, box[None])
        distance = np.hypot(x - agent[0] - SHIFT, y - agent[1] - SHIFT)
        picture[distance < RADIUS], picture[distance < RADIUS - RIM] = AGENT, AGENT_CORE
    (low, near), (far, high) = WALLS
    inside = (x > low) & (x < high) & (y > low) & (y < high)
    picture[inside & ((x < near) | (x > far) | (y < near) | (y > far))] = WALL_COLOR
    return picture.reshape(side, times, side, times, 3).mean(axis=(1, 3))


# ---------------------------------------------------------------------- candidates
def own(backdrop: np.ndarray) -> Draw:
    look = Look((255, 255, 255), AGENT, OUTER, GOAL, GOAL_POSE)
    return Painter(Figure("o", RADIUS / 0.375), 0.0, Figure("T", SCALE), look, backdrop.shape[:2]).frame  # type: ignore


def opencv(backdrop: np.ndarray) -> Draw:
    import cv2

    cv2.setNumThreads(1)
    scale, parts = len(backdrop) / SIZE, 16
    inset = 0.65  # px by which its anti-aliased shapes are too large

    def fixed(value: float) -> int:
        return round((value - 0.5) * parts)

    def draw(agent: Any, pose: Any) -> np.ndarray:
        picture = backdrop.copy()
        for points, color in polygons(pose, scale, inset):
            cv2.fillConvexPoly(picture, np.array([[fixed(x), fixed(y)] for x, y in points]), color, cv2.LINE_AA, 4)
        for x, y, radius, color in discs(agent, scale):
            cv2.circle(picture, (fixed(x), fixed(y)), round((radius - inset) * parts), color, -1, cv2.LINE_AA, 4)
        return picture

    return draw


def pygame_ce(backdrop: np.ndarray) -> Draw:
    import pygame
    import pygame.gfxdraw as gfx

    side = len(backdrop)
    scale, base = side / SIZE, pygame.image.frombuffer(backdrop.tobytes(), (side, side), "RGB")

    def draw(agent: Any, pose: Any) -> np.ndarray:
        surface = base.copy()
        for points, color in polygons(pose, scale):
            whole = [(round(x - 0.5), round(y - 0.5)) for x, y in points]
            gfx.aapolygon(surface, whole, color)
            gfx.filled_polygon(surface, whole, color)
        for x, y, radius, color in discs(agent, scale):
            disc = round(x - 0.5), round(y - 0.5), round(radius)
            gfx.aacircle(surface, *disc, color)
            gfx.filled_circle(surface, *disc, color)
        return np.frombuffer(surface.get_buffer().raw, np.uint8).reshape(side, -1)[:, : 3 * side].reshape(side, side, 3)

    return draw


def cairo(backdrop: np.ndarray) -> Draw:
    import cairocffi

    side = len(backdrop)
    base = np.dstack([backdrop[..., ::-1], np.full((side, side), 255, np.uint8)])  # BGRX
    memory = bytearray(base.tobytes())
    canvas = np.frombuffer(memory, np.uint8).reshape(base.shape)
    surface = cairocffi.ImageSurface.create_for_data(memory, cairocffi.FORMAT_RGB24, side, side, 4 * side)
    context, scale = cairocffi.Context(surface), side / SIZE

    def draw(agent: Any, pose: Any) -> np.ndarray:
        canvas[...] = base
        surface.mark_dirty()
        for points, color in polygons(pose, scale):
            context.set_source_rgb(*(value / 255 for value in color))
            context.move_to(*points[0])
            for point in points[1:]:
                context.line_to(*point)
            context.fill()
        for x, y, radius, color in discs(agent, scale):
            context.set_source_rgb(*(value / 255 for value in color))
            context.arc(x, y, radius, 0, 2 * math.pi)
            context.fill()
        surface.flush()
        return np.ascontiguousarray(canvas[..., 2::-1])

    return draw


def skia(backdrop: np.ndarray) -> Draw:
    import skia as library

    side = len(backdrop)
    base = np.dstack([backdrop, np.full((side, side), 255, np.uint8)])
    memory, scale = base.copy(), side / SIZE
    surface = library.Surface(memory, colorType=library.kRGBA_8888_ColorType)
    canvas = surface.getCanvas()
    colors = (OUTER, INNER, AGENT, AGENT_CORE)
    paints = {color: library.Paint(AntiAlias=True, Color=library.Color(*color)) for color in colors}

    def draw(agent: Any, pose: Any) -> np.ndarray:
        memory[...] = base
        for points, color in polygons(pose, scale):
            path = library.Path.Polygon([library.Point(*point) for point in points], True)
            canvas.drawPath(path, paints[color])
        for x, y, radius, color in discs(agent, scale):
            canvas.drawCircle(x, y, radius, paints[color])
        return np.ascontiguousarray(memory[..., :3])

    return draw


def blend2d(backdrop: np.ndarray) -> Draw:
    import blend2d as library

    side = len(backdrop)
    base = np.dstack([backdrop[..., ::-1], np.full((side, side), 255, np.uint8)])
    image, scale = library.Image(side, side), side / SIZE
    memory = image.asarray()

    def draw(agent: Any, pose: Any) -> np.ndarray:
        memory[...] = base
        context = library.Context(image)
        for points, color in polygons(pose, scale):
            context.set_fill_style_rgba(*color, 255)
            path = library.Path()
            path.move_to(*points[0])
            for point in points[1:]:
                path.line_to(*point)
            path.close()
            context.fill_path(path)
        for x, y, radius, color in discs(agent, scale):
            context.set_fill_style_rgba(*color, 255)
            context.fill_circle(x, y, radius)
        context.end()
        return np.ascontiguousarray(np.asarray(memory)[..., 2::-1])

    return draw


CANDIDATES: dict[str, Callable[[np.ndarray], Draw]] = {
    "own, NumPy": own,
    "OpenCV": opencv,
    "pygame-ce, gfxdraw": pygame_ce,
    "cairo, cairocffi": cairo,
    "skia-python": skia,
    "blend2d-py": blend2d,
}


def measure(side: int, scenes: list[Scene], rounds: int) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Candidate -> (us per frame, mean absolute error), and those that are not installed."""
    backdrop = np.rint(reference(None, side)).astype(np.uint8)
    references = [reference(scene, side) for scene in scenes]
    draws, missing = {}, []
    for name, make in CANDIDATES.items():
        try:
            draws[name] = make(backdrop)
        except ImportError:
            missing.append(name)
    errors = {
        name: float(
            np.mean([np.abs(draw(*scene) - exact).mean() for scene, exact in zip(scenes, references, strict=True)])
        )
        for name, draw in draws.items()
    }
    fastest = dict.fromkeys(draws, math.inf)
    for _ in range(rounds):
        for name, draw in draws.items():
            start = time.process_time()
            for _ in range(5):
                for scene in scenes:
                    draw(*scene)
            fastest[name] = min(fastest[name], (time.process_time() - start) / (5 * len(scenes)))
    return {name: (1e6 * fastest[name], errors[name]) for name in draws}, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(1)
    low, high = [50, 50, 120, 120, 0], [460, 460, 390, 390, 6]
    scenes: list[Scene] = [((x, y), tuple(pose)) for x, y, *pose in rng.uniform(low, high, (8, 5)).tolist()]
    results = [measure(side, scenes, rounds) for side in SIDES]
    print("| library | us, 64 px | error, 64 px | us, 224 px | error, 224 px |")
    print("|---|---|---|---|---|")
    for name in results[0][0]:
        cells = [f"{time_us:.0f} | {error:.2f}" for time_us, error in (found[name] for found, _ in results)]
        print(f"| {name} | {' | '.join(cells)} |")
    for name in results[0][1]:
        print(f"| {name} | not installed | | | |")


if __name__ == "__main__":
    main()
