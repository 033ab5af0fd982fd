"""The picture: a cached layer of everything that stands still, and boxes and discs drawn over it.

Everything is drawn directly at the size asked for, in NumPy. What a body covers of a pixel is looked up in a table that
was computed from the distance to its edges, which is what averaging a much larger picture would give, up to 1/255 on
average at 64x64 and above.
Pixel i of the published 512x512 picture covers [i, i + 1), while bodies are placed on whole pixels: hence `SHIFT`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stable_worldmodel.envs.pusht.physics import SIZE, WALL_COLOR, Segment
from stable_worldmodel.envs.pusht.shapes import SHAPES, Box, Figure, Point, Pose

SHIFT = 0.5  # px
OUTLINE = 2.5  # px on either side of a box's edge: a line of radius 2 and the pixel it starts from
RIM = 4.0  # px, width of the disc's rim
WALLS = ((3.0, 8.0), (504.0, 509.0))  # px that the walls cover, in x and in y
MARK_COLOR = (231, 76, 60)
CROSS_COLOR = (255, 0, 0)
MARK_WIDTH = 1.0  # px

_STEPS = 16  # levels of cover that a texture tells apart
_FINE, _COARSE = 4, 2  # texels per pixel of small and of large pictures
_PHASES = 8  # places per pixel and axis at which the agent is drawn
_POINT = 16  # bits after the point of texel coordinates
_ONE = 1 << _POINT

Color = tuple[int, int, int]
Shape = tuple[int, int]
Patch = tuple[int, int, int, int]  # rows from, to, columns from, to


@dataclass(frozen=True)
class Look:
    """Colours, and the goal overlay: None if it is not shown."""

    background: Color
    agent: Color
    block: Color
    goal: Color
    goal_pose: Pose | None


@dataclass(frozen=True)
class Cross:
    """A marker at `center`, all px of the arena."""

    center: Point
    size: float
    thickness: float


def light(color: Color) -> Color:
    """What a body is filled with: its colour, a fifth lighter."""
    return tuple(min(round(1.2 * value), 255) for value in color)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Texture:
    """How much of every point of the plane a body and its filling cover, finely sampled in the body's own frame.

    A picture of the body in any pose is a look-up in this table, which costs the same for every shape.

    Attributes:
        levels: (side * side,) uint8, row by row; each is `_STEPS` * (cover of the body) + (cover of its filling), both
            in 0 ... `_STEPS` - 1. Wide enough for every pixel of a patch around the body.
        bits: side is 2 ** bits, and the centre of the table that of the body's bounding box.
        density: texels per arena px.
        center: of the body's bounding box, arena px in the frame of the body.
        corners: of what is drawn, relative to the centre; it lies within their convex hull.
    """

    levels: np.ndarray
    bits: int
    density: float
    center: Point
    corners: tuple[Point, ...]

    def placed(self, pose: Pose) -> tuple[Point, Box]:
        """Where the centre is in a pose of the body, and the bounding box of what is drawn, arena px."""
        x, y, cos, sin = pose[0], pose[1], math.cos(pose[2]), math.sin(pose[2])
        u, v = self.center
        x, y = x + cos * u - sin * v, y + sin * u + cos * v
        xs, ys = [cos * u - sin * v for u, v in self.corners], [sin * u + cos * v for u, v in self.corners]
        return (x, y), (x + min(xs), x + max(xs), y + min(ys), y + max(ys))


@functools.lru_cache(maxsize=64)
def _texture(figure: Figure, outline: float, scale: Point) -> _Texture:
    """The texture of a figure for pictures with `scale` picture px per arena px, in x and y."""
    pixel = 1.0 / math.sqrt(scale[0] * scale[1])  # arena px
    density = (_FINE if max(scale) <= 1.0 else _COARSE) * max(scale)
    x0, x1, y0, y1 = figure.extent(0.0)
    center = ((x0 + x1) / 2, (y0 + y1) / 2)
    half = ((x1 - x0) / 2 + outline, (y1 - y0) / 2 + outline)
    # A patch is a bounding box of the turned bounding box, and its pixels reach a little beyond it.
    reach = math.sqrt(2) * math.hypot(*half) + 4.0 / min(scale)
    bits = math.ceil(math.log2(2 * reach * density))
    levels = np.zeros((1 << bits, 1 << bits), np.uint8)
    columns, rows = (math.ceil((length + pixel) * density) for length in half)
    x = (np.arange(-columns, columns) + 0.5) / density + center[0]
    y = (np.arange(-rows, rows) + 0.5) / density + center[1]
    outer, inner = _disc(figure, x, y, pixel) if figure.is_disc else _boxes(figure, outline, x, y, pixel)
    middle = 1 << bits - 1
    levels[middle - rows : middle + rows, middle - columns : middle + columns] = np.rint(
        outer * (_STEPS - 1)
    ) * _STEPS + np.rint(inner * (_STEPS - 1))
    boxes = [figure.extent(0.0)] if figure.is_disc else np.array(SHAPES[figure.name].boxes) * figure.scale
    corners = {
        (float(x) - center[0], float(y) - center[1])
        for x0, x1, y0, y1 in boxes
        for x in (x0 - outline, x1 + outline)
        for y in (y0 - outline, y1 + outline)
    }
    return _Texture(levels.reshape(-1), bits, density, center, tuple(sorted(corners)))


def _boxes(figure: Figure, outline: float, x: np.ndarray, y: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """How much of a pixel around each point (x, y) is covered by a body, and by its filling, (len(y), len(x))."""
    outer, inner = np.zeros((2, len(y), len(x)))
    for x0, x1, y0, y1 in np.array(SHAPES[figure.name].boxes) * figure.scale:  # each box lies on those before it
        rim, core = (
            np.minimum.outer(_within(y, y0 - grow, y1 + grow, pixel), _within(x, x0 - grow, x1 + grow, pixel))
            for grow in (outline, -outline)
        )
        outer = np.minimum(outer + rim, 1.0)  # they overlap in their outlines at most
        inner = inner * (1.0 - rim) + core
    return outer, inner


def _disc(figure: Figure, x: np.ndarray, y: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """The same of a disc, and of it without its rim."""
    distance = np.hypot(x, y[:, None])
    outer, inner = (
        np.clip((radius - distance) / pixel + 0.5, 0.0, 1.0) for radius in (figure.radius, figure.radius - RIM)
    )
    return outer, inner


def _within(points: np.ndarray, low: float, high: float, pixel: float) -> np.ndarray:
    """How much of a pixel around each of `points` lies between two edges."""
    return np.clip((np.minimum(points - low, high - points)) / pixel + 0.5, 0.0, 1.0)


class _Sprite:
    """A body that is drawn again and again: its texture, and what its levels look like.

    Attributes:
        keep, paint: of every level, (levels, 3) uint16, see `_stamp`.
    """

    def __init__(self, figure: Figure, rim: Color, core: Color, outline: float, scale: Point):
        self.texture = _texture(figure, 0.0 if figure.is_disc else outline, scale)
        outer, inner = (part[:, None] / (_STEPS - 1) for part in np.divmod(np.arange(_STEPS**2), _STEPS))
        inner = np.minimum(inner, outer)
        paint = np.multiply(rim, outer) + np.multiply(np.subtract(core, rim), inner)
        keep = np.rint(256 * (1.0 - outer))
        self.keep = np.repeat(keep, 3, axis=1).astype(np.uint16)
        self.paint = np.floor(256 * paint + 128).astype(np.uint16)  # to the nearest colour

    def look_up(self, x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """What to keep and to paint of a patch, (h, w, 3) each.

        Args:
            x, y: (w,) and (h,), arena px from the centre of the body, which is turned by `angle`.
        """
        texture = self.texture
        unit, bits = texture.density * _ONE, texture.bits
        cos, sin = math.cos(angle) * unit, math.sin(angle) * unit
        # Texels as fixed-point numbers; those of a pixel are the sum of one number per column and one per row.
        across = (np.array([[cos], [-sin]]) * x).astype(np.int32)
        down = (np.array([[sin], [cos]]) * y + (_ONE << bits - 1)).astype(np.int32)
        column = across[0] + down[0, :, None]
        texel = across[1] + down[1, :, None]
        # texel // _ONE * side + column // _ONE
        texel >>= _POINT - bits
        texel &= -1 << bits
        column >>= _POINT
        level = texture.levels.take(np.bitwise_or(texel, column, dtype=np.intp)).astype(np.intp)
        return self.keep.take(level, axis=0), self.paint.take(level, axis=0)


class Painter:
    """Draws the frames of one episode in one size.

    Args:
        agent, block: what is drawn, at the poses that `frame` gets.
        agent_angle: of an agent that is no disc.
        shape: (H, W) of the pictures.
    """

    def __init__(self, agent: Figure, agent_angle: float, block: Figure, look: Look, shape: Shape):
        self._shape = shape
        self._scale = scale = (shape[1] / SIZE, shape[0] / SIZE)  # x, y
        # Arena px of pixel centres.
        self._columns = (np.arange(shape[1]) + 0.5) / scale[0] - SHIFT
        self._rows = (np.arange(shape[0]) + 0.5) / scale[1] - SHIFT
        self._agent = _Sprite(agent, look.agent, light(look.agent), OUTLINE, scale)
        self._agent_angle = 0.0 if agent.is_disc else agent_angle
        self._block = _Sprite(block, look.block, light(look.block), OUTLINE, scale)
        self._backdrop = np.empty((*shape, 3), np.uint8)
        self._backdrop[:] = look.background
        if look.goal_pose is not None:
            self._figure(self._backdrop, _Sprite(block, look.goal, look.goal, 0.0, scale), look.goal_pose)
        self._walls = _Walls(shape)
        self._walls.draw(self._backdrop, (0, shape[0], 0, shape[1]))
        self._scene = self._backdrop.copy()  # with the block where it was last drawn
        self._scene_pose: Pose | None = None
        self._agents: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, int, int]] = {}
        self._scene_patch = (slice(0), slice(0))

    def frame(
        self,
        agent: Point,
        block: Pose,
        marks: Sequence[Segment] = (),
        cross: Cross | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """A picture, uint8 (H, W, 3): a new one, or `out`, which may have any values."""
        if block != self._scene_pose:  # a block that nobody pushes stays where it is
            self._scene[self._scene_patch] = self._backdrop[self._scene_patch]
            r0, r1, c0, c1 = self._figure(self._scene, self._block, block)
            self._walls.draw(self._scene, (r0, r1, c0, c1))
            self._scene_pose, self._scene_patch = block, (slice(r0, r1), slice(c0, c1))
        if out is None:
            out = np.empty_like(self._scene)
        out[...] = self._scene
        self._walls.draw(out, self._draw_agent(out, agent))
        for start, end in marks:
            self._line(out, start, end, MARK_WIDTH, MARK_COLOR)
        if cross is not None:
            (x, y), half = cross.center, cross.size / 2
            self._line(out, (x - half, y), (x + half, y), cross.thickness, CROSS_COLOR)
            self._line(out, (x, y - half), (x, y + half), cross.thickness, CROSS_COLOR)
        return out

    def _figure(self, picture: np.ndarray, sprite: _Sprite, pose: Pose) -> Patch:
        """Draw a body and return the patch of the picture that it lies in."""
        center, box = sprite.texture.placed(pose)
        patch = r0, r1, c0, c1 = self._clipped(self._patch(box))
        if r0 < r1 and c0 < c1:
            keep, paint = sprite.look_up(self._columns[c0:c1] - center[0], self._rows[r0:r1] - center[1], pose[2])
            _stamp(picture[r0:r1, c0:c1], keep, paint)
        return patch

    def _draw_agent(self, picture: np.ndarray, agent: Point) -> Patch:
        """Draw the agent, which never turns, from pictures of it on a fraction of a pixel."""
        (scale_x, scale_y), (x, y) = self._scale, agent
        column, phase_x = divmod(round(x * scale_x * _PHASES), _PHASES)
        row, phase_y = divmod(round(y * scale_y * _PHASES), _PHASES)
        known = self._agents.get((phase_x, phase_y))
        if known is None:
            known = self._agents[phase_x, phase_y] = self._agent_at(phase_x / _PHASES, phase_y / _PHASES)
        keep, paint, top, left = known
        top, left = top + row, left + column
        patch = r0, r1, c0, c1 = self._clipped((top, top + keep.shape[0], left, left + keep.shape[1]))
        if r0 < r1 and c0 < c1:
            part = slice(r0 - top, r1 - top), slice(c0 - left, c1 - left)
            _stamp(picture[r0:r1, c0:c1], keep[part], paint[part])
        return patch

    def _agent_at(self, column: float, row: float) -> tuple[np.ndarray, np.ndarray, int, int]:
        """The agent at a place given in picture px: what to keep and to paint, and the first row and column of it."""
        scale_x, scale_y = self._scale
        center, box = self._agent.texture.placed((column / scale_x, row / scale_y, self._agent_angle))
        r0, r1, c0, c1 = self._patch(box)
        columns, rows = (
            (np.arange(*part) + 0.5) / scale - SHIFT for part, scale in (((c0, c1), scale_x), ((r0, r1), scale_y))
        )
        return *self._agent.look_up(columns - center[0], rows - center[1], self._agent_angle), r0, c0

    def _line(self, picture: np.ndarray, start: Point, end: Point, width: float, color: Color) -> None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        length, scale = math.hypot(dx, dy), math.sqrt(self._scale[0] * self._scale[1])
        if length == 0.0:
            return
        x, y, reach = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (length + width) / 2
        r0, r1, c0, c1 = self._clipped(self._patch((x - reach, x + reach, y - reach, y + reach)))
        if r0 >= r1 or c0 >= c1:
            return
        dx, dy = dx / length * scale, dy / length * scale  # picture px along the line per arena px
        columns, rows = self._columns[c0:c1] - x, self._rows[r0:r1, None] - y
        along, beside = np.abs(dx * columns + dy * rows), np.abs(dx * rows - dy * columns)
        cover = np.minimum(length / 2 * scale + 0.5 - along, width / 2 * scale + 0.5 - beside)
        cover = np.clip(cover, 0.0, 1.0) * min(1.0, width * scale)  # thinner than a pixel
        _blend(picture, (r0, r1, c0, c1), cover, color)

    def _patch(self, box: Box) -> Patch:
        """The pixels of a box, given in arena px, and half a pixel around it. They may lie out of the picture."""
        (scale_x, scale_y), (left, right, top, bottom) = self._scale, box
        return (
            math.floor((top + SHIFT) * scale_y - 0.5),
            math.ceil((bottom + SHIFT) * scale_y + 0.5),
            math.floor((left + SHIFT) * scale_x - 0.5),
            math.ceil((right + SHIFT) * scale_x + 0.5),
        )

    def _clipped(self, patch: Patch) -> Patch:
        (height, width), (r0, r1, c0, c1) = self._shape, patch
        return max(r0, 0), min(r1, height), max(c0, 0), min(c1, width)


class _Walls:
    """The four walls as the product of what they cover along rows and along columns."""

    def __init__(self, shape: Shape):
        self._across = [_share(pixels, *WALLS[0]) + _share(pixels, *WALLS[1]) for pixels in shape]
        self._along = [_share(pixels, WALLS[0][0], WALLS[1][1]) for pixels in shape]
        # The pixels between the walls.
        (near, _), (_, far) = (WALLS[0][1], 0.0), (0.0, WALLS[1][0])
        self._clear = [(math.ceil(near * pixels / SIZE), math.floor(far * pixels / SIZE)) for pixels in shape]

    def draw(self, picture: np.ndarray, patch: Patch) -> None:
        """Draw the walls over a patch in which something was drawn over them."""
        r0, r1, c0, c1 = patch
        (top, bottom), (left, right) = self._clear
        if r0 >= r1 or c0 >= c1 or (top <= r0 and r1 <= bottom and left <= c0 and c1 <= right):
            return
        (rows, columns), (whole_rows, whole_columns) = self._across, self._along
        cover = np.maximum(np.outer(whole_rows[r0:r1], columns[c0:c1]), np.outer(rows[r0:r1], whole_columns[c0:c1]))
        _blend(picture, patch, cover, WALL_COLOR)


def _share(pixels: int, low: float, high: float) -> np.ndarray:
    """How much of each of `pixels` equal parts of the arena's side lies in [low, high], float32."""
    left = np.arange(pixels) * (SIZE / pixels)
    covered = np.minimum(left + SIZE / pixels, high) - np.maximum(left, low)
    return (np.clip(covered, 0.0, None) * (pixels / SIZE)).astype(np.float32)


def _stamp(target: np.ndarray, keep: np.ndarray, paint: np.ndarray) -> None:
    """Every pixel p of `target`, uint8 (h, w, 3), becomes (p * keep + paint) / 256."""
    mixed = keep * target
    mixed += paint
    mixed >>= 8
    target[...] = mixed


def _blend(picture: np.ndarray, patch: Patch, cover: np.ndarray, color: Color) -> None:
    """Paint over a patch of the picture, uint8 (H, W, 3), in one colour; `cover` (h, w) says how much of a pixel."""
    target = picture[patch[0] : patch[1], patch[2] : patch[3]]
    mixed = np.asarray(color, np.float32) - target
    mixed *= cover[..., None]
    mixed += target
    mixed += 0.5  # to the nearest level
    target[...] = mixed
