"""The rasteriser of the 2-D environments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.envs.drawing2d import Painter

WHITE, BLACK = 255, (0, 0, 0)


def canvas(height: int, width: int) -> tuple[np.ndarray, Painter]:
    picture = np.full((height, width, 3), WHITE, np.uint8)
    return picture, Painter(picture, 0, 10, 10, 0)  # y up


def draw_scene(height: int, width: int) -> np.ndarray:
    picture, painter = canvas(height, width)
    painter.rectangle((1, 3), (1, 4.3), BLACK)
    painter.disc((6, 6), 2, (255, 0, 0))
    painter.disc((0.2, 9.8), 0.5, (0, 255, 0), alpha=0.5)
    painter.polygon([(4, 1), (7, 1.5), (8, 3), (5, 3.2)], (0, 0, 255))
    painter.line((0, 5), (10, 7), 0.05, BLACK)
    painter.line((2, 9), (9, 9), 0.03, BLACK)
    return picture


def draw_arc(height: int, width: int) -> np.ndarray:
    picture, painter = canvas(height, width)
    painter.arc((3, 7), 1.5, 0.4, 0.0, 1.5 * math.pi, (200, 0, 200))
    return picture


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (48, 96)])
def test_small_picture_is_a_large_one_averaged(size) -> None:
    height, width = size
    k = 10
    large = draw_scene(height * k, width * k).reshape(height, k, width, k, 3).mean(axis=(1, 3))
    error = np.abs(draw_scene(height, width) - large)
    assert error.mean() < 0.2
    assert error.max() < 15


@pytest.mark.parametrize("size", [(64, 64), (224, 224)])
def test_small_arc_is_a_large_one_averaged_but_for_its_ends(size) -> None:
    height, width = size
    large = draw_arc(10 * height, 10 * width).reshape(height, 10, width, 10, 3).mean(axis=(1, 3))
    error = np.abs(draw_arc(height, width) - large)
    assert error.mean() < 0.3
    assert (error > 20).sum() <= 30


def test_y_points_to_where_the_top_is() -> None:
    picture, painter = canvas(10, 10)
    painter.rectangle((0, 1), (0, 1), BLACK)
    assert not picture[9, 0].any()
    assert picture.sum() == 99 * 3 * WHITE
    down = np.full((10, 10, 3), WHITE, np.uint8)
    Painter(down, 0, 0, 10, 10).rectangle((0, 1), (0, 1), BLACK)
    np.testing.assert_array_equal(down, picture[::-1])


def darkness(picture: np.ndarray) -> float:
    """How much black there is, in square units of the world of 10x10."""
    return (1 - picture[..., 0] / WHITE).mean() * 100


@settings(max_examples=60)
@given(st.floats(1, 9), st.floats(1, 9), st.floats(0.1, 1.0), st.sampled_from([(20, 20), (64, 64), (30, 50)]))
def test_disc_has_its_area(x, y, radius, size) -> None:
    picture, painter = canvas(*size)
    painter.disc((x, y), radius, BLACK)
    levels = 0.5 / WHITE * 100 * (2 * radius / 10 * max(size) + 2) ** 2 / (size[0] * size[1])  # of rounding
    assert darkness(picture) == pytest.approx(math.pi * radius**2, rel=0.03, abs=2 * levels)


@settings(max_examples=60)
@given(st.floats(1, 9), st.floats(1, 9), st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.floats(0, 6.3))
def test_polygon_has_its_area_whichever_way_it_goes(x, y, a, b, angle) -> None:
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = np.array([(-a, -b), (a, -b), (a, b), (-a, b)]) / 1.5 @ turn + (x, y)
    forward, backward = canvas(64, 64), canvas(64, 64)
    forward[1].polygon(corners, BLACK)
    backward[1].polygon(corners[::-1], BLACK)
    np.testing.assert_array_equal(forward[0], backward[0])
    assert darkness(forward[0]) == pytest.approx(4 * a * b / 2.25, rel=0.03, abs=0.03)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.01, 20))
def test_shapes_may_leave_the_picture(x, y, r) -> None:
    picture, painter = canvas(12, 16)
    painter.disc((x, y), r, BLACK)
    painter.rectangle((x - r, x + r), (y - r, y + r), BLACK)
    painter.polygon([(x - r, y), (x, y + r), (x + r, y)], BLACK)
    painter.line((x, y), (x + r, y - r), r / 10, BLACK)
    painter.arc((x, y), r, r / 10, 0.0, 4.0, BLACK)
    assert picture.shape == (12, 16, 3)
    if abs(x - 5) > r + 6 or abs(y - 5) > r + 6:
        assert (picture == WHITE).all()


def test_a_line_without_length_is_nothing() -> None:
    picture, painter = canvas(12, 12)
    painter.line((5, 5), (5, 5), 1.0, BLACK)
    assert (picture == WHITE).all()


@pytest.mark.parametrize(("turn", "black"), [(math.pi / 2, (True, False)), (-math.pi / 2, (False, True))])
def test_arc_turns_from_x_to_y(turn, black) -> None:
    picture, painter = canvas(100, 100)
    painter.arc((5, 5), 3.0, 0.5, 0.0, turn, BLACK)
    at = 3 / math.sqrt(2)
    above, below = (picture[int(100 - 10 * (5 + s * at)), int(10 * (5 + at)), 0] == 0 for s in (1, -1))
    assert (above, below) == black
