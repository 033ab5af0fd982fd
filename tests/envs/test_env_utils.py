"""Helpers of environments built on pymunk and pygame."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stable_worldmodel.envs import utils
from stable_worldmodel.errors import ContractError

DATA = Path(__file__).parents[1] / "data" / "pusht"
FRAMES = json.loads((DATA / "pusht.json").read_text())["frames"]
pixels = st.tuples(st.integers(0, 500), st.integers(0, 500))


@pytest.fixture
def y_up(monkeypatch):
    monkeypatch.setattr(utils, "positive_y_is_up", True)


def surface(width: int = 512, height: int = 512):
    return pytest.importorskip("pygame").Surface((width, height))


def test_positions_are_rounded_to_pixels() -> None:
    assert utils.to_pygame((3.4, 7.6), surface()) == (3, 8)


def test_y_may_point_up(y_up) -> None:
    assert utils.to_pygame((3.4, 100.0), surface(300, 400)) == (3, 300)


@given(pixels)
def test_pixels_there_and_back(pixel) -> None:
    canvas = surface()
    assert utils.from_pygame(utils.to_pygame(pixel, canvas), canvas) == pixel
    try:
        utils.positive_y_is_up = True
        assert utils.from_pygame(utils.to_pygame(pixel, canvas), canvas) == pixel
    finally:
        utils.positive_y_is_up = False


def test_mouse_position_is_a_physics_position(monkeypatch, y_up) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setattr(pygame.mouse, "get_pos", lambda: (20, 30))
    assert utils.get_mouse_pos(surface()) == (20, 482)


def test_light_colors() -> None:
    assert utils.light_color((100, 200, 250, 255)) == (120.0, 240.0, 255.0, 255.0)


# ---------------------------------------------------------------------- cameras
def test_camera_angle_of_the_specification() -> None:
    found = utils.perturb_camera_angle((0, 1, 0, -0.628, 0.001, 0.778), (5, -3))
    expected = (-0.087156, 0.994829, -0.052137, -0.625697, -0.012947, 0.779746)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.lists(st.floats(-180, 180), min_size=2, max_size=2))
def test_turned_axes_keep_lengths_and_angle(angles) -> None:
    axes = np.array([0.0, 1.0, 0.0, -0.628, 0.001, 0.778])
    turned = utils.perturb_camera_angle(axes, angles).reshape(2, 3)
    np.testing.assert_allclose(turned @ turned.T, axes.reshape(2, 3) @ axes.reshape(2, 3).T, atol=1e-12)


def test_camera_needs_two_axes() -> None:
    with pytest.raises(ContractError, match="xyaxis"):
        utils.perturb_camera_angle((1, 0, 0))


# ---------------------------------------------------------------------- shapely
def test_body_becomes_polygons_in_world_coordinates() -> None:
    pymunk, _ = pytest.importorskip("pymunk"), pytest.importorskip("shapely")
    body = pymunk.Body(1, 1)
    body.angle, body.position = math.pi / 2, (100, 50)
    box = pymunk.Poly(body, [(0, 0), (20, 0), (20, 10), (0, 10)])
    disc = pymunk.Circle(body, 5, offset=(40, 0))
    found = utils.pymunk_to_shapely(body, [box, disc])
    assert found.geom_type == "MultiPolygon"
    first, second = found.geoms
    assert first.bounds == pytest.approx((90, 50, 100, 70))
    assert (second.centroid.x, second.centroid.y) == pytest.approx((100, 90))
    assert len(second.exterior.coords) == 4 * 16 + 1
    with pytest.raises(RuntimeError, match="Segment"):
        utils.pymunk_to_shapely(body, [pymunk.Segment(body, (0, 0), (1, 1), 1)])


# ---------------------------------------------------------------------- drawing
@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame["file"])
def test_drawn_space_is_the_published_picture(frame) -> None:
    pygame, cv2 = pytest.importorskip("pygame"), pytest.importorskip("cv2")
    pymunk = pytest.importorskip("pymunk")
    from stable_worldmodel.envs.pusht import PushT

    env = PushT(compat="public", render_mode=None)
    state, goal, values = frame["state"], frame["goal_state"], frame["variation_values"]
    env.reset(seed=0, options={"variation_values": values, "state": state, "goal_state": goal, "variation": []})
    factors, canvas = env.variation_space, surface()
    canvas.fill(factors.value_of("background.color").tolist())
    x, y, angle = factors.goal_pose()
    for shape in env.block.shapes if factors.value_of("rendering.render_goal") else ():
        corners = [pymunk.Vec2d(x, y) + corner.rotated(angle) for corner in shape.get_vertices()]
        pygame.draw.polygon(
            canvas, factors.value_of("goal.color").tolist(), [utils.to_pygame(c, canvas) for c in corners]
        )
    for body, name in ((env.agent, "agent"), (env.block, "block"), (env.space.static_body, None)):
        for shape in body.shapes:
            shape.color = (*(factors.value_of(f"{name}.color").tolist() if name else (211, 211, 211)), 255)
    env.space.debug_draw(utils.DrawOptions(canvas))
    drawn = cv2.resize(np.ascontiguousarray(pygame.surfarray.array3d(canvas).swapaxes(0, 1)), (224, 224))
    published = np.asarray(Image.open(DATA / frame["file"]).convert("RGB")).astype(int)
    assert np.abs(drawn - published).mean() < 0.1


def test_fat_segments_dots_and_lines() -> None:
    pygame, pymunk = pytest.importorskip("pygame"), pytest.importorskip("pymunk")
    space, canvas = pymunk.Space(), surface(100, 100)
    segment = pymunk.Segment(space.static_body, (20, 50), (80, 50), 5)
    segment.color = (10, 20, 30, 255)
    space.add(segment)
    options = utils.DrawOptions(canvas)
    space.debug_draw(options)
    assert canvas.get_at((50, 46))[:3] == canvas.get_at((16, 50))[:3] == (10, 20, 30)
    assert canvas.get_at((50, 40))[:3] == canvas.get_at((12, 50))[:3] == (0, 0, 0)
    color = options.shape_outline_color
    options.draw_dot(4, (50, 80), color)
    options.draw_segment((10, 10), (90, 10), color)
    assert canvas.get_at((50, 80))[:3] == canvas.get_at((50, 10))[:3] == tuple(map(int, color.as_int()[:3]))
    assert pygame.surfarray.array3d(canvas).any()


def test_importing_the_helpers_loads_no_simulator() -> None:
    code = "import sys, stable_worldmodel.envs.utils; print({'pygame', 'pymunk', 'shapely'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
