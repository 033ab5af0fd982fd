"""`swm/VoidRun-v0`: walk over a crumbling board; win by leaving nothing but the goal, and standing on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel import spaces
from stable_worldmodel.envs.drawing2d import draw_cells
from stable_worldmodel.envs.env2d import Env2D, column
from stable_worldmodel.envs.variation import FactorSpace, recorded_factors
from stable_worldmodel.errors import ContractError

DEFAULT_VARIATIONS = ("board.prob_gravel", "agent.position", "goal.position")
MAX_SIZE = 50
VOID, SAND, GRAVEL, GOAL = range(4)
_MOVES = ((0, -1), (0, 1), (1, 0), (-1, 0))  # left, right, down, up
_NATIVE_SIZE = 224


class Factors(FactorSpace):
    """The variation space, drawn in this order. Agent and goal lie on the board, on different cells."""

    def __init__(self) -> None:
        super().__init__(
            {
                "board": {
                    "size": spaces.Discrete(40, start=10, init_value=20),
                    "prob_gravel": spaces.Box(0.0, 1.0, (), np.float32, init_value=0.45),
                    "prob_break": spaces.Box(0.5, 1.0, (), np.float32, init_value=1.0),
                    "sand_color": spaces.RGBBox(init_value=(242, 218, 130)),
                    "gravel_color": spaces.RGBBox(init_value=(128, 128, 128)),
                    "void_color": spaces.RGBBox(init_value=(0, 0, 0)),
                },
                "agent": {
                    "color": spaces.RGBBox(init_value=(255, 0, 0)),
                    "position": _cell((10, 10), self._is_on_board),
                    "prob_break": spaces.Box(0.5, 1.0, (), np.float32, init_value=1.0),
                },
                "goal": {
                    "color": spaces.RGBBox(init_value=(52, 235, 201)),
                    "position": _cell((5, 5), self._is_another_cell),
                },
            }
        )

    def draw(self, seed: int | None, options: Mapping[str, Any]) -> None:
        """Draw the factors of an episode; a default start beyond a small board moves to the nearest cell on it."""
        self.draw_factors(seed, options, DEFAULT_VARIATIONS, {"agent.position": self._nearest_start})

    def colors(self) -> np.ndarray:
        """Colours of void, sand, gravel, goal and agent, uint8 (5, 3)."""
        names = ("board.void_color", "board.sand_color", "board.gravel_color", "goal.color", "agent.color")
        return np.stack([self.value_of(name) for name in names])

    def _nearest_start(self) -> np.ndarray:
        return np.minimum(self.value_of("agent.position"), self.value_of("board.size") - 1)

    def _is_on_board(self, position: np.ndarray) -> bool:
        return bool((position < self.value_of("board.size")).all())

    def _is_another_cell(self, position: np.ndarray) -> bool:
        return self._is_on_board(position) and not np.array_equal(position, self.value_of("agent.position"))


class VoidRunEnv(Env2D):
    """A board of `board.size` x `board.size` cells of sand and gravel. Positions are (row, column), row 0 at the top.

    Observation: `board` int8 (50, 50), 0 void, 1 sand, 2 gravel, 3 the goal's cell unless it is void, 0 beyond the
    board; `perception` int32 (2,), the agent's position. Action: 0 left, 1 right, 2 down, 3 up; the board's edge stops
    it. A sand cell that the agent leaves becomes void with probability `agent.prob_break`, gravel becomes sand; reward
    1 for a cell that became void, else 0. An episode terminates when all is void but the goal with the agent on it, and
    is truncated when the agent stands on a void cell.

    Info: `env_name`; `state`, `proprio`, the agent's position; `goal_state`, `goal_pos`; `newly_voided`, `in_void`,
    `is_success`; `steps`; `goal`, a picture of the empty board with the agent on the goal.

    Reset options: `variation`, `variation_values`; `board` (size, size) or (50, 50) as observed; `state` and
    `target_state`, positions.

    Args:
        seed: seed of the first reset that gets none.
        render_mode: "rgb_array", or None for an env that is never rendered.
        gravel_visits: 2, or 1 to make gravel behave like sand, as in the published env.
        init_value: mapping factor name -> default, for the life of the env.
    """

    def __init__(
        self,
        seed: int | None = None,
        render_mode: str | None = "rgb_array",
        gravel_visits: int = 2,
        init_value: Mapping[str, Any] | None = None,
    ):
        super().__init__(Factors(), render_mode, init_value, (_NATIVE_SIZE, _NATIVE_SIZE))
        if gravel_visits not in (1, 2):
            raise ContractError(f"gravel_visits={gravel_visits}: expected 1 or 2")
        self.observation_space = gym.spaces.Dict(
            {
                "board": gym.spaces.Box(VOID, GOAL, (MAX_SIZE, MAX_SIZE), np.int8),
                "perception": gym.spaces.MultiDiscrete([MAX_SIZE, MAX_SIZE], dtype=np.int32),
            }
        )
        self.action_space = gym.spaces.Discrete(len(_MOVES))
        self._gravel_visits = gravel_visits
        self._first_seed = seed

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        seed, self._first_seed = (self._first_seed if seed is None else seed), None
        super().reset(seed=seed)
        options = options or {}
        space = self.variation_space
        space.draw(seed, options)
        self._size = space.value_of("board.size")
        state, target = options.get("state"), options.get("target_state")
        self._agent = self._cell("state", space.value_of("agent.position") if state is None else state)
        self._target = self._cell("target_state", space.value_of("goal.position") if target is None else target)
        gravel = self.np_random.random((self._size, self._size)) < space.value_of("board.prob_gravel")
        self._board = np.where(gravel, GRAVEL, SAND).astype(np.int8)
        self._board[self._target] = SAND
        if options.get("board") is not None:
            self._board = self._checked_board(options["board"])
        self._begin()
        self._started = True
        self._prepare_picture()
        self._goal = self._draw_goal()
        return self._observation(), self._info()

    def _begin(self) -> None:
        self._steps = 0
        self._newly_voided = False

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move one cell. Raises ContractError unless `action` is 0..3."""
        self._require_episode()
        if not self.action_space.contains(action):
            raise ContractError(f"action={action!r}: expected an integer 0..{len(_MOVES) - 1}")
        left = self._agent
        row, column = (min(max(p + d, 0), self._size - 1) for p, d in zip(left, _MOVES[action], strict=True))
        self._agent = (row, column)
        self._newly_voided = self._agent != left and self._wear(left)
        self._steps += 1
        info = self._info()
        won = info["is_success"]
        return self._observation(), float(self._newly_voided), won, info["in_void"] and not won, info

    def _wear(self, cell: tuple[int, int]) -> bool:
        """What happens to a cell that is left; whether it became void."""
        if self._board[cell] == VOID or self.np_random.random() >= self.variation_space.value_of("agent.prob_break"):
            return False
        if self._board[cell] == GRAVEL and self._gravel_visits == 2:
            self._board[cell] = SAND
            return False
        self._board[cell] = VOID
        return True

    def _observation(self) -> dict[str, Any]:
        board = np.zeros((MAX_SIZE, MAX_SIZE), np.int8)
        board[: self._size, : self._size] = self._visible()
        return {"board": board, "perception": np.array(self._agent, np.int32)}

    def _visible(self) -> np.ndarray:
        board = self._board.copy()
        if board[self._target]:
            board[self._target] = GOAL
        return board

    def _info(self) -> dict[str, Any]:
        in_void = bool(self._board[self._agent] == VOID)
        left = int(np.count_nonzero(self._board))
        state, target = np.array(self._agent, np.int32), np.array(self._target, np.int32)
        return {
            "env_name": "VoidRun",
            "state": state,
            "proprio": state.copy(),
            "goal_state": target,
            "goal_pos": target.copy(),
            "newly_voided": self._newly_voided,
            "in_void": in_void,
            "is_success": self._agent == self._target and not in_void and left == 1,
            "steps": self._steps,
            "goal": self._goal.copy(),
        }

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal that suits the current episode, (row, column) int64; None draws from the env's own generator."""
        self._require_episode()
        factor = copy.copy(self.variation_space.factor("goal.position"))
        factor.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        return factor.sample(set_value=False)

    # ------------------------------------------------------------------ restoring
    def set_state(
        self, board: Any, player_pos: Any, validate: bool = True, render: bool = False
    ) -> dict[str, Any] | tuple[dict[str, Any], np.ndarray | None]:
        """Replace the board (size, size) and the agent's position, and restart the count of steps.

        Args:
            validate: refuse an agent that stands on a void cell.
            render: return (observation, picture) instead of the observation.
        """
        self._require_episode()
        cells = self._checked_board(board)
        position = self._cell("player_pos", player_pos)
        if validate and cells[position] == VOID:
            raise ContractError(f"player_pos={position}: expected a cell that is not void")
        self._board, self._agent = cells, position
        self._begin()
        return (self._observation(), self.render()) if render else self._observation()

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded board, start and goal, and every recorded `variation.*` factor.

        Args:
            init_row: column -> value at the start; `board`, and `state` or `perception`.
            goal_row: goal_<column> -> value at the goal; `goal_state` or `goal_perception`: where the goal shall be.

        Raises:
            MissingKeyError: a column is not there.
        """
        return {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "board": column(init_row, "board").reshape(MAX_SIZE, MAX_SIZE),
            "state": column(init_row, "state", "perception").reshape(-1),
            "target_state": column(goal_row, "goal_state", "goal_perception").reshape(-1),
        }

    def _checked_board(self, board: Any) -> np.ndarray:
        cells = np.asarray(board)
        if cells.shape == (MAX_SIZE, MAX_SIZE):
            cells = cells[: self._size, : self._size]
        if cells.shape != (self._size, self._size) or not np.isin(cells, (VOID, SAND, GRAVEL, GOAL)).all():
            raise ContractError(f"board of shape {cells.shape}: expected 0..{GOAL}, shape ({self._size}, {self._size})")
        return np.where(cells == GOAL, SAND, cells).astype(np.int8)

    def _cell(self, name: str, value: Any) -> tuple[int, int]:
        cell = np.asarray(value)
        if cell.shape != (2,) or not ((cell == np.floor(cell)) & (cell >= 0) & (cell < self._size)).all():
            raise ContractError(f"{name}={value!r}: expected row and column in 0..{self._size - 1}")
        return int(cell[0]), int(cell[1])

    # ------------------------------------------------------------------ picture
    def _prepare_picture(self) -> None:
        self._colors = self.variation_space.colors()

    def _draw_goal(self) -> np.ndarray:
        empty = np.zeros_like(self._board)
        empty[self._target] = GOAL + 1
        return draw_cells(self._colors[empty], self._shape)

    def _picture(self) -> np.ndarray:
        cells = self._visible()
        if cells[self._agent]:
            cells[self._agent] = GOAL + 1
        return draw_cells(self._colors[cells], self._shape)


def _cell(default: tuple[int, int], allowed: Any) -> spaces.MultiDiscrete:
    return spaces.MultiDiscrete([MAX_SIZE, MAX_SIZE], init_value=default, constrain_fn=allowed)
