"""Goals, info, pictures and restoring of the environments with a robot arm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.mujoco.env import MujocoEnv
from stable_worldmodel.envs.ogbench.factors import HALF
from stable_worldmodel.errors import ContractError

_KEPT = ("act", "control", "qacc_warmstart", "substep", "time")  # what a row restores besides its state


class Restorable(MujocoEnv):
    """What surrounds the episodes of `Manipulation`."""

    camera = "front_pixels"
    multiview: bool
    _before: np.ndarray | None  # the state before the last substep
    _told: dict[str, Any] | None  # what the package tells of the present
    _goal: np.ndarray | None
    _goal_state: np.ndarray
    _started: bool
    _data: Any
    _success: Any
    _cube_colors: Any
    _arm_sampling_bounds: Any

    if TYPE_CHECKING:  # the package's env, which stands behind this class in the bases

        def __getattr__(self, name: str) -> Any: ...

    # ------------------------------------------------------------------ goals
    @contextlib.contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Let what follows happen in a copy of the present, which is then forgotten."""
        import mujoco

        kept, self._data, success = self._data, self._simulation.scratch, self._success
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:], self._data.qvel[:] = kept.qpos, kept.qvel
        self._data.mocap_pos[:], self._data.mocap_quat[:] = kept.mocap_pos, kept.mocap_quat
        try:
            yield
        finally:
            self._data, self._success, self._before = kept, success, None

    def _visit(self, state: np.ndarray | None = None) -> None:
        """Take the goal from `state` or, for None, from what the scene elsewhere has come to."""
        import mujoco

        if state is not None:
            self._data.qpos[:], self._data.qvel[:] = self._state_of("goal_state", state)
            mujoco.mj_forward(self._model, self._data)
            mujoco.mj_rnePostConstraint(self._model, self._data)
            self.pre_step()
        self._goal_state = np.concatenate([self._data.qpos, self._data.qvel])
        self._goal = None
        if self._ob_type != "pixels" or self._use_oracle_rep:
            oracle = self._use_oracle_rep
            self._cur_goal_ob = self.compute_oracle_observation() if oracle else self.compute_observation()

    def _settle(self) -> None:
        """Two random steps, as the package makes before it looks at a goal."""
        import mujoco

        mujoco.mj_forward(self._model, self._data)
        for _ in range(2):
            self._advance(self.np_random.uniform(-1, 1, 5))

    def _draw_goal(self) -> np.ndarray:
        """The picture of the goal."""
        nq = self._model.nq
        return self._simulation.picture_at(self._goal_state[:nq], self._shape, self.camera)

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal state qpos‖qvel with the cubes elsewhere on the table; the episode stays as it is."""
        self._require_episode()
        space = self.variation_space.factor("cube.goal_position")
        generator = np.random.default_rng(seed)
        while True:
            places = generator.uniform(space.low, space.high)
            if space.contains(places.astype(space.dtype)):
                break
        qpos = self._data.qpos.copy()
        for cube, (xy, yaw) in enumerate(zip(places, generator.uniform(0, 2 * np.pi, len(places)), strict=True)):
            at = self._model.joint(f"object_joint_{cube}").qposadr[0]
            qpos[at : at + 7] = (*xy, self._halves[cube], np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        return np.concatenate([qpos, np.zeros(self._model.nv)])

    def _take_goal(self, state: Any) -> None:
        """Make every cube's target what it is in `state`."""
        qpos, _ = self._state_of("goal_state", state)
        for cube in range(self._num_cubes):
            at = self._model.joint(f"object_joint_{cube}").qposadr[0]
            self._aim_cube(cube, qpos[at : at + 3], qpos[at + 3 : at + 7])
        with self._elsewhere():
            self._visit(np.concatenate(self._state_of("goal_state", state)))

    def set_new_target(self, return_info: bool = True, p_stack: float = 0.5) -> Any:
        """Choose what to do next while collecting data, and where to; see the package.

        The first goal of an episode on the table is what the factors say. Returns the observation and info.
        """
        if self._mode != "data_collection":
            raise ContractError(f"mode={self._mode!r}: new targets are for mode='data_collection'")
        super().set_new_target(return_info=False, p_stack=p_stack)  # type: ignore[misc]
        if self._target_task == "cube":
            self._correct_target()
        before = self._before
        with self._elsewhere():
            self._show_target_reached()
            self._visit(np.concatenate([self._data.qpos, np.zeros(self._model.nv)]))
        self._before = before
        return (self.compute_observation(), self.get_reset_info()) if return_info else None

    def _correct_target(self) -> None:
        """Put the first goal where the factors say, and any at the height that the sizes of the cubes make."""
        cube = self._target_block
        target = self._cube_target_mocap_ids[cube]
        position, quat = self._data.mocap_pos[target].copy(), self._data.mocap_quat[target].copy()
        if position[2] == HALF:  # on the table
            position[2] = self._halves[cube]
            if self._beginning:
                position[:2] = self._value("cube.goal_position")[cube]
                yaw = self._value("cube.goal_yaw")[cube]
                quat = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        elif self._num_cubes > 1 and not (self._halves == HALF).all():
            poses = np.array([self._data.joint(f"object_joint_{i}").qpos[:3] for i in range(self._num_cubes)])
            below = int(np.argmin(np.linalg.norm(poses - (position - np.array([0, 0, 2 * HALF])), axis=1)))
            position[2] = poses[below, 2] + self._halves[below] + self._halves[cube]
        self._aim_cube(cube, position, quat)

    def _show_target_reached(self) -> None:
        """Put what is to be moved where it is to go."""
        if self._target_task == "cube":
            target = self._cube_target_mocap_ids[self._target_block]
            pose = self._data.joint(f"object_joint_{self._target_block}").qpos
            pose[:3], pose[3:] = self._data.mocap_pos[target], self._data.mocap_quat[target]

    def _point_cube(self, cube_id: int, target_pos: Any, target_quat: Any) -> None:
        self._require_episode()
        if not 0 <= cube_id < self._num_cubes:
            raise ContractError(f"cube_id={cube_id}: expected 0 … {self._num_cubes - 1}")
        position = _numbers("target_pos", target_pos, 3)
        quat = np.array([1.0, 0, 0, 0]) if target_quat is None else _numbers("target_quat", target_quat, 4)
        self._aim_cube(cube_id, position, quat)
        at = self._model.joint(f"object_joint_{cube_id}").qposadr[0]
        state = self._goal_state.copy()
        state[at : at + 7] = (*position, *quat)
        before = self._before
        with self._elsewhere():
            self._visit(state)
        self._before = before

    # ------------------------------------------------------------------ info
    def _info(self) -> dict[str, Any]:
        if self._goal is None and (self.render_mode is not None or self._ob_type == "pixels"):
            self._goal = self._draw_goal()
        none = np.zeros(self._model.nq + 2 * self._model.nv)
        info = {
            "env_name": self.name,
            **self.compute_ob_info(),
            **self._state_info(),
            "substep": none if self._before is None else self._before.copy(),
            "goal_state": self._goal_state.copy(),
            "success": bool(self._success),
            "is_success": bool(self._success),
        }
        if self._goal is not None:
            info["goal"] = self._goal.copy()
        pictured = self._ob_type == "pixels" and not self._use_oracle_rep
        info["target"] = self._goal.copy() if pictured else self._cur_goal_ob.copy()  # type: ignore[union-attr]
        return info

    @property
    def name(self) -> str:
        """What info calls `env_name`."""
        return type(self).__name__.removesuffix("Env")

    def get_reset_info(self) -> dict[str, Any]:
        """Info of the present; the same keys at reset and at every step."""
        return self._info()

    def get_step_info(self) -> dict[str, Any]:
        """See `get_reset_info`."""
        return self._info()

    def add_object_info(self, ob_info: dict[str, Any]) -> None:
        """Add where things are to `ob_info`."""
        super().add_object_info(ob_info)  # type: ignore[misc]

    # ------------------------------------------------------------------ pictures
    def render(  # type: ignore[override]
        self, camera: int | str | None = None, *args: Any, **kwargs: Any
    ) -> np.ndarray | None:
        """A picture uint8 (H, W, 3) from `camera`, by default "front_pixels"; further arguments as in MujocoEnv."""
        self._require_episode()
        kwargs.setdefault("camera_id", self.camera if camera is None else camera)
        return super().render(*args, **kwargs)

    def render_multiview(self, camera: int | str | None = None, *args: Any, **kwargs: Any) -> Any:
        """The pictures of "front_pixels" and "side_pixels" by name; without `multiview`, what `render` returns."""
        if not self.multiview:
            return self.render(camera, *args, **kwargs)
        return {name: self.render(name, *args, **kwargs) for name in ("front_pixels", "side_pixels")}

    def _resized(self) -> None:
        self._goal = None

    def get_pixel_observation(self) -> np.ndarray:
        """The observation of `ob_type="pixels"`."""
        return self._simulation.picture((self._render_height, self._render_width), self.camera)

    # ------------------------------------------------------------------ restoring
    def _restore(self, options: Mapping[str, Any]) -> None:
        if options.get("target_block") is not None:
            self._target_block = int(np.reshape(options["target_block"], ()))
        if options.get("goal_state") is not None:
            self._take_goal(options["goal_state"])
        if options.get("state") is not None:
            self._write_state(options["state"], options)

    def _write_state(self, state: Any, extra: Mapping[str, Any]) -> None:
        """Go on from qpos‖qvel; with `substep` and `control` bit for bit as it went on when it was recorded."""
        import mujoco

        qpos, qvel = self._state_of("state", state)
        data, warmstart = self._data, extra.get("qacc_warmstart")
        self._before = None
        substep = extra.get("substep")
        if substep is not None and np.any(substep):
            self._repeat(_numbers("substep", substep, self._model.nq + 2 * self._model.nv), extra.get("control"))
        if self._before is None or not (np.array_equal(data.qpos, qpos) and np.array_equal(data.qvel, qvel)):
            self._before = None
            self._simulation.write_state(qpos, qvel)
            mujoco.mj_forward(self._model, data)
            self.pre_step()
            self.post_step()
            self._simulation.write_state(qpos, qvel, None, warmstart)
        if extra.get("time") is not None:
            data.time = float(np.reshape(extra["time"], ()))
        self._success = False

    def _repeat(self, before: np.ndarray, control: Any) -> None:
        """Make the last substep again: everything derived, such as where the gripper is, lags behind by one."""
        import mujoco

        nq, nv = self._model.nq, self._model.nv
        self._simulation.write_state(before[:nq], before[nq : nq + nv], None, before[nq + nv :])
        if control is not None:
            self._data.ctrl[:] = _numbers("control", control, self._model.nu)
        self.pre_step()
        mujoco.mj_step(self._model, self._data)
        mujoco.mj_rnePostConstraint(self._model, self._data)
        self.post_step()
        self._before = before

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """See MujocoEnv; the goal is `goal_state`, or `goal_qpos` at rest."""
        options = super().reset_options_from_dataset(init_row, goal_row)
        goal = column(goal_row, "goal_state", "goal_qpos").reshape(-1)
        if "goal_state" not in goal_row:
            goal = np.concatenate([goal, np.zeros(self._model.nv)])
        options |= {name: np.ravel(init_row[name]) for name in _KEPT if name in init_row}
        if self._mode == "data_collection" and "privileged/target_block" in init_row:
            options["target_block"] = init_row["privileged/target_block"]
        return options | {"goal_state": goal}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._before is not None:
            warmstart, time = self._data.qacc_warmstart.copy(), self._data.time
            self._repeat(self._before, self._data.ctrl.copy())
            self._data.qacc_warmstart[:], self._data.time = warmstart, time

    def _require_episode(self) -> None:
        if not self._started:
            raise gym.error.ResetNeeded(f"{type(self).__name__} has no episode yet; call reset() first")


def _numbers(name: str, values: Any, size: int) -> np.ndarray:
    found = np.array(values, np.float64).reshape(-1)
    if found.shape != (size,) or not np.isfinite(found).all():
        raise ContractError(f"{name}={values!r}: expected {size} finite numbers")
    return found
