"""`swm/OGBMaze-v0`: a point, ant or humanoid finds its way through a maze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.mujoco.effects import RGB, Checker, Put, Scale
from stable_worldmodel.envs.mujoco.env import MujocoEnv
from stable_worldmodel.envs.mujoco.factors import Factor, color, number, switch
from stable_worldmodel.envs.mujoco.scene_effects import Gradient
from stable_worldmodel.envs.ogbench import package
from stable_worldmodel.errors import ContractError

LOCOMOTION = ("point", "ant", "humanoid")
MAZES = {"maze": ("arena", "medium", "large", "giant", "teleport"), "ball": ("arena", "medium")}


class MazeEnv(MujocoEnv):
    """A walk through a maze; physics, mazes and tasks are the `ogbench` package's, which this env drives.

    Observations are the package's, float64: the point's xy, or positions and velocities of what walks. Actions are in
    [-1, 1]; the point moves by 0.2 m per unit. The reward is 1 at the goal, else 0; minus 1 with a reward task.
    Success: within 1 m (point) or 0.5 m of the goal, for the ball where there is one.

    Info: `env_name`; `qpos`, `qvel`, `state` (both), `qacc_warmstart`; `proprio`, the observation; `xy`, `goal_xy`;
    `goal_state`, qpos‖qvel; `goal`, a picture of it; `target`, the package's goal observation; `prev_qpos`,
    `prev_qvel`; `success` = `is_success`; `render_quality`.

    Reset options: `variation`, `variation_values`; `task_id` (from 1) or `task_info`; `state` and `goal_state`,
    qpos‖qvel, with `qacc_warmstart` if wanted. Nothing is varied unless asked for.

    Args:
        loco_env_type: "point", "ant" or "humanoid".
        maze_env_type: "maze", or "ball" to bring a ball to the goal.
        maze_type: "arena", "medium", "large", "giant" or "teleport".
        ob_type: "states", or "pixels" for pictures as observations, of (height, width).
        width, height: of pictures.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.
        quality: of pictures: "full", "matched" or "fast".
        visualize_info: whether the goal is drawn; never with `ob_type="pixels"`.
        kwargs: of the package: `terminate_at_goal`, `success_timing`, `reward_task_id`, `add_noise_to_goal`, …
    """

    smooth = 480  # white walls on a chequered floor
    _goal: np.ndarray | None
    action_space: gym.spaces.Box

    def __init__(
        self,
        loco_env_type: str = "point",
        maze_env_type: str = "maze",
        maze_type: str = "large",
        ob_type: str = "states",
        width: int = 224,
        height: int = 224,
        render_mode: str | None = None,
        init_value: Mapping[str, Any] | None = None,
        quality: str = "matched",
        visualize_info: bool = True,
        **kwargs: Any,
    ):
        _check("render_mode", render_mode, (None, "rgb_array"))
        _check("loco_env_type", loco_env_type, LOCOMOTION)
        _check("maze_env_type", maze_env_type, tuple(MAZES))
        _check("maze_type", maze_type, MAZES[maze_env_type])
        _check("ob_type", ob_type, ("states", "pixels"))
        self.render_mode, self._shape, self._ob_type = render_mode, (height, width), ob_type
        self.loco_env_type, self._has_ball = loco_env_type, maze_env_type == "ball"
        # Not told to observe pictures, which it would draw itself; what it changes for them is done here.
        self._arguments = ((loco_env_type, maze_env_type), {"maze_type": maze_type, **kwargs})
        self._pictured = visualize_info and ob_type == "states"  # whether the goal is
        self._maze = self._build()
        self._simulate(*self._model_and_data(), self._table(), quality, init_value)
        self.action_space = gym.spaces.Box(-1.0, 1.0, self._maze.action_space.shape, np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, self._maze.observation_space.shape, np.float64)
        if ob_type == "pixels":
            self.observation_space = gym.spaces.Box(0, 255, (height, width, 3), np.uint8)
        self._observed = height, width  # shape of pictures that are observations
        self._started = False

    def _build(self) -> Any:
        maze = package.load("locomaze.maze")
        built = maze.make_maze_env(*self._arguments[0], **self._arguments[1])
        if not self._pictured:
            built.model.geom("target").group = _HIDDEN
        return built

    def _table(self) -> tuple[Factor, ...]:
        pixels = self._ob_type == "pixels"
        walls = (0.6, 0.6, 0.6) if pixels else (1.0, 1.0, 1.0)
        return (
            color("agent.color", Put("mat_rgba", "self", RGB), "of what moves"),
            Factor(
                "wall.color",
                Put("mat_rgba", "wall", RGB),
                0.0,
                1.0,
                (3,),
                default=walls,
                about="of the walls",
                neutral=(1.0, 1.0, 1.0),
            ),
            color("floor.color", Checker("grid"), "of the two kinds of fields", _FLOOR, (2, 3)),
            switch(
                "floor.pixel_encoding",
                Gradient("grid"),
                "1: the floor's colour says where one is",
                int(pixels),
                0,
            ),
            number("light.intensity", 0, 1, Scale(("light_diffuse",)), "diffuse part of all lights", 1.0, float),
        )

    def _model_and_data(self) -> tuple[Any, Any]:
        return self._maze.model, self._maze.data

    @property
    def camera(self) -> Any:  # type: ignore[override]
        """From above, over the whole maze."""
        import mujoco

        custom = self._maze.custom_camera
        return custom if isinstance(custom, (str, int, mujoco.MjvCamera)) else 0

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self._draw_factors(seed, options)
        maze = self._maze
        chosen = {key: options[key] for key in ("task_id", "task_info") if options.get(key) is not None}
        task = chosen.get("task_id")
        if task is not None and not 1 <= task <= maze.num_tasks:
            raise ContractError(f"task_id={task!r}: expected 1 … {maze.num_tasks}")
        maze.action_space.seed(int(self.np_random.integers(2**31)))
        with package.seeded(self.np_random):
            _, info = maze.reset(options=chosen, seed=int(self.np_random.integers(2**31)))
        self._simulation.finish()
        self._started, self._success = True, False
        self._previous = maze.data.qpos.copy(), maze.data.qvel.copy()
        self._target = np.array(info["goal"], np.float64)
        self._set_goal(self._placed(self._target))
        if options.get("goal_state") is not None:
            self._set_goal(np.concatenate(self._state_of("goal_state", options["goal_state"])))
        if options.get("state") is not None:
            self._write_state(options["state"], options.get("qacc_warmstart"))
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Walk for 0.1 s. Raises ContractError unless `action` is n finite numbers."""
        self._require_episode()
        values = np.asarray(action, np.float64)
        if values.shape != self.action_space.shape or not np.isfinite(values).all():
            raise ContractError(f"action={action!r}: expected {len(self.action_space.low)} finite numbers")
        self._previous = self._maze.data.qpos.copy(), self._maze.data.qvel.copy()
        with package.seeded(self.np_random):  # the teleporting mazes draw where to
            _, reward, terminated, truncated, info = self._maze.step(np.clip(values, -1.0, 1.0))
        self._success = bool(info["success"])
        return self._observe(), float(reward), bool(terminated), bool(truncated), self._info()

    def _observe(self) -> np.ndarray:
        if self._ob_type == "pixels":
            return self._picture(self._observed)
        return np.array(self._maze.get_ob(), np.float64)

    def _info(self) -> dict[str, Any]:
        if self._goal is None and self.render_mode is not None:
            self._goal = self._draw_goal()
        info = {
            "env_name": f"{self.loco_env_type.capitalize()}Maze",
            **self._state_info(),
            "proprio": np.array(self._maze.get_ob(), np.float64),
            "xy": self._maze.data.qpos[:2].copy(),
            "goal_xy": np.array(self._maze.cur_goal_xy, np.float64),
            "goal_state": self._goal_state.copy(),
            "target": self._target.copy(),
            "prev_qpos": self._previous[0].copy(),
            "prev_qvel": self._previous[1].copy(),
            "success": self._success,
            "is_success": self._success,
        }
        if self._goal is not None:
            info["goal"] = self._goal.copy()
        return info

    # ------------------------------------------------------------------ goals
    def _placed(self, observed: np.ndarray) -> np.ndarray:
        """The state qpos‖qvel at the goal: what the package observed there, or standing still."""
        model, xy = self._maze.model, self._maze.cur_goal_xy
        if observed.shape == (model.nq + model.nv,):
            return observed.copy()
        qpos = np.array(self._maze.init_qpos)
        qpos[:2] = xy
        if self._has_ball:
            qpos[-7:-5] = xy
        return np.concatenate([qpos, np.zeros(model.nv)])

    def _set_goal(self, state: np.ndarray) -> None:
        nq = self._maze.model.nq
        at = nq - 7 if self._has_ball else 0
        self._maze.set_goal(goal_xy=state[at : at + 2].copy())
        self._goal_state, self._goal = state, None

    def _draw_goal(self) -> np.ndarray:
        """The picture of the goal."""
        return self._simulation.picture_at(self._goal_state[: self._maze.model.nq], self._shape, self.camera)

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state qpos‖qvel in a free cell; the episode stays as it is."""
        self._require_episode()
        generator = np.random.default_rng(seed)
        cells = np.argwhere(np.asarray(self._maze.maze_map) == 0)
        xy = np.array(self._maze.ij_to_xy(cells[generator.integers(len(cells))])) + generator.uniform(-1, 1, 2)
        state = self._goal_state.copy()
        state[:2] = xy
        if self._has_ball:
            state[self._maze.model.nq - 7 : self._maze.model.nq - 5] = xy
        return state

    def oracle_subgoal(self) -> np.ndarray:
        """Where to go next, xy: the middle of the next cell on a shortest way, or the goal once in its cell."""
        self._require_episode()
        maze = self._maze
        xy, goal = maze.data.qpos[:2], np.asarray(maze.cur_goal_xy)
        if maze.xy_to_ij(xy) == maze.xy_to_ij(goal):
            return goal.copy()
        return np.asarray(maze.get_oracle_subgoal(xy, goal)[0], np.float64)

    # ------------------------------------------------------------------ pictures
    def _resized(self) -> None:
        self._goal = None

    def render(self, *args: Any, **kwargs: Any) -> np.ndarray | None:
        """See MujocoEnv."""
        self._require_episode()
        self._place_geoms()
        return super().render(*args, **kwargs)

    def _picture(self, shape: tuple[int, int]) -> np.ndarray:
        self._place_geoms()
        return self._simulation.picture(shape, self.camera)

    def _place_geoms(self) -> None:
        """Bring what is drawn to where qpos says; MuJoCo leaves it where the last substep began."""
        import mujoco

        model, data = self._model_and_data()
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)

    # ------------------------------------------------------------------ restoring
    def set_state(self, qpos: Any, qvel: Any) -> None:
        """Go on from these positions and velocities."""
        self._require_episode()
        self._write_state(np.concatenate([np.ravel(qpos), np.ravel(qvel)]), None)

    def set_goal_xy(self, goal_xy: Any) -> None:
        """Set where to go, xy in m."""
        self._require_episode()
        xy = np.array(goal_xy, np.float64)
        if xy.shape != (2,) or not np.isfinite(xy).all():
            raise ContractError(f"goal_xy={goal_xy!r}: expected 2 finite numbers")
        self._maze.set_goal(goal_xy=xy)
        self._set_goal(self._placed(np.empty(0)))

    def _write_state(self, state: Any, warmstart: Any) -> None:
        import mujoco

        qpos, qvel = self._state_of("state", state)
        self._simulation.write_state(qpos, qvel)
        mujoco.mj_forward(*self._model_and_data())
        self._simulation.write_state(qpos, qvel, None, warmstart)
        self._previous = qpos.copy(), qvel.copy()

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """See MujocoEnv; the goal is `goal_state`, or `goal_qpos` at rest."""
        options = super().reset_options_from_dataset(init_row, goal_row)
        goal = column(goal_row, "goal_state", "goal_qpos").reshape(-1)
        if "goal_state" not in goal_row:
            goal = np.concatenate([goal, np.zeros(self._maze.model.nv)])
        return options | {"goal_state": goal}

    # ------------------------------------------------------------------ copies
    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state["_maze"] = None  # its class is local to a function of the package
        goal = self._maze.cur_goal_xy, self._maze.cur_task_id
        return {**state, "_goal_of_maze": goal}

    def __setstate__(self, state: dict[str, Any]) -> None:
        goal_xy, task = state.pop("_goal_of_maze")
        self._arguments, self._pictured = state["_arguments"], state["_pictured"]
        state["_maze"] = self._build()
        super().__setstate__(state)
        self._simulation.restore()
        self._simulation.finish()
        self._maze.set_goal(goal_xy=np.array(goal_xy))
        self._maze.cur_task_id = task

    def _require_episode(self) -> None:
        if not self._started:
            raise gym.error.ResetNeeded("MazeEnv has no episode yet; call reset() first")


_HIDDEN = 5  # of MuJoCo's groups of geoms, one that is not drawn
_FLOOR = [[0.08, 0.11, 0.16], [0.15, 0.18, 0.25]]


def _check(name: str, found: Any, expected: tuple[Any, ...]) -> None:
    if found not in expected:
        raise ContractError(f"{name}={found!r}: expected {', '.join(map(repr, expected))}")
