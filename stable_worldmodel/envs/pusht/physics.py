"""The simulation: a pymunk space with walls, an agent under position control and a block it pushes.

All dynamic velocity is damped away in every substep, so the block moves only while it is pushed. The order in which
bodies and their parts enter the space is part of the dynamics, because the contact solver is sequential and stops
after ten iterations: walls, agent, block.

A control step calls the engine's C functions directly: going through pymunk's properties takes three times as long as
the simulation itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pymunk
from PIL import ImageColor
from pymunk._chipmunk_cffi import lib

from stable_worldmodel.envs.pusht.shapes import SHAPES, Figure, Point, Pose
from stable_worldmodel.errors import ContractError

SIZE = 512  # px, side of the arena
ACTION_SCALE = 100.0  # px per unit of a relative action
DT = 0.01  # s
SUBSTEPS = 10  # of one control step
KP, KV = 100.0, 20.0  # gains of the position controller
INNER = (7.0, 504.0)  # faces of the walls
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
WALL_RADIUS = 2
WALL_COLOR = (211, 211, 211)
MARK_REACH = 2.0  # px by which a contact mark extends beyond both surfaces

Segment = tuple[Point, Point]


class Setup(NamedTuple):
    """What one episode's factors and the constructor say about the bodies."""

    agent: Figure
    agent_angle: float
    block: Figure
    damping: float = 0.0
    center_of_gravity: Point | None = None  # of the block, in place of the shape's own
    dynamic_agent: bool = False  # whether an agent that is no disc is pushed around itself, as in published data
    bounded: bool = False  # whether the agent stops at the walls


@functools.cache
def free_motion() -> tuple[float, float]:
    """Of one control step: displacement per px between agent and target, and per px/s of velocity at its start."""

    def displacement(x: float, v: float, target: float) -> float:
        for _ in range(SUBSTEPS):
            v += (KP * (target - x) - KV * v) * DT
            x += v * DT
        return x

    return displacement(0.0, 0.0, 1.0), displacement(0.0, 1.0, 0.0)


def add_walls(space: pymunk.Space) -> list[pymunk.Segment]:
    """Add the four walls."""
    walls = [pymunk.Segment(space.static_body, start, end, WALL_RADIUS) for start, end in WALLS]
    for wall in walls:
        wall.color = (*WALL_COLOR, 255)
    space.add(*walls)
    return walls


def build_body(figure: Figure, kinematic: bool, mass: float = 1.0) -> tuple[pymunk.Body, list[pymunk.Shape]]:
    """A body with its shapes, at the origin and in no space yet. Parts are in the order of `SHAPES`."""
    if figure.is_disc:
        moment = pymunk.moment_for_circle(mass, 0, figure.radius)
        body = _new_body(kinematic, mass, moment)
        return body, [pymunk.Circle(body, figure.radius)]
    polygons = figure.polygons()
    # Published moments are for mass 1 per part.
    moment = mass * sum(pymunk.moment_for_poly(1, polygons[part]) for part in SHAPES[figure.name].moment_of)
    body = _new_body(kinematic, mass, moment)
    if not kinematic:
        body.center_of_gravity = figure.center_of_mass()
    return body, [pymunk.Poly(body, polygon) for polygon in polygons]


def _new_body(kinematic: bool, mass: float, moment: float) -> pymunk.Body:
    return pymunk.Body(body_type=pymunk.Body.KINEMATIC) if kinematic else pymunk.Body(mass, moment)


def rgba(color: str | Sequence[float]) -> tuple[int, int, int, int]:
    """A colour name ("RoyalBlue") or RGB(A) values as pymunk shapes hold it."""
    values = ImageColor.getrgb(color) if isinstance(color, str) else tuple(int(value) for value in color)
    if len(values) not in (3, 4):
        raise ContractError(f"color={color!r}: expected a name or 3 or 4 values")
    return (*values, 255)[:4]  # type: ignore[return-value]


