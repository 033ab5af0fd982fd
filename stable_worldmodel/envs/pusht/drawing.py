"""The picture: a cached layer of everything that stands still, and boxes and discs drawn over it.

Everything is drawn directly at the size asked for, in NumPy. A pixel's share of a shape is computed from its distance
to the edges, which is what averaging a much larger picture would give, up to 2/255 on average at 64x64 and above.
Pixel i of the published 512x512 picture covers [i, i + 1), while bodies are placed on whole pixels: hence `SHIFT`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stable_worldmodel.envs.pusht.physics import SIZE, WALL_COLOR, Segment
from stable_worldmodel.envs.pusht.shapes import SHAPES, Figure, Point, Pose

SHIFT = 0.5  # px
OUTLINE = 2.5  # px on either side of a box's edge: a line of radius 2 and the pixel it starts from
RIM = 4.0  # px, width of the disc's rim
WALLS = ((3.0, 8.0), (504.0, 509.0))  # px that the walls cover, in x and in y
MARK_COLOR = (231, 76, 60)
CROSS_COLOR = (255, 0, 0)
MARK_WIDTH = 1.0  # px

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


class _Sprite:
    """What a body looks like whatever its pose: its boxes (none: a disc) and its colours.

    Attributes:
        centers, halves: (boxes, 2) and (layers, boxes, 2), local px; layer 0 is the outline's, layer 1 the filling's.
        colors: (2, 3), the outline's and what the filling adds to it.
    """

    def __init__(self, figure: Figure, rim: Color, core: Color, outline: float):
        self.figure = figure
        boxes = np.array(() if figure.is_disc else SHAPES[figure.name].boxes, np.float32).reshape(-1, 2, 2)
        boxes *= np.float32(figure.scale)
        self.centers = boxes.mean(axis=2)
        half = (boxes[..., 1] - boxes[..., 0]) / 2
        self.halves = np.stack((half + np.float32(outline), half - np.float32(outline)))
        self.outline = outline
        self.colors = np.array([rim, np.subtract(core, rim)], np.float32)


class Painter:
    """Draws the frames of one episode in one size.

    Args:
        agent, block: what is drawn, at the poses that `frame` gets.
        agent_angle: of an agent that is no disc.
        shape: (H, W) of the pictures.
    """

    def __init__(self, agent: Figure, agent_angle: float, block: Figure, look: Look, shape: Shape):
        self._shape = shape
        self._scale = (shape[1] / SIZE, shape[0] / SIZE)  # x, y
        # Arena px of pixel centres.
        self._columns = ((np.arange(shape[1]) + 0.5) / self._scale[0] - SHIFT).astype(np.float32)
        self._rows = ((np.arange(shape[0]) + 0.5) / self._scale[1] - SHIFT).astype(np.float32)
        self._agent = _Sprite(agent, look.agent, light(look.agent), OUTLINE)
        self._agent_angle = agent_angle
        self._block = _Sprite(block, look.block, light(look.block), OUTLINE)
        self._backdrop = np.empty((*shape, 3), np.uint8)
        self._backdrop[:] = look.background
        if look.goal_pose is not None:
            self._figure(self._backdrop, _Sprite(block, look.goal, look.goal, 0.0), look.goal_pose)
        self._walls = _Walls(shape)
        self._walls.draw(self._backdrop, (0, shape[0], 0, shape[1]))
        self._scene = self._backdrop  # with the block where it was last drawn
        self._scene_pose: Pose | None = None

    def frame(self, agent: Point, block: Pose, marks: Sequence[Segment] = (), cross: Cross | None = None) -> np.ndarray:
        """A new picture, uint8 (H, W, 3)."""
        if block != self._scene_pose:  # a block that nobody pushes stays where it is
            self._scene = self._backdrop.copy()
            self._walls.draw(self._scene, self._figure(self._scene, self._block, block))
            self._scene_pose = block
        picture = self._scene.copy()
        self._walls.draw(picture, self._figure(picture, self._agent, (*agent, self._agent_angle)))
        for start, end in marks:
            self._line(picture, start, end, MARK_WIDTH, MARK_COLOR)
        if cross is not None:
            (x, y), half = cross.center, cross.size / 2
            self._line(picture, (x - half, y), (x + half, y), cross.thickness, CROSS_COLOR)
            self._line(picture, (x, y - half), (x, y + half), cross.thickness, CROSS_COLOR)
        return picture

    def _figure(self, picture: np.ndarray, sprite: _Sprite, pose: Pose) -> Patch:
        """Draw a body and return the patch of the picture that it lies in."""
        margin = 0.0 if sprite.figure.is_disc else sprite.outline
        patch = self._patch(pose, sprite.figure.extent(pose[2]), margin)
        if patch[0] < patch[1] and patch[2] < patch[3]:
            cover = self._disc(sprite, pose, patch) if sprite.figure.is_disc else self._boxes(sprite, pose, patch)
            _blend(picture, patch, cover, sprite.colors)
        return patch

    def _boxes(self, sprite: _Sprite, pose: Pose, patch: Patch) -> np.ndarray:
        """How much of each pixel is covered by the body, and by its filling: (2, h, w)."""
        cover = self._coverage(sprite.centers, sprite.halves, pose, patch)  # (2, boxes, h, w)
        outer, inner = cover[:, 0]
        for rim, core in cover[:, 1:].swapaxes(0, 1):  # each box lies on those before it
            np.subtract(_ONE, rim, out=rim)
            outer = np.subtract(_ONE, (_ONE - outer) * rim)
            inner = inner * rim
            inner += core
        return np.stack((outer, inner))

    def _coverage(self, centers: np.ndarray, halves: np.ndarray, pose: Pose, patch: Patch) -> np.ndarray:
        """How much of each pixel lies in boxes: (layers, boxes, h, w).

        Args:
            centers: (boxes, 2), arena px in the frame of the body.
            halves: (layers, boxes, 2), half their sides.
        """
        cos, sin = math.cos(pose[2]), math.sin(pose[2])
        scale_x, scale_y = self._scale
        # Arena px per picture pixel across the sides of the boxes.
        steps = math.hypot(cos / scale_x, sin / scale_y), math.hypot(sin / scale_x, cos / scale_y)
        x = self._columns[patch[2] : patch[3]] - np.float32(pose[0])
        y = self._rows[patch[0] : patch[1]] - np.float32(pose[1])
        turn = np.array([[cos, sin], [-sin, cos]]) / np.array([steps]).T
        turn = turn.astype(np.float32)
        gradient = np.array(steps, np.float32)
        across = np.multiply.outer(turn[:, 0], x)  # (2, w)
        down = np.multiply.outer(turn[:, 1], y) - (centers / gradient)[..., None]  # (boxes, 2, h)
        offset = down[..., None] + across[:, None]  # (boxes, 2, h, w), picture px from the middle
        np.abs(offset, out=offset)
        sides = halves / gradient
        inside = (sides + np.float32(0.5))[..., None, None] - offset  # (layers, boxes, 2, h, w)
        cover = np.minimum(inside[:, :, 0], inside[:, :, 1])
        np.maximum(cover, _ZERO, out=cover)
        return np.minimum(cover, _ONE, out=cover)

    def _disc(self, sprite: _Sprite, pose: Pose, patch: Patch) -> np.ndarray:
        """How much of each pixel is covered by a disc, and by it without its rim: (2, h, w)."""
        scale, radius = math.sqrt(self._scale[0] * self._scale[1]), sprite.figure.radius
        x = self._columns[patch[2] : patch[3]] - np.float32(pose[0])
        y = self._rows[patch[0] : patch[1]] - np.float32(pose[1])
        x *= x
        y *= y
        distance = np.add.outer(y, x)
        np.sqrt(distance, out=distance)
        distance *= np.float32(scale)
        radii = np.array([radius * scale + 0.5, (radius - RIM) * scale + 0.5], np.float32)
        cover = radii[:, None, None] - distance
        np.maximum(cover, _ZERO, out=cover)
        return np.minimum(cover, _ONE, out=cover)

    def _line(self, picture: np.ndarray, start: Point, end: Point, width: float, color: Color) -> None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        length, angle = math.hypot(dx, dy), math.atan2(dy, dx)
        pose = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, angle)
        patch = self._patch(pose, (-length / 2, length / 2, -length / 2, length / 2), width)
        if patch[0] >= patch[1] or patch[2] >= patch[3]:
            return
        halves = np.array([[[length / 2, width / 2]]], np.float32)
        cover = self._coverage(np.zeros((1, 2), np.float32), halves, pose, patch)[0]
        cover *= np.float32(min(1.0, width * math.sqrt(self._scale[0] * self._scale[1])))  # thinner than a pixel
        _blend(picture, patch, cover, np.array([color], np.float32))

    def _patch(self, pose: Pose, extent: tuple[float, float, float, float], margin: float) -> Patch:
        """The pixels within `margin` arena px of a bounding box around a pose."""
        (scale_x, scale_y), (height, width) = self._scale, self._shape
        x, y, (x0, x1, y0, y1) = pose[0] + SHIFT, pose[1] + SHIFT, extent
        top, bottom = math.floor((y + y0 - margin) * scale_y - 0.5), math.ceil((y + y1 + margin) * scale_y + 0.5)
        left, right = math.floor((x + x0 - margin) * scale_x - 0.5), math.ceil((x + x1 + margin) * scale_x + 0.5)
        return max(top, 0), min(bottom, height), max(left, 0), min(right, width)


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
        _blend(picture, patch, cover[None], np.array([WALL_COLOR], np.float32))


_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def _share(pixels: int, low: float, high: float) -> np.ndarray:
    """How much of each of `pixels` equal parts of the arena's side lies in [low, high], float32."""
    left = np.arange(pixels) * (SIZE / pixels)
    covered = np.minimum(left + SIZE / pixels, high) - np.maximum(left, low)
    return (np.clip(covered, 0.0, None) * (pixels / SIZE)).astype(np.float32)


def _blend(picture: np.ndarray, patch: Patch, cover: np.ndarray, colors: np.ndarray) -> None:
    """Paint over a patch of the picture, uint8 (H, W, 3).

    Args:
        cover: (layers, h, w); layer 0 says how much of what was there is hidden.
        colors: (layers, 3); they are added up, weighted by `cover`.
    """
    layers, height, width = cover.shape
    flat = cover.reshape(layers, height * width)
    paint = flat.T @ colors
    paint += np.float32(0.5)  # to the nearest level
    below = np.subtract(_ONE, flat[0]).repeat(3).reshape(height, width, 3)
    target = picture[patch[0] : patch[1], patch[2] : patch[3]]
    below *= target
    below += paint.reshape(height, width, 3)
    target[...] = below
