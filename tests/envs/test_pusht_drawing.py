"""PushT's pictures, compared with much larger ones averaged down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from stable_worldmodel.envs.pusht import PushT
from stable_worldmodel.envs.pusht.drawing import OUTLINE, RIM, SHIFT, light
from stable_worldmodel.envs.pusht.shapes import DISC_RADIUS, SHAPES

GOAL = [60, 60, 400, 200, 0, 0, 0]
FACTOR = 4  # samples of the reference per px and axis


def drawn(size: tuple[int, int], seed: int, state: Any = None, **kwargs: Any) -> PushT:
    env = PushT(**kwargs)
    env.render_shape = size
    env.reset(seed=seed, options={"variation": ["all"], "state": state, "goal_state": GOAL})
    return env


def reference(env: PushT) -> np.ndarray:
    """The same picture, 512x512, from point samples of the shapes' definitions."""
    factors, state = env.variation_space, env._row[:7]
    x, y = np.meshgrid(*[(np.arange(512 * FACTOR) + 0.5) / FACTOR - SHIFT] * 2)
    picture = np.empty((*x.shape, 3))
    picture[:] = factors.value_of("background.color")

    def paint(mask: np.ndarray, color: Any) -> None:
        picture[mask] = color

    def body(figure: Any, pose: Any, rim: Any, core: Any, outline: float) -> None:
        dx, dy, cos, sin = x - pose[0], y - pose[1], math.cos(pose[2]), math.sin(pose[2])
        if figure.is_disc:
            distance = np.hypot(dx, dy)
            paint(distance < DISC_RADIUS * figure.scale, rim)
            paint(distance < DISC_RADIUS * figure.scale - RIM, core)
            return
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        for x0, x1, y0, y1 in np.array(SHAPES[figure.name].boxes) * figure.scale:
            for color, grow in ((rim, outline), (core, -outline)):
                paint((x0 - grow < u) & (u < x1 + grow) & (y0 - grow < v) & (v < y1 + grow), color)

    if factors.value_of("rendering.render_goal"):
        color = factors.value_of("goal.color")
        body(factors.block(), factors.goal_pose(), color, color, 0.0)
    color = factors.value_of("block.color").tolist()
    body(factors.block(), state[2:5], color, light(color), OUTLINE)
    color = factors.value_of("agent.color").tolist()
    body(factors.agent(), (*state[:2], factors.agent_angle()), color, light(color), OUTLINE)
    px, py = x + SHIFT, y + SHIFT
    inside = (px >= 3) & (px < 509) & (py >= 3) & (py < 509)
    paint(inside & ((px < 8) | (px >= 504) | (py < 8) | (py >= 504)), (211, 211, 211))
    return picture


def averaged(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (overlap(small, large) for small, large in zip(size, picture.shape, strict=False))
    return np.moveaxis(rows @ np.moveaxis(picture, 2, 0) @ columns.T, 0, 2)


def overlap(small: int, large: int) -> np.ndarray:
    """(small, large): the share that each of `large` pixels has in each of `small` ones."""
    edges, pixels = np.arange(small + 1) * large / small, np.arange(large)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, 1) * small / large


@pytest.mark.parametrize("seed", range(6))
def test_pictures_of_every_size_are_a_large_one_averaged(seed: int) -> None:
    large = reference(drawn((8, 8), seed))
    for size, tolerance in (((32, 32), 2), ((64, 64), 1), ((96, 96), 1), ((224, 224), 0.5), ((64, 160), 1)):
        error = np.abs(drawn(size, seed).render() - averaged(large, size))
        assert error.mean() < tolerance, size


def test_a_body_over_a_wall_is_covered_by_it() -> None:
    state = (500, 256, 256, 20, 0.4, 0, 0)
    env = drawn((512, 512), 3, state=state, contact_marks=False)
    error = np.abs(env.render() - averaged(reference(env), (512, 512)))
    assert error.mean() < 0.5
    assert (env.render()[5, 100:400] == 211).all()


