"""Planning pushes: where to touch the block, which way to push, how to get there.

The agent may stand at `nodes`, places just off the block's outline that are fixed to the block. Between them it walks
along a graph of straight ways that clear the block. From each node some short pushes are simulated; the one that
brings the block closest to its goal, counting the way to its start, is carried out. Then everything is planned again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import dijkstra

from stable_worldmodel.envs.pusht.physics import DT, INNER, Setup, Simulation, free_motion
from stable_worldmodel.envs.pusht.shapes import SHAPES, Figure, Pose

REACH = 100.0  # px per axis that a target may be away
GAP = 6.0  # px between the agent at a node and the block
SPACING = 14.0  # px between nodes along an edge
TURNS = (-0.6, 0.0, 0.6)  # rad between the outline's normal and the direction of a push
STRIDES = (12.0, 30.0)  # px per control step
FINE_STRIDES = (4.0, 10.0, 24.0)  # the same near the goal
FINE = (40.0, 0.6)  # px and rad from the goal that are near
TURN_WEIGHTS = (1.0, 3.0, 10.0)  # of the angle, tried in turn: sometimes the block must leave its place to be turned
LEAST_MOVE = 1.0  # px by which a push must move the block, and
LEAST_GAIN = 0.5  # px that a push must bring
MAX_PUSH = 6  # control steps
NEAR_TURNS = 12  # directions tried from where the agent is
STEP_COST = 0.4  # px of progress that a control step must be worth
WALK = 33.0  # px per control step of walking
DONE = (8.0, 0.16)  # px and rad from the goal at which the block is left alone
GOOD = (15.0, 0.28)  # the same when no push helps
FAR = (-5000.0, -5000.0)  # px
SAMPLES = 14  # points of a way that are tested


class Push(NamedTuple):
    """Go along `way`, then `steps` strides of `stride` px (a vector)."""

    way: list[np.ndarray]
    stride: np.ndarray
    steps: int


class Pusher:
    """Plans for one env.

    Args:
        setup: the env's bodies.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self._simulation = Simulation(setup, count_contacts=False)
        self._outline = Outline(setup.block, setup.agent.reach())
        self._arm = 1.2 * setup.block.reach() / 2  # px that a radian is worth
        self._push: Push | None = None
        self._waits = 0
        x0, x1, y0, y1 = setup.agent.extent(setup.agent_angle)
        self._low, self._high = np.array([INNER[0] - x0, INNER[0] - y0]), np.array([INNER[1] - x1, INNER[1] - y1])

    def target(self, agent: np.ndarray, velocity: np.ndarray, block: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Where to aim now, px, at most 100 px per axis away.

        Args:
            agent, velocity: (2,) px and px/s.
            block: (3,) x, y, angle.
            goal: (7,) goal state.
        """
        pose: Pose = tuple(block.tolist())
        place = self._next_place(agent, pose, goal)
        return self._aim(agent, velocity, place)

    def _next_place(self, agent: np.ndarray, block: Pose, goal: np.ndarray) -> np.ndarray:
        offset, turn = self._errors(block, goal)
        if self._push is None or (offset < DONE[0] and turn < DONE[1]):
            self._push = None
            if offset < DONE[0] and turn < DONE[1]:
                return self._approach(agent, block, goal[:2])
            self._push = self._plan(agent, block, goal)
            if self._push is None:
                return self._approach(agent, block, goal[:2])
        way, stride, steps = self._push
        while way and np.linalg.norm(agent - way[0]) < (3.0 if len(way) == 1 else 9.0):
            way.pop(0)
        if way:
            self._waits += 1
            if self._waits > 40:  # something is in the way
                self._push, self._waits = None, 0
            return way[0]
        self._waits = 0
        self._push = Push(way, stride, steps - 1) if steps > 1 else None
        return agent + stride

    def _approach(self, agent: np.ndarray, block: Pose, place: np.ndarray) -> np.ndarray:
        """The next place on the way to `place`."""
        way = self._outline.way(agent, place, block, self._low, self._high)
        for stop in way[:-1]:
            if np.linalg.norm(agent - stop) > 9.0:
                return stop
        return place

    def _errors(self, block: Pose, goal: np.ndarray) -> tuple[float, float]:
        """How far the block's origin is from its goal, px, and its angle, rad."""
        period = self.setup.block.period
        turn = abs(goal[4] - block[2]) % period
        return math.hypot(goal[2] - block[0], goal[3] - block[1]), min(turn, period - turn)

    def _plan(self, agent: np.ndarray, block: Pose, goal: np.ndarray) -> Push | None:
        """The best push, or None if the block is good enough where no push improves it."""
        outline = self._outline
        nodes = outline.placed(block)
        free = np.logical_and(nodes >= self._low, nodes <= self._high).all(axis=1)
        lengths, before = outline.distances(agent, block, free)
        now = self._errors(block, goal)
        strides = FINE_STRIDES if now[0] < FINE[0] and now[1] < FINE[1] else STRIDES
        pushes: list[tuple[np.ndarray, int, int | None]] = []
        outcomes = []  # offset, turn, control steps it takes
        for start, length, direction, node in self._starts(agent, block, nodes, lengths):
            for size in strides:
                for steps, errors in self._outcomes(start, size * direction, block, goal):
                    pushes.append((size * direction, steps, node))
                    outcomes.append((*errors, steps + length / WALK))
        if not pushes:
            return None
        offset, turn, duration = np.array(outcomes).T
        for weight in TURN_WEIGHTS:
            scores = offset + weight * self._arm * turn + STEP_COST * duration
            best = int(scores.argmin())
            if scores[best] < now[0] + weight * self._arm * now[1] - LEAST_GAIN:
                break
        else:
            if now[0] < GOOD[0] and now[1] < GOOD[1]:
                return None
        stride, steps, node = pushes[best]
        way = [] if node is None else [nodes[i] for i in outline.path(before, node)]
        return Push(way, stride, steps)

    def _starts(self, agent, block, nodes, lengths):
        """(place, length of the way to it, direction, node) of every push to be tried."""
        angle = block[2]
        for node in np.flatnonzero(np.isfinite(lengths[: self._outline.stands])):
            for turn in TURNS:
                heading = angle + self._outline.headings[node] + turn
                yield nodes[node], lengths[node], np.array([math.cos(heading), math.sin(heading)]), int(node)
        if self._outline.clearance(agent, block) < 2 * GAP:
            for k in range(NEAR_TURNS):
                heading = 2 * math.pi * k / NEAR_TURNS
                yield agent, 0.0, np.array([math.cos(heading), math.sin(heading)]), None

    def _outcomes(self, start: np.ndarray, stride: np.ndarray, block: Pose, goal: np.ndarray):
        """(steps, errors) after every step of a push that has moved the block."""
        simulation = self._simulation
        # Impulses of the push before would move the block: let the solver forget them.
        simulation.place(FAR, (0.0, 0.0), block)
        for _ in range(int(simulation.space.collision_persistence) + 1):
            simulation.space.step(DT)
        simulation.place(tuple(start.tolist()), (0.0, 0.0), block)
        simulation.block.velocity, simulation.block.angular_velocity = (0.0, 0.0), 0.0
        for steps in range(1, MAX_PUSH + 1):
            agent = np.array(simulation.agent_position)
            if not ((agent >= self._low) & (agent <= self._high)).all():
                return
            aim = self._aim(agent, np.array(simulation.agent_velocity), agent + stride)
            simulation.step(tuple(aim.tolist()))
            x, y, angle = simulation.block_pose
            # Less than that is what the walls do to a block that touches them.
            if math.hypot(x - block[0], y - block[1]) + self._arm * abs(angle - block[2]) > LEAST_MOVE:
                yield steps, self._errors(simulation.block_pose, goal)

    @staticmethod
    def _aim(agent: np.ndarray, velocity: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The target that has the agent at `place` after one step, or on the straight way there."""
        gain, drift = free_motion()
        step = (place - agent - drift * velocity) / gain
        return agent + step * min(1.0, REACH / max(np.abs(step).max(), 1e-9))


class Outline:
    """Places around a block at which an agent touches it almost, and the ways between them.

    Attributes:
        nodes: (n, 2) in local px; the first `stands` of them lie off an edge, the others off a corner.
        headings: (stands,) local direction from the place to the block, rad.
    """

    def __init__(self, block: Figure, radius: float):
        self._boxes = np.array(SHAPES[block.name].boxes).reshape(-1, 2, 2) * block.scale  # (boxes, xy, from-to)
        self._radius = radius
        stands, headings, corners = [], [], []
        for (x0, x1), (y0, y1) in self._boxes:
            for start, end, normal in (
                ((x0, y0), (x1, y0), (0.0, -1.0)),
                ((x0, y1), (x1, y1), (0.0, 1.0)),
                ((x0, y0), (x0, y1), (-1.0, 0.0)),
                ((x1, y0), (x1, y1), (1.0, 0.0)),
            ):
                length = math.dist(start, end)
                count = max(2, round(length / SPACING))
                for k in range(count):
                    point = np.array(start) + np.subtract(end, start) * (k + 0.5) / count
                    stands.append(point + np.array(normal) * (radius + GAP))
                    headings.append(math.atan2(-normal[1], -normal[0]))
            reach = radius + GAP
            corners += [
                (x + sx * reach, y + sy * reach) for x, sx in ((x0, -1), (x1, 1)) for y, sy in ((y0, -1), (y1, 1))
            ]
        places, outer = np.array(stands), np.array(corners)
        clear = self._gap(places) > GAP / 2
        self.headings = np.array(headings)[clear]
        self.stands = int(clear.sum())
        self.nodes = np.concatenate((places[clear], outer[self._gap(outer) > GAP / 2]))
        self._ways = self._lengths(self.nodes[:, None], self.nodes[None])

    def placed(self, block: Pose) -> np.ndarray:
        """The nodes in arena px, (n, 2)."""
        return self.nodes @ _rotation(block[2]).T + block[:2]

    def clearance(self, agent: np.ndarray, block: Pose) -> float:
        """Between agent and block, px."""
        return float(self._gap(self._local(agent, block)))

    def distances(self, agent: np.ndarray, block: Pose, free: Any) -> tuple[np.ndarray, np.ndarray]:
        """Lengths (n,) of the shortest ways from the agent to all nodes, and the node before each (n; the agent: n)."""
        count = len(self.nodes)
        ways = np.full((count + 1, count + 1), np.inf)
        ways[:count, :count] = np.where(free[:, None] & free, self._ways, np.inf)
        ways[count, :count] = np.where(free, self._from(self._local(agent, block)), np.inf)
        lengths, before = dijkstra(np.where(np.isfinite(ways), ways, 0.0), indices=count, return_predecessors=True)
        return lengths[:count], before

    def path(self, before: np.ndarray, node: int) -> list[int]:
        """The nodes from the agent to `node`."""
        nodes = []
        while node != len(self.nodes) and node >= 0:
            nodes.append(node)
            node = int(before[node])
        return nodes[::-1]

    def way(self, agent: np.ndarray, place: np.ndarray, block: Pose, low, high) -> list[np.ndarray]:
        """Stops from the agent to `place`, which is the last; straight there if nothing leads around the block."""
        start, end = self._local(agent, block), self._local(place, block)
        if np.isfinite(self._lengths(start, end)):
            return [place]
        nodes = self.placed(block)
        free = ((nodes >= low) & (nodes <= high)).all(axis=1)
        lengths, before = self.distances(agent, block, free)
        total = lengths + self._from(end)
        best = int(total.argmin())
        return [*(nodes[i] for i in self.path(before, best)), place] if np.isfinite(total[best]) else [place]

    def _from(self, point: np.ndarray) -> np.ndarray:
        """Lengths (n,) of the straight ways from a point to the nodes; one that touches the block may leave it."""
        lengths = self._lengths(point, self.nodes)
        if self._gap(point) < GAP / 2:
            near = np.linalg.norm(self.nodes - point, axis=1)
            lengths = np.where(near < near.min() + GAP, near, lengths)
        return lengths

    def _lengths(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Lengths of straight ways (..., 2) to (..., 2), infinite where the agent would touch the block."""
        fractions = np.linspace(0.0, 1.0, SAMPLES)[:, None]
        points = start[..., None, :] * (1 - fractions) + end[..., None, :] * fractions
        clear = self._gap(points).min(axis=-1) > GAP / 3
        return np.where(clear, np.linalg.norm(end - start, axis=-1), np.inf)

    def _gap(self, points: np.ndarray) -> np.ndarray:
        """Distance (...) between the block and an agent at `points` (..., 2), local px."""
        middle, half = self._boxes.mean(axis=2), (self._boxes[..., 1] - self._boxes[..., 0]) / 2
        outside = np.abs(points[..., None, :] - middle) - half  # (..., boxes, 2)
        distance = np.linalg.norm(np.maximum(outside, 0.0), axis=-1) + np.minimum(outside.max(axis=-1), 0.0)
        return distance.min(axis=-1) - self._radius

    @staticmethod
    def _local(point: np.ndarray, block: Pose) -> np.ndarray:
        return (np.asarray(point) - block[:2]) @ _rotation(block[2])


def _rotation(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