class Simulation:
    """Walls, agent and block of one episode.

    Attributes:
        space, agent, block: the pymunk objects.
        agent_position, agent_velocity: px, px/s.
        block_pose: x and y of the body's origin, and its angle, not wrapped.
        contact_points: touched in all substeps of the last control step together.
    """

    def __init__(self, setup: Setup, count_contacts: bool = True):
        self.setup = setup
        self.space = space = pymunk.Space()
        space.damping = setup.damping
        add_walls(space)
        self._dynamic = setup.dynamic_agent and not setup.agent.is_disc
        self.agent, shapes = build_body(setup.agent, kinematic=not self._dynamic)
        self.agent.angle = setup.agent_angle
        space.add(self.agent, *shapes)
        self.block, shapes = build_body(setup.block, kinematic=False)
        if setup.center_of_gravity is not None:
            self.block.center_of_gravity = setup.center_of_gravity
        space.add(self.block, *shapes)
        if count_contacts:  # a call into Python per contact and substep
            space.on_collision(0, 0, post_solve=self._count)
        x0, x1, y0, y1 = setup.agent.extent(setup.agent_angle)
        self._low, self._high = (INNER[0] - x0, INNER[0] - y0), (INNER[1] - x1, INNER[1] - y1)
        self.contact_points = 0
        self._bind()

    def _bind(self) -> None:
        """Keep the engine's own objects at hand."""
        self._engine = self.space._space, self.agent._body, self.block._body

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in ("agent", "block", "_engine")}
        return {**state, "_agent_angle": self.agent.angle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        angle = state.pop("_agent_angle")
        vars(self).update(state)
        # A copy of the space has copies of the bodies, in the same order, but pymunk restores their positions before
        # their centres of mass, which moves them.
        self.agent, self.block = list(self.space.bodies)[:2]
        for body, (x, y, turn) in ((self.agent, (*self.agent_position, angle)), (self.block, self.block_pose)):
            body.angle = turn
            body.position = (x, y)
            self.space.reindex_shapes_for_body(body)
        self._bind()

    def place(self, agent: Point, velocity: Point, block: Pose) -> None:
        """Put both bodies somewhere; contacts of the past stay in the solver."""
        self.agent.position = agent
        self.agent.velocity = velocity
        # The angle first: it turns the body about its centre of mass, which moves the origin.
        self.block.angle = block[2]
        self.block.position = block[:2]
        self.space.reindex_shapes_for_body(self.agent)
        self.space.reindex_shapes_for_body(self.block)
        self.agent_position, self.agent_velocity, self.block_pose = agent, velocity, block
        self.contact_points = 0

    def arrive(self) -> None:
        """Give the solver the forces between bodies that touch, as if the agent had come here at its velocity.

        It starts from those of the substep before, which no state tells. Both bodies stay where they are.
        """
        (x, y), velocity = self.agent_position, self.agent_velocity
        self.agent.position = x - velocity[0] * DT, y - velocity[1] * DT
        self.space.step(DT)
        self.place((x, y), velocity, self.block_pose)

    def settle(self) -> None:
        """One substep without control, in which published resets push overlapping bodies apart."""
        self.space.step(DT)
        self._read(self.agent.position, self.agent.velocity)

    def step(self, target: Point) -> None:
        """One control step of ten substeps towards `target`."""
        self.contact_points = 0
        if self._dynamic:
            self._step_dynamic(target)
            return
        (target_x, target_y), bounded = target, self.setup.bounded
        (space, agent, _), set_velocity, advance = self._engine, lib.cpBodySetVelocity, lib.cpSpaceStep
        (x, y), (vx, vy) = self.agent_position, self.agent_velocity
        for _ in range(SUBSTEPS):
            vx += (KP * (target_x - x) - KV * vx) * DT
            vy += (KP * (target_y - y) - KV * vy) * DT
            if bounded:
                vx = _held(x, vx, self._low[0], self._high[0])
                vy = _held(y, vy, self._low[1], self._high[1])
            set_velocity(agent, (vx, vy))
            advance(space, DT)
            # A kinematic body moves by exactly this, which saves asking.
            x += vx * DT
            y += vy * DT
        self._read((x, y), (vx, vy))

    def _step_dynamic(self, target: Point) -> None:
        for _ in range(SUBSTEPS):
            (x, y), (vx, vy) = self.agent.position, self.agent.velocity
            vx += (KP * (target[0] - x) - KV * vx) * DT
            vy += (KP * (target[1] - y) - KV * vy) * DT
            self.agent.velocity = (vx, vy)
            self.space.step(DT)
        self._read(self.agent.position, self.agent.velocity)

    def _read(self, position: Any, velocity: Any) -> None:
        self.agent_position, self.agent_velocity = (position[0], position[1]), (velocity[0], velocity[1])
        block = self._engine[2]
        at = lib.cpBodyGetPosition(block)
        pose = at.x, at.y, lib.cpBodyGetAngle(block)
        if pose != self.block_pose:
            # The engine keeps the centre of mass. Computing it back from the reported origin here, as a restored row
            # will, makes both go on from the same bits.
            lib.cpBodySetPosition(block, pose[:2])
            self.block_pose = pose

    def _count(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: Any) -> None:
        self.contact_points += lib.cpArbiterGetCount(arbiter._arbiter)


def _held(x: float, velocity: float, low: float, high: float) -> float:
    """The velocity, cut so that the next substep does not leave [low, high], or leads no farther out of it."""
    return min(max(velocity, (min(low, x) - x) / DT), (max(high, x) - x) / DT)


class Probe:
    """Where agent and block of one episode touch each other and the walls, as a function of their poses."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._build()

    def _build(self) -> None:
        setup = self._setup
        self._space = pymunk.Space()
        add_walls(self._space)
        self._agent, shapes = build_body(setup.agent, kinematic=True)
        self._agent.angle = setup.agent_angle
        self._space.add(self._agent, *shapes)
        self._block, self._parts = build_body(setup.block, kinematic=False)
        self._agent_reach, self._block_reach = setup.agent.reach(), setup.block.reach()

    def __getstate__(self) -> dict[str, Any]:
        return {"_setup": self._setup}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build()

    def marks(self, agent: Point, block: Pose) -> list[Segment]:
        """One short line across the surfaces per contact point, px."""
        x, y, reach = block[0], block[1], self._block_reach
        at_wall = not INNER[0] + reach <= min(x, y) <= max(x, y) <= INNER[1] - reach
        if not at_wall and math.dist(agent, block[:2]) > self._agent_reach + reach:
            return []
        self._agent.position = agent
        self._space.reindex_shapes_for_body(self._agent)
        self._block.angle = block[2]
        self._block.position = block[:2]
        touched = [contact.contact_point_set for part in self._parts for contact in self._space.shape_query(part)]
        return [mark for contacts in touched for mark in _marks(contacts)]


def _marks(contacts: pymunk.ContactPointSet) -> list[Segment]:
    dx, dy = contacts.normal.x * MARK_REACH, contacts.normal.y * MARK_REACH
    return [
        ((point.point_a.x - dx, point.point_a.y - dy), (point.point_b.x + dx, point.point_b.y + dy))
        for point in contacts.points
    ]
