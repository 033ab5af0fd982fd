"""Adding further bodies to the space of an episode: one method per shape, under their published names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pymunk

from stable_worldmodel.envs.pusht.physics import build_body, rgba
from stable_worldmodel.envs.pusht.shapes import NAMES, Figure, Point
from stable_worldmodel.errors import ContractError

ALL = pymunk.ShapeFilter.ALL_MASKS()
Color = str | Sequence[float]


class BodyBuilders:
    """Each method adds a body to `space` and returns it: the centre of mass is set first, then position and angle.

    `position` is the body's origin before it is turned about its centre of mass; `scale` is in px; `color` a name or
    RGB(A); `mask` says which collision categories it meets. They take part in the physics, but not in the pictures.
    """

    @property
    def space(self) -> pymunk.Space:
        """The pymunk space of the episode."""
        raise NotImplementedError

    def add_shape(self, shape: str, *args: Any, **kwargs: Any) -> pymunk.Body:
        """Add a body of the shape with this name, see `shapes.NAMES`; the rest goes to its own method."""
        builders: dict[str, Callable[..., pymunk.Body]] = {
            "o": self.add_circle,
            "L": self.add_L,
            "T": self.add_tee,
            "Z": self.add_Z,
            "square": self.add_square,
            "I": self.add_I,
            "small_tee": self.add_small_tee,
            "+": self.add_plus,
        }
        if shape not in builders:
            raise ContractError(f"shape={shape!r}: expected one of {NAMES}")
        return builders[shape](*args, **kwargs)

    def add_circle(
        self,
        position: Point,
        angle: float = 0,
        mass: float = 1,
        scale: float = 1,
        color: Color = "RoyalBlue",
        kinematic: bool = True,
    ) -> pymunk.Body:
        """A disc of radius 0.375 times `scale`, which nothing pushes unless it is not `kinematic`."""
        return self._add_body("o", position, angle, scale, color, mass=mass, kinematic=kinematic)

    def add_L(self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL) -> pymunk.Body:
        """An L."""
        return self._add_body("L", position, angle, scale, color, mask, mass)

    def add_tee(self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL) -> pymunk.Body:
        """A T."""
        return self._add_body("T", position, angle, scale, color, mask, mass)

    def add_Z(self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL) -> pymunk.Body:
        """A Z."""
        return self._add_body("Z", position, angle, scale, color, mask, mass)

    def add_square(self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL) -> pymunk.Body:
        """A square of side 2."""
        return self._add_body("square", position, angle, scale, color, mask, mass)

    def add_I(self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL) -> pymunk.Body:
        """A bar of 1 by 4."""
        return self._add_body("I", position, angle, scale, color, mask, mass)

    def add_small_tee(
        self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL
    ) -> pymunk.Body:
        """A T with a short stem."""
        return self._add_body("small_tee", position, angle, scale, color, mask, mass)

    def add_plus(self, position, angle, mass=1, scale=30, color: Color = "LightSlateGray", mask=ALL) -> pymunk.Body:
        """A plus sign."""
        return self._add_body("+", position, angle, scale, color, mask, mass)

    def add_box(
        self,
        position: Point,
        height: float,
        width: float,
        color: Color = "LightSlateGray",
        scale: float = 1,
        angle: float = 0,
        mass: float = 1,
    ) -> pymunk.Body:
        """A rectangle around `position`, `height` times `scale` by `width` times `scale`."""
        size = (height * scale, width * scale)
        body = pymunk.Body(mass, pymunk.moment_for_box(mass, size))
        return self._place_body(body, [pymunk.Poly.create_box(body, size)], position, angle, color)

    def _add_body(
        self,
        name: str,
        position: Point,
        angle: float,
        scale: float,
        color: Color,
        mask: int = ALL,
        mass: float = 1,
        kinematic: bool = False,
    ) -> pymunk.Body:
        body, shapes = build_body(Figure(name, scale), kinematic, mass)
        return self._place_body(body, shapes, position, angle, color, mask)

    def _place_body(
        self,
        body: pymunk.Body,
        shapes: list[Any],
        position: Point,
        angle: float,
        color: Color,
        mask: int = ALL,
    ) -> pymunk.Body:
        body.position = position
        body.angle = angle
        for shape in shapes:
            shape.color = rgba(color)
            shape.filter = pymunk.ShapeFilter(mask=mask)
        self.space.add(body, *shapes)
        return body
