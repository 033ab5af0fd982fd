"""`swm/PushT-v1`: push a block to a pose with a round tool. Quasi-static contact, simulated by pymunk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.pusht.batch import PushTBatch
from stable_worldmodel.envs.pusht.bodies import BodyBuilders
from stable_worldmodel.envs.pusht.drawing import Cross, Painter
from stable_worldmodel.envs.pusht.factors import Factors
from stable_worldmodel.envs.pusht.near_block import NearBlock
from stable_worldmodel.envs.pusht.physics import ACTION_SCALE, SIZE, SUBSTEPS, Probe, Setup, Simulation
from stable_worldmodel.envs.pusht.shapes import NAMES, Point, Pose
from stable_worldmodel.envs.pusht.window import Window
from stable_worldmodel.envs.quantizer import Quantizable
from stable_worldmodel.envs.variation import recorded_factors
from stable_worldmodel.errors import ContractError, MissingKeyError

POSITION_TOLERANCE = 20.0  # px, of agent and block positions together
ANGLE_TOLERANCE = math.pi / 9
COMPAT = (None, "public")
_TURN = 2 * math.pi
_TOP_SPEED = 4 * SIZE  # px/s, above what a target at the other side of the arena leads to


class PushT(BodyBuilders, gym.Env):
    """A block in a walled arena of 512x512 px (origin top left, y down) and an agent that pushes it.

    Observation, float64: `state` (7,): agent xy, block xy, block angle in [0, 2 pi), agent velocity; `proprio` (4,):
    agent xy and velocity. The block's xy is its origin, see `shapes.py`. Positions leave the declared space when the
    agent leaves the picture, which only `bounded` prevents.
    Action: where the agent is drawn to for 0.1 s, in units of 100 px relative to where it is (`relative`), else px.
    The reward is minus the distance between state and goal state, all seven entries. An episode terminates when
    `eval_state` says success; it is never truncated.

    Info: `env_name`; `pos_agent`, `vel_agent`; `block_pose` (x, y, angle not wrapped); `goal_state` (7,),
    `goal_proprio` (4,); `goal`, a picture of the goal state, drawn once per episode; `goal_pose`, the pose of the
    overlay, which has nothing to do with the goal state; `n_contacts`, contact points per substep, rounded up;
    `is_success`.

    Reset options: `variation`, `variation_values`; `state` and `goal_state`, (7,), or (5,) for no velocity.

    Args:
        block_cog: centre of gravity of the block in local px, in place of the shape's own.
        damping: of the space; 0 (also None) makes the block stop where it is no longer pushed.
        render_action: mark where the last action led with a red cross.
        resolution: side of the pictures; `render_shape` may be set to anything else.
        with_target: show the overlay at `goal.position`, unless the factor `rendering.render_goal` is 0.
        render_mode: "rgb_array", "human" (also shows a window), or None for an env that is never rendered.
        relative: whether actions are relative.
        init_value: mapping factor name -> default, for the life of the env.
        bounded: the agent stops at the walls instead of passing through them.
        clip_action: cut actions to the action space; otherwise they go on linearly beyond it.
        contact_marks: draw a short red line where bodies touch, as published pictures have it.
        compat: None, or "public" for what published data was recorded with: goals and starts that overlap, are pushed
            apart by one substep and leave traces in the solver; agents that are no discs are pushed around; velocities
            are drawn non-negative; absolute actions are declared in [-1, 1]; the cross is where 96 px pictures need it.

    Attributes:
        render_shape: (H, W) of `render()` and of `goal`; may be set at any time.
        space, agent, block: the pymunk objects of the episode.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array"],
        "render_fps": 10,
        "video.frames_per_second": 10,
    }
    reward_range = (-math.inf, 0.0)
    shapes = NAMES
    quantizer: Quantizable | None = None

    def __init__(
        self,
        block_cog: Point | None = None,
        damping: float | None = None,
        render_action: bool = False,
        resolution: int = 224,
        with_target: bool = True,
        render_mode: str | None = "rgb_array",
        relative: bool = True,
        init_value: Mapping[str, Any] | None = None,
        *,
        bounded: bool = False,
        clip_action: bool = False,
        contact_marks: bool = True,
        compat: str | None = None,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array', 'human' or None")
        if compat not in COMPAT:
            raise ContractError(f"compat={compat!r}: expected one of {COMPAT}")
        self.render_mode, self.relative, self.compat = render_mode, relative, compat
        self._public = compat == "public"
        self._block_cog, self._damping, self._bounded, self._clip = block_cog, damping or 0.0, bounded, clip_action
        self._render_action, self._with_target, self._contact_marks = render_action, with_target, contact_marks
        unit = relative or self._public
        speed = SIZE if unit else _TOP_SPEED
        low, high = np.array([0, 0, -speed, -speed], np.float64), np.array([SIZE, SIZE, speed, speed], np.float64)
        state_low, state_high = np.insert(low, 2, [0, 0, 0]), np.insert(high, 2, [SIZE, SIZE, _TURN])
        self.observation_space = gym.spaces.Dict(
            {
                "proprio": gym.spaces.Box(low, high, dtype=np.float64),
                "state": gym.spaces.Box(state_low, state_high, dtype=np.float64),
            }
        )
        self.action_space: gym.Space = gym.spaces.Box(-1.0 if unit else 0.0, 1.0 if unit else SIZE, (2,), np.float32)
        self.variation_space = Factors(self._public)
        if init_value:
            self.variation_space.set_init_value(init_value)
        self._window: Window | None = None
        self._painter: Painter | None = None
        self._target: Point | None = None
        self._simulation: Simulation | None = None
        self.render_shape = (resolution, resolution)

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        factors = self.variation_space
        factors.draw(seed, options)
        given = {name: _state(name, options[name]) for name in ("state", "goal_state") if options.get(name) is not None}
        self._setup = Setup(
            agent=factors.agent(),
            agent_angle=factors.agent_angle(),
            block=factors.block(),
            damping=self._damping,
            center_of_gravity=self._block_cog,
            dynamic_agent=self._public,
            bounded=self._bounded,
        )
        self._period = self._setup.block.period
        self._probe = Probe(self._setup) if self._contact_marks else None
        self._painter = None
        self._target = None
        self._simulation = Simulation(self._setup)
        goal = given["goal_state"] if "goal_state" in given else factors.draw_goal(self.np_random)
        if self._public:
            self._place(goal)
        self._set_goal_state(goal)
        self._place(given["state"] if "state" in given else factors.start_state())
        info = self._info()
        return self._observation(), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move for 0.1 s. Raises ContractError unless `action` is two finite numbers."""
        self._move(action)
        info = self._info()
        return self._observation(), -self._distance, info["is_success"], False, info

    def _move(self, action: Any) -> None:
        simulation = self.simulation()
        values = np.asarray(action)
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        if values.shape != (2,):
            raise ContractError(f"action has shape {values.shape}: expected (2,)")
        x, y = values.tolist()
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ContractError(f"action={values}: expected finite numbers")
        if self._clip:
            low, high = self._action_bounds()
            x, y = min(max(x, low), high), min(max(y, low), high)
        if self.relative:
            at = simulation.agent_position
            x, y = at[0] + ACTION_SCALE * x, at[1] + ACTION_SCALE * y
        self._target = (x, y)
        simulation.step(self._target)

    @staticmethod
    def batched(envs: Sequence[PushT]) -> PushTBatch:
        """These envs as one program, for pools: their simulations are stepped one after the other."""
        return PushTBatch(envs)

    @property
    def _started(self) -> bool:
        return self._simulation is not None

    def simulation(self) -> Simulation:
        """The current episode's bodies."""
        if self._simulation is None:
            raise gym.error.ResetNeeded("PushT has no episode yet; call reset() first")
        return self._simulation

    def setup(self) -> Setup:
        """The current episode's figures and physical constants."""
        return self.simulation().setup

    @property
    def space(self) -> Any:
        """The pymunk space."""
        return self.simulation().space

    @property
    def agent(self) -> Any:
        """The agent's pymunk body."""
        return self.simulation().agent

    @property
    def block(self) -> Any:
        """The block's pymunk body."""
        return self.simulation().block

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state (7,) that suits the current episode; None draws from the env's own generator."""
        self.simulation()
        goal = self.variation_space.draw_goal(self.np_random if seed is None else np.random.default_rng(seed))
        goal[4] %= _TURN
        return goal

    def eval_state(self, goal_state: Any, cur_state: Any) -> tuple[bool, float]:
        """Whether `cur_state` is as good as `goal_state` for the block's shape, and their distance.

        Success: agent and block positions together are less than 20 px off, and the block's angle less than 20
        degrees, up to the symmetry of its shape. The distance is over all seven entries, in their own units.
        """
        goal, current = np.asarray(goal_state, np.float64).tolist(), np.asarray(cur_state, np.float64).tolist()
        return _compare(goal, current, self.setup().block.period)

    def fix_action_sample(self) -> None:
        """Make `action_space.sample()` draw actions that lead near the block (within 50 px per axis)."""
        self.action_space = NearBlock(self)

    def _action_bounds(self) -> tuple[float, float]:
        return (-1.0, 1.0) if self.relative else (0.0, float(SIZE))

    def _observation(self) -> dict[str, np.ndarray]:
        return {"proprio": self._row[7:11], "state": self._row[:7]}

    def _info(self) -> dict[str, Any]:
        success = self._measure()
        row = self._row
        return {
            "env_name": "PushT",
            "pos_agent": row[11:13],
            "vel_agent": row[13:15],
            "block_pose": row[15:],
            "goal_pose": self._overlay.copy(),
            "goal_state": self._goal_state.copy(),
            "goal_proprio": self._goal_proprio.copy(),
            "n_contacts": self._contacts(),
            "is_success": success,
            "goal": self._goal.copy(),
        }

    def _contacts(self) -> int:
        return math.ceil(self.simulation().contact_points / SUBSTEPS)

    def _measure(self) -> bool:
        """Note where everything is, and say whether that is a success."""
        simulation = self.simulation()
        agent, velocity, pose = simulation.agent_position, simulation.agent_velocity, simulation.block_pose
        state = (*agent, pose[0], pose[1], pose[2] % _TURN, *velocity)
        success, self._distance = _compare(self._goal_values, state, self._period)
        # One new array for all: making an array costs more than a view of it.
        self._row = np.array((*state, *agent, *velocity, *agent, *velocity, *pose))
        return success

    # ------------------------------------------------------------------ restoring
    def _place(self, state: np.ndarray) -> None:
        simulation = self.simulation()
        values = state.tolist()
        simulation.place(tuple(values[:2]), tuple(values[5:]), tuple(values[2:5]))
        if self._public:
            simulation.settle()
        else:
            simulation.arrive()

    def _set_state(self, state: Any) -> None:
        """Put agent and block at `state`, (7,) or (5,) for an agent at rest; the past is forgotten."""
        values = _state("state", state)
        self._edited = True
        if not self._public:
            self._simulation = Simulation(self.setup())
        self._place(values)

    def _set_goal_state(self, goal_state: Any) -> None:
        """Make `goal_state`, (7,) or (5,), the goal and draw its picture."""
        self._edited = True
        self._goal_state = _state("goal_state", goal_state)
        # As states are reported; an equal angle must give an equal goal.
        self._goal_state[4] %= _TURN
        self._goal_values: Sequence[float] = self._goal_state.tolist()
        self._goal_proprio = self._goal_state[[0, 1, 5, 6]]
        self._overlay = np.array(self.variation_space.goal_pose())
        self._draw_goal()

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded start, goal and every recorded `variation.*` factor.

        Where nothing touches, the episode goes on bit for bit as recorded, given the column `block_pose`; without it
        the block's angle is known modulo 2 pi, which differs in the last bits. Forces between bodies that touch are
        not in a row. They are computed as if the agent had just arrived, which for nine rows in ten leads on to within
        1e-6 px; the others have a longer history, and the block can be some px off after the first step.

        Args:
            init_row: column -> value at the start; `state` (7,) or (5,), and `block_pose` (3,) if there is one.
            goal_row: goal_<column> -> value at the goal; `goal_state`.

        Raises:
            MissingKeyError: one of the two columns is not there.
        """
        state = _column(init_row, "state").copy()
        pose = np.asarray(init_row.get("block_pose", ()), np.float64).reshape(-1)
        if pose.shape == (3,) and abs((pose[2] - state[4] + math.pi) % _TURN - math.pi) < 1e-5:
            state[4] = pose[2]
        return {
            "variation": [],
            "variation_values": recorded_factors(init_row),
            "state": state,
            "goal_state": _column(goal_row, "goal_state"),
        }

    # ------------------------------------------------------------------ picture
    @property
    def render_shape(self) -> tuple[int, int]:
        """(H, W) of `render()` and of `goal`."""
        return self._shape

    @render_shape.setter
    def render_shape(self, shape: tuple[int, int]) -> None:
        height, width = shape
        if height < 1 or width < 1:
            raise ContractError(f"render_shape={shape}: expected positive (H, W)")
        self._shape = (int(height), int(width))
        self._painter = None
        self._edited = True
        if self._simulation is not None:
            self._draw_goal()

    def render(self) -> np.ndarray | None:
        """The current picture, a new uint8 array (H, W, 3); None without a render mode."""
        self.simulation()
        if self.render_mode is None:
            return None
        picture = self._picture()
        if self.render_mode == "human":
            self._window = self._window or Window(SIZE, self.metadata["render_fps"])
            self._window.show(picture)
        return picture

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _draw_goal(self) -> None:
        x, y, *pose = self._goal_state[:5].tolist()
        self._goal = self._drawn((x, y), tuple(pose))

    def _picture(self, out: np.ndarray | None = None) -> np.ndarray:
        simulation = self.simulation()
        return self._drawn(simulation.agent_position, simulation.block_pose, self._cross(), out)

    def _drawn(
        self, agent: Point, block: Pose, cross: Cross | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        if self._painter is None:
            look = self.variation_space.look(self._with_target)
            setup = self._setup
            self._painter = Painter(setup.agent, setup.agent_angle, setup.block, look, self._shape)
        marks = self._probe.marks(agent, block) if self._probe is not None else ()
        return self._painter.frame(agent, block, marks, cross, out)

    def _cross(self) -> Cross | None:
        if not self._render_action or self._target is None:
            return None
        if not self._public:
            return Cross(self._target, SIZE * 8 / 96, SIZE / 96)
        # Published pictures have it at action / 512 * 96 of their own pixels.
        scale = 96 / self._shape[1]
        return Cross((self._target[0] * scale, self._target[1] * scale), SIZE * 8 / 96, SIZE / 96)


def _compare(goal: Sequence[float], current: Sequence[float], period: float) -> tuple[bool, float]:
    """What `eval_state` says of a block that looks the same after turning by `period`."""
    turn = abs(goal[4] - current[4]) % period
    success = math.dist(goal[:4], current[:4]) < POSITION_TOLERANCE and min(turn, period - turn) < ANGLE_TOLERANCE
    return success, math.dist(goal, current)


def _state(name: str, value: Any) -> np.ndarray:
    """A state (7,) from one that may lack the velocity."""
    state = np.array(value, np.float64).reshape(-1)
    if len(state) not in (5, 7) or not np.isfinite(state).all():
        raise ContractError(f"{name}={value!r}: expected 5 or 7 finite numbers")
    return state if len(state) == 7 else np.append(state, [0.0, 0.0])


def _column(row: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in row:
        raise MissingKeyError(f"the dataset has no column {name}; it has {sorted(row)}")
    return _state(name, row[name])
