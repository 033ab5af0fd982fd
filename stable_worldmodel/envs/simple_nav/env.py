"""`swm/SimpleNavigation-v0`: turn and walk through a perfect maze to a goal square."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.batch2d import Batch, Moved, Rows, VectorEnv2D
from stable_worldmodel.envs.drawing2d import Painter, draw_cells
from stable_worldmodel.envs.env2d import Env2D, column
from stable_worldmodel.envs.simple_nav.maze import STEPS, maze_of
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("maze", "agent", "goal")
TURN_LEFT, TURN_RIGHT, FORWARD = range(3)
_WALL, _FLOOR, _LINE = (100, 100, 100), (0, 0, 0), (50, 50, 50)
_AGENT, _GOAL = (255, 0, 0), (0, 255, 0)
_LINE_WIDTH = 0.03  # squares
_ARROW = ((0.12, 0.19), (0.87, 0.5), (0.12, 0.81))  # within a square, facing right
_NATIVE_SIZE = 224
_STEPS = np.array(STEPS)


class Factors(FactorSpace):
    """The variation space, drawn in this order. Agent and goal stand on floor, on different squares."""

    def __init__(self, size: int):
        self._size = size
        super().__init__(
            {
                "maze": {
                    "p_horizontal": _probability(),
                    "p_vertical": _probability(),
                    "seed": spaces.Discrete(2**31 - 1, init_value=0),
                },
                "agent": {
                    "position": self._square((1, 1), self._is_floor),
                    "direction": spaces.Discrete(4, init_value=0),
                },
                "goal": {
                    "position": self._square((max(1, size - 4),) * 2, self._is_another_floor),
                    "agent": spaces.Dict({"direction": spaces.Discrete(4, init_value=0)}),
                },
            }
        )

    def maze(self) -> np.ndarray:
        """The floor that the current values describe, bool (size, size), read-only."""
        p_horizontal, p_vertical = (self.value_of(f"maze.{name}").item() for name in ("p_horizontal", "p_vertical"))
        return maze_of(self._size, p_horizontal, p_vertical, self.value_of("maze.seed"))

    def _square(self, default: tuple[int, int], allowed: Any) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self._size - 2] * 2, start=[1, 1], init_value=default, constrain_fn=allowed)

    def _is_floor(self, position: np.ndarray) -> bool:
        x, y = position.tolist()
        return bool(self.maze()[y, x])

    def _is_another_floor(self, position: np.ndarray) -> bool:
        return self._is_floor(position) and not np.array_equal(position, self.value_of("agent.position"))


class SimpleNavigationEnv(Env2D):
    """A maze of `size` x `size` squares, its border included; x right, y down, from 0.

    Observation: `state` int64 (5,), agent x, y and direction (0 right, 1 down, 2 left, 3 up), goal x, y; `proprio`, the
    first three. Action: 0 turn left, 1 turn right, 2 forward; walls stop the agent. The reward is minus the L1 distance
    to the goal. An episode terminates on the goal square; it is never truncated.

    Info: `env_name`; `pos_agent`, `pos_goal` (2,), `dir_agent`; `goal_state` (5,), `goal_proprio` (3,): the agent on
    the goal square, facing `goal.agent.direction`; `is_success`; `goal`, its picture.

    Reset options: `variation`, `variation_values`; `state` (5,) or (3,), which overrides the factors of the agent and,
    if long, of the goal; `target_state` (3,) or (5,): where the agent of the goal stands and faces.

    Args:
        size: squares per side, odd, at least 5.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.
    """

    def __init__(
        self, size: int = 9, render_mode: str | None = "rgb_array", init_value: Mapping[str, Any] | None = None
    ):
        if size < 5 or size % 2 == 0:
            raise ContractError(f"size={size}: expected an odd number >= 5")
        super().__init__(Factors(size), render_mode, init_value, (_NATIVE_SIZE, _NATIVE_SIZE))
        self._size = size
        self._agent = np.zeros(3, np.int64)  # written in place: a `Batch` puts a view of its own here
        inner = size - 2
        self.observation_space = gym.spaces.Dict(
            {
                "state": gym.spaces.MultiDiscrete([inner, inner, 4, inner, inner], start=[1, 1, 0, 1, 1]),
                "proprio": gym.spaces.MultiDiscrete([inner, inner, 4], start=[1, 1, 0]),
            }
        )
        self.action_space = gym.spaces.Discrete(3)

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        space = self.variation_space
        space.draw_factors(seed, options, DEFAULT_VARIATIONS)
        self._floor = space.maze()
        self._pose = *space.value_of("agent.position").tolist(), space.value_of("agent.direction")
        self._goal_pose = (*space.value_of("goal.position").tolist(), space.factor("goal.agent")["direction"].value)
        if options.get("state") is not None:
            self._take_state(options["state"])
        if options.get("target_state") is not None:
            self._take_goal("target_state", options["target_state"])
        self._started = self._edited = True
        self._prepare_picture()
        self._goal = self._draw_goal()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Turn or walk. Raises ContractError unless `action` is 0, 1 or 2."""
        self._require_episode()
        if not self.action_space.contains(action):
            raise ContractError(f"action={action!r}: expected 0 (left), 1 (right) or 2 (forward)")
        x, y, direction = self._pose
        if action == FORWARD:
            dx, dy = STEPS[direction]
            if self._floor[y + dy, x + dx]:
                x, y = x + dx, y + dy
        else:
            direction = (direction + (1 if action == TURN_RIGHT else -1)) % 4
        self._pose = (x, y, direction)
        success, distance = self.eval_state(self._goal_pose, self._pose)
        return self._observation(), float(-distance), success, False, self._info()

    @staticmethod
    def batched(envs: Sequence[SimpleNavigationEnv]) -> _NavigationBatch:
        """These envs as one program."""
        return _NavigationBatch(envs)

    @property
    def _pose(self) -> tuple[int, int, int]:
        return tuple(self._agent.tolist())  # type: ignore[return-value]

    @_pose.setter
    def _pose(self, pose: tuple[int, int, int]) -> None:
        self._agent[:] = pose

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state (5,) that suits the current episode; None draws from the env's own generator."""
        self._require_episode()
        position = copy.copy(self.variation_space.factor("goal.position"))
        position.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        square = position.sample(set_value=False)
        return np.array([*square, position.np_random.integers(4), *square])

    def eval_state(self, goal_state: Any, cur_state: Any) -> tuple[bool, int]:
        """Whether the agent of `cur_state` stands where that of `goal_state` does, and their L1 distance."""
        distance = abs(int(goal_state[0]) - int(cur_state[0])) + abs(int(goal_state[1]) - int(cur_state[1]))
        return distance == 0, distance

    def layout(self) -> np.ndarray:
        """The current episode's maze: bool (size, size), indexed [y, x], True for floor; read-only."""
        self._require_episode()
        return self._floor

    def _observation(self) -> dict[str, Any]:
        return {"state": np.array([*self._pose, *self._goal_pose[:2]]), "proprio": np.array(self._pose)}

    def _info(self) -> dict[str, Any]:
        return {
            "env_name": "SimpleNavigation",
            "pos_agent": np.array(self._pose[:2]),
            "dir_agent": self._pose[2],
            "pos_goal": np.array(self._goal_pose[:2]),
            "goal_state": np.array([*self._goal_pose, *self._goal_pose[:2]]),
            "goal_proprio": np.array(self._goal_pose),
            "is_success": self.eval_state(self._goal_pose, self._pose)[0],
            "goal": self._goal.copy(),
        }

    # ------------------------------------------------------------------ restoring
    def _set_state(self, state: Any) -> None:
        """Put the agent and, if `state` has five numbers, the goal where it says; draw the goal again."""
        self._require_episode()
        self._take_state(state)
        self._goal = self._draw_goal()
        self._edited = True

    def _set_goal_state(self, goal_state: Any) -> None:
        """Put the goal where the agent of `goal_state`, (3,) or (5,), stands, and draw it again.

        Also writes the factors of the goal, unless `goal_state` breaks their constraint.
        """
        self._require_episode()
        self._take_goal("goal_state", goal_state)
        self._goal = self._draw_goal()
        self._edited = True

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded start, goal and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `state` (5,).
            goal_row: goal_<column> -> value at the goal; `goal_state` (5,): the goal is where its agent stands.

        Raises:
            MissingKeyError: a column is not there.
        """
        return {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": column(init_row, "state").reshape(-1),
            "target_state": column(goal_row, "goal_state").reshape(-1),
        }

    def _take_state(self, state: Any) -> None:
        values = self._numbers("state", state)
        if len(values) == 5:
            self._take_goal("state", (*values[3:], self._goal_pose[2]))
        self._pose = self._checked_pose("state", values[:3])

    def _take_goal(self, name: str, goal_state: Any) -> None:
        self._goal_pose = pose = self._checked_pose(name, self._numbers(name, goal_state)[:3])
        factor = self.variation_space.factor("goal.position")
        if factor.contains(np.array(pose[:2])):
            factor.set_value(pose[:2])
            self.variation_space.set_value({"goal.agent.direction": pose[2]})

    def _numbers(self, name: str, value: Any) -> tuple[int, ...]:
        numbers = np.asarray(value)
        if numbers.shape not in ((3,), (5,)) or not (numbers == np.floor(numbers)).all():
            raise ContractError(f"{name}={value!r}: expected 3 or 5 integers")
        return tuple(int(number) for number in numbers)

    def _checked_pose(self, name: str, pose: tuple[int, ...]) -> tuple[int, int, int]:
        x, y, direction = pose
        if not (0 <= x < self._size and 0 <= y < self._size and self._floor[y, x] and 0 <= direction < 4):
            raise ContractError(f"{name}={pose}: expected x and y of a square with floor, and a direction 0..3")
        return x, y, direction

    # ------------------------------------------------------------------ picture
    def _prepare_picture(self) -> None:
        if not self._is_new_backdrop(self._floor.tobytes()):
            return
        self._maze_picture = draw_cells(np.where(self._floor[..., None], _FLOOR, _WALL), self._shape)
        painter = self._painter(self._maze_picture)
        for line in range(self._size + 1):
            stripe = (line - _LINE_WIDTH / 2, line + _LINE_WIDTH / 2)
            painter.rectangle(stripe, (0, self._size), _LINE)
            painter.rectangle((0, self._size), stripe, _LINE)

    def _draw_goal(self) -> np.ndarray:
        x, y, _ = self._goal_pose
        self._backdrop = self._maze_picture.copy()
        margin = _LINE_WIDTH / 2
        self._painter(self._backdrop).rectangle((x + margin, x + 1 - margin), (y + margin, y + 1 - margin), _GOAL)
        return self._with_agent(self._goal_pose)

    def _picture(self, out: np.ndarray | None = None) -> np.ndarray:
        return self._with_agent(self._pose, out)

    def _with_agent(self, pose: tuple[int, int, int], out: np.ndarray | None = None) -> np.ndarray:
        x, y, direction = pose
        dx, dy = STEPS[direction]
        picture = self._canvas(out)
        # (dx, dy) is where the arrow's x axis points, (-dy, dx) where its y axis does.
        arrow = [
            (x + 0.5 + (u - 0.5) * dx - (v - 0.5) * dy, y + 0.5 + (u - 0.5) * dy + (v - 0.5) * dx) for u, v in _ARROW
        ]
        self._painter(picture).polygon(arrow, _AGENT)
        return picture

    def _painter(self, picture: np.ndarray) -> Painter:
        return Painter(picture, 0, 0, self._size, self._size)


class _NavigationBatch(Batch):
    changing = ("pos_agent", "dir_agent", "is_success")

    def __init__(self, envs: Sequence[Any]):
        super().__init__(envs)
        self._agents = self._share_agents()
        size = envs[0]._size
        self._floors = np.zeros((len(envs), size, size), bool)
        self._goals = np.zeros((len(envs), 2), np.int64)
        self._rows = np.arange(len(envs))

    def _take_rules(self, i: int, env: Any) -> None:
        self._floors[i], self._goals[i] = env.layout(), env._goal_pose[:2]

    def _advance(self, actions: np.ndarray, rows: Rows) -> Moved:
        agents = self._agents
        values = np.asarray(actions)
        legal = np.isin(values[rows], (TURN_LEFT, TURN_RIGHT, FORWARD))
        if values.shape != (len(agents),) or not legal.all():
            raise ContractError(f"actions={values}: expected 0 (left), 1 (right) or 2 (forward), one per env")
        squares, directions = agents[:, :2], agents[:, 2]
        ahead = squares + _STEPS[directions]
        walks = (values == FORWARD) & self._floors[self._rows, ahead[:, 1], ahead[:, 0]]
        turns = (values == TURN_RIGHT).astype(np.int64) - (values == TURN_LEFT)
        moved = np.column_stack((np.where(walks[:, None], ahead, squares), (directions + turns) % 4))
        agents[rows] = moved[rows]
        distance = np.abs(agents[:, :2] - self._goals).sum(axis=1)
        success = distance == 0
        self.observations["state"][rows, :3] = self.observations["proprio"][rows] = agents[rows]
        self.infos |= {"pos_agent": agents[:, :2].copy(), "dir_agent": agents[:, 2].copy(), "is_success": success}
        return Moved((-distance).astype(np.float64), success, np.zeros(len(agents), bool))


class SimpleNavigationVectorEnv(VectorEnv2D):
    """Several SimpleNavigation envs as one."""

    env_class = SimpleNavigationEnv


def _probability() -> spaces.Box:
    return spaces.Box(0.0, 1.0, (), np.float32, init_value=0.5, constrain_fn=_is_open)


def _is_open(probability: np.ndarray) -> bool:
    return bool(0.0 < probability < 1.0)
