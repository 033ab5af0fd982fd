"""Helpers of environments built on pymunk, pygame or a MuJoCo camera. Each imports its package when it is used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stable_worldmodel.envs.utils.debug_draw import DrawOptions

__all__ = [
    "DrawOptions",
    "from_pygame",
    "get_mouse_pos",
    "light_color",
    "perturb_camera_angle",
    "positive_y_is_up",
    "pymunk_to_shapely",
    "to_pygame",
]

__getattr__ = lazy_exports(__name__, {"DrawOptions": f"{__name__}.debug_draw"})

positive_y_is_up = False
"""Whether the physics' y axis points up; pygame's points down. Read at every conversion."""

_QUARTER_SEGMENTS = 16  # of a circle turned into a polygon


def to_pygame(p: Sequence[float], surface: Any) -> tuple[int, int]:
    """The pixel of `surface` (a `pygame.Surface`) at a physics position."""
    x, y = round(p[0]), round(p[1])
    return (x, surface.get_height() - y) if positive_y_is_up else (x, y)


def from_pygame(p: Sequence[float], surface: Any) -> tuple[int, int]:
    """The physics position of a pixel of `surface`: the inverse of `to_pygame`."""
    return to_pygame(p, surface)


def get_mouse_pos(surface: Any) -> tuple[int, int]:
    """The physics position that the mouse points at on `surface`. Needs pygame and its window."""
    return from_pygame(require("pygame", "env").mouse.get_pos(), surface)


def light_color(color: Sequence[float]) -> tuple[float, ...]:
    """A colour, a fifth lighter: 1.2 times each component, at most 255. Alpha, if there is one, too."""
    return tuple(min(1.2 * component, 255.0) for component in color)


def pymunk_to_shapely(body: Any, shapes: Iterable[Any]) -> Any:
    """The `shapely.MultiPolygon` of a body's shapes in world coordinates. Needs shapely and pymunk.

    Polygons may overlap, as the parts of a body do. A circle becomes a polygon of 64 corners.

    Args:
        body: a `pymunk.Body`.
        shapes: `pymunk.Poly` and `pymunk.Circle` of that body.

    Raises:
        RuntimeError: a shape of another kind.
    """
    geometry, pymunk = require("shapely.geometry", "env"), require("pymunk", "env")
    polygons = []
    for shape in shapes:
        if isinstance(shape, pymunk.Poly):
            polygons.append(geometry.Polygon([body.local_to_world(corner) for corner in shape.get_vertices()]))
        elif isinstance(shape, pymunk.Circle):
            center = geometry.Point(body.local_to_world(shape.offset))
            polygons.append(center.buffer(shape.radius, quad_segs=_QUARTER_SEGMENTS))
        else:
            raise RuntimeError(f"{type(shape).__name__}: expected pymunk.Poly or pymunk.Circle")
    return geometry.MultiPolygon(polygons)


def perturb_camera_angle(xyaxis: Sequence[float], deg_dif: Sequence[float] = (3, 3)) -> np.ndarray:
    """A MuJoCo camera's `xyaxes` turned about the world's z axis and then about its x axis.

    Args:
        xyaxis: (6,) x axis and y axis of the camera.
        deg_dif: (yaw, pitch) in degrees.

    Returns:
        The turned axes, float64 (6,).
    """
    axes, angles = np.asarray(xyaxis, np.float64), np.asarray(deg_dif, np.float64)
    if axes.shape != (6,) or angles.shape != (2,):
        raise ContractError(f"xyaxis has shape {axes.shape}, deg_dif {angles.shape}: expected (6,) and (2,)")
    yaw, pitch = np.radians(angles).tolist()
    about_z = np.array([[math.cos(yaw), -math.sin(yaw), 0.0], [math.sin(yaw), math.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    about_x = np.array(
        [[1.0, 0.0, 0.0], [0.0, math.cos(pitch), -math.sin(pitch)], [0.0, math.sin(pitch), math.cos(pitch)]]
    )
    turn = about_x @ about_z
    return (axes.reshape(2, 3) @ turn.T).reshape(6)