def plain(**kwargs: Any) -> PushT:
    env = PushT(resolution=512, **kwargs)
    env.reset(seed=0, options={"variation": [], "state": (150, 300, 300, 300, 0, 0, 0), "goal_state": GOAL})
    return env


def test_published_colors() -> None:
    picture = plain().render()
    assert picture[256, 20].tolist() == [255, 255, 255]
    assert picture[256, 5].tolist() == [211, 211, 211]
    assert picture[300, 150].tolist() == [78, 126, 255]
    assert picture[300, 150 + 13].tolist() == [65, 105, 225]
    assert picture[315, 300].tolist() == [143, 163, 184]
    assert picture[300, 300].tolist() == [119, 136, 153]
    assert picture[267, 245].tolist() == [144, 238, 144]


@pytest.mark.parametrize(("kwargs", "values"), [({"with_target": False}, {}), ({}, {"rendering.render_goal": 0})])
def test_overlay_can_be_switched_off(kwargs, values) -> None:
    env = PushT(**kwargs)
    env.reset(seed=0, options={"variation": [], "variation_values": values, "goal_state": GOAL})
    assert env.render()[112, 112].tolist() == [255, 255, 255]


def test_contact_marks_are_drawn_where_bodies_touch() -> None:
    touching = (225.5, 315, 300, 300, 0, 0, 0)  # the left end of the bar is at 240
    pictures = []
    for marks in (True, False):
        env = PushT(resolution=512, contact_marks=marks)
        env.reset(seed=0, options={"variation": [], "state": touching, "goal_state": GOAL})
        pictures.append(env.render().astype(int))
    different = np.argwhere(np.abs(pictures[0] - pictures[1]).sum(axis=2) > 30)
    assert len(different)
    assert (np.abs(different.mean(axis=0) - (315, 240)) < 3).all()
    red = pictures[0][tuple(different.mean(axis=0).round().astype(int))]
    assert red[0] > red[1] + 50


def test_the_last_target_can_be_marked() -> None:
    env = plain(render_action=True, relative=False)
    before = env.render()
    env.step(np.array([400.0, 100.0]))
    assert not (before == [255, 0, 0]).all(axis=2).any()
    rows, columns = np.nonzero((env.render() == [255, 0, 0]).all(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((100, 400), abs=1)
    assert np.ptp(rows) == pytest.approx(512 * 8 / 96, abs=3)


def test_published_mark_is_where_small_pictures_need_it() -> None:
    env = PushT(resolution=96, render_action=True, relative=False, compat="public")
    env.reset(seed=0, options={"variation": [], "state": (150, 300, 300, 300, 0, 0, 0), "goal_state": GOAL})
    env.step(np.array([400.0, 100.0]))
    red = env.render().astype(int)
    rows, columns = np.nonzero(red[..., 0] - red[..., 1] > 200)
    assert (rows.mean(), columns.mean()) == pytest.approx((100 / 512 * 96, 400 / 512 * 96), abs=1)


def test_no_render_mode_draws_nothing() -> None:
    env = PushT(render_mode=None)
    env.reset(seed=0)
    assert env.render() is None


def test_human_mode_shows_a_window_and_returns_the_picture(monkeypatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = PushT(render_mode="human", resolution=64)
    env.reset(seed=0, options={"variation": [], "goal_state": GOAL})
    picture = env.render()
    assert picture.shape == (64, 64, 3)
    surface = pygame.display.get_surface()
    assert surface.get_size() == (512, 512)
    assert tuple(surface.get_at((50, 400)))[:3] == (255, 255, 255)
    env.close()
    env.close()
    assert not pygame.display.get_init()


@pytest.mark.parametrize("shape", [(0, 5), (5, -1)])
def test_sizes_must_be_positive(shape) -> None:
    with pytest.raises(ValueError, match="render_shape"):
        PushT().render_shape = shape
