"""What Cube and Scene add to the package's own environments; it stands before them in the bases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.mujoco.factors import Factor
from stable_worldmodel.envs.mujoco.meshes import Detail
from stable_worldmodel.envs.ogbench import arm, package
from stable_worldmodel.envs.ogbench.factors import HALF, PLACED
from stable_worldmodel.envs.ogbench.restorable import Restorable
from stable_worldmodel.errors import ContractError

COARSE, FINE = Detail(0.05, 0.0025), Detail(0.2, 0.0005)
_ELEMENTS = (
    *("_mjcf_model", "_arm_jnts", "_arm_acts", "_gripper_jnts", "_gripper_acts", "_scene_option", "_camera"),
    *("_cube_geoms_list", "_cube_target_geoms_list", "_button_geoms_list"),
)


class Manipulation(Restorable):
    """A robot arm and things on a table. Subclasses have a `_table` of factors and `_set_up_task`."""

    variants: tuple[str, ...]  # what `env_type` may be; the first is the default, and one alone takes any name
    side_cameras: Mapping[str, Mapping[str, tuple[float, ...]]]
    angle: float  # degrees that `camera.angle_delta` may turn
    details: Mapping[float, Detail] = {96: COARSE, np.inf: FINE}  # of the robot by the longest side of a picture

    def __init__(
        self,
        env_type: str | None = None,
        ob_type: str = "states",
        permute_blocks: bool = True,
        multiview: bool = False,
        height: int = 224,
        width: int = 224,
        render_mode: str | None = None,
        init_value: Mapping[str, Any] | None = None,
        quality: str = "matched",
        **kwargs: Any,
    ):
        env_type = self.variants[0] if env_type is None else env_type
        if len(self.variants) > 1 and env_type not in self.variants:
            raise ContractError(f"env_type={env_type!r}: expected one of {', '.join(self.variants)}")
        _check_arguments(render_mode, ob_type, kwargs)
        self.multiview = multiview
        self._action_space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
        self._observation_space: gym.Space | None = None
        self._started = False
        self._before = self._told = None
        super().__init__(env_type, permute_blocks, ob_type=ob_type, height=height, width=width, **kwargs)  # type: ignore[call-arg]
        self.render_mode = render_mode
        self._shape = (height, width)
        task = self._reward_task_id
        if self._mode == "task" and task is not None and not 1 <= task <= self.num_tasks:
            raise ContractError(f"reward_task_id={task!r}: expected 0 (the default task) or 1 … {self.num_tasks}")
        self.default_variations = PLACED if self._mode == "data_collection" else ()
        self._sources = self.modify_mjcf_model(self.build_mjcf_model())
        self.compile_model_and_data()
        self._never_compiled = False
        look = None if quality == "full" else partial(self._compiled.look, self.details)
        self._simulate(*self._model_and_data(), self._table(), quality, init_value, look, self._compiled.digest)
        del self._sources
        for name in _ELEMENTS:  # done with, and they cannot be copied
            setattr(self, name, None)
        self._observation_space = self._space_of_observations()

    @property
    def env_type(self) -> str:
        """Which of the package's variants it is."""
        return self._env_type

    @property
    def mode(self) -> str:
        """ "task" or "data_collection"."""
        return self._mode

    @property
    def oracle_facts(self) -> tuple[np.ndarray, float, np.ndarray]:
        """Bounds of the arm's start (2, 3), seconds per step, and what an action of 1 means (5,)."""
        return self._arm_sampling_bounds, self._control_timestep, self.action_high

    @property
    def action_space(self) -> gym.Space:  # type: ignore[override]
        """Change of the gripper's xyz, yaw and opening, each in [-1, 1]."""
        return self._action_space

    @property
    def observation_space(self) -> gym.Space:  # type: ignore[override]
        """What the package observes: numbers, or pictures with `ob_type="pixels"`."""
        return self._observation_space  # type: ignore[return-value]

    # ------------------------------------------------------------------ the model
    def _table(self) -> tuple[Factor, ...]:
        raise NotImplementedError

    def add_objects(self, arena_mjcf: Any) -> None:
        """Add the package's things, and the cameras at the side."""
        super().add_objects(arena_mjcf)  # type: ignore[misc]
        for name, place in self.side_cameras.items():
            arena_mjcf.worldbody.add("camera", name=name, **place)

    def compile_model_and_data(self) -> None:
        """Compile the scene, or take a copy of the one that this process has compiled before."""
        import mujoco

        utils = package.load("manipspace.mjcf_utils")
        self._model, self._compiled = package.compiled(utils.to_string(self._sources), utils.get_assets(self._sources))
        self._data = mujoco.MjData(self._model)
        self._model.opt.timestep = self._physics_timestep
        mujoco.mj_forward(self._model, self._data)
        self.post_compilation()
        self._pad_id = self._model.body("ur5e/robotiq/right_pad").id
        self._dirty = False

    def _model_and_data(self) -> tuple[Any, Any]:
        return self._model, self._data

    def _space_of_observations(self) -> gym.Space:
        if self._ob_type == "pixels":
            return gym.spaces.Box(0, 255, (self._render_height, self._render_width, 3), np.uint8)
        self.pre_step()
        return gym.spaces.Box(-np.inf, np.inf, self.compute_observation().shape, np.float64)

    # ------------------------------------------------------------------ episode
    def reset(
        self, seed: int | None = None, options: dict | None = None, *args: Any, **kwargs: Any
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        import mujoco

        gym.Env.reset(self, seed=seed)
        options = options or {}
        self._draw_factors(seed, options)
        if self._mode == "task":
            self._choose_task(options)
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_forward(self._model, self._data)
        self._reset_next_step, self._success, self._goal, self._before = False, False, None, None
        self._beginning = True
        self.initialize_episode()
        self._beginning = False
        self._simulation.finish()
        mujoco.mj_forward(self._model, self._data)
        self._success = False  # an episode has one step at least
        self._restore(options)
        self._started = True
        return self.compute_observation(), self.get_reset_info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the gripper for 0.05 s. Raises ContractError unless `action` is 5 finite numbers."""
        self._require_episode()
        values = np.array(action, np.float64)
        if values.shape != (5,) or not np.isfinite(values).all():
            raise ContractError(f"action={action!r}: expected 5 finite numbers")
        first = self._outcome()
        self._advance(np.clip(values, -1.0, 1.0))
        success, terminated, reward = first if self._success_timing == "pre" else self._outcome()
        self._told = self.compute_ob_info()
        try:
            observation, info = self.compute_observation(), self.get_step_info()
        finally:
            self._told = None
        info["success"] = info["is_success"] = success
        return observation, reward, terminated, bool(self.truncate_episode()), info

    def _advance(self, action: np.ndarray) -> None:
        import mujoco

        model, data = self._model, self._data
        self.set_control(action)
        self.pre_step()
        if self._n_steps > 1:
            mujoco.mj_step(model, data, self._n_steps - 1)
        self._before = np.concatenate([data.qpos, data.qvel, data.qacc_warmstart])
        mujoco.mj_step(model, data)
        mujoco.mj_rnePostConstraint(model, data)  # forces of contacts
        self.post_step()

    def pre_step(self) -> None:
        """Remember where everything is before a step."""
        self._prev_qpos, self._prev_qvel = self._data.qpos.copy(), self._data.qvel.copy()

    def set_control(self, action: np.ndarray) -> None:
        """Command the arm to where an action in [-1, 1] moves the gripper; see the package."""
        data, site, down = self._data, self._pinch_site_id, (0.0, 1.0, 0.0, 0.0)
        x, y, z, yaw, opening = self.unnormalize_action(action).tolist()
        moves = zip(data.site_xpos[site].tolist(), (x, y, z), *self._workspace_bounds.tolist(), strict=True)
        position = [arm.clipped(at + by, low, high) for at, by, low, high in moves]
        now = arm.about_z(float(arm.yaw_of_matrix(data.site_xmat[site])))
        wanted = arm.times(arm.times(arm.about_z(yaw), now), arm.inverse(down))
        gripper = arm.times(arm.about_z(float(arm.yaw_of(wanted))), down)
        flange = self._T_pa.wxyz_xyz.tolist()  # as the gripper sees it
        offset = arm.turned(gripper, flange[4:])
        data.ctrl[self._arm_actuator_ids] = arm.joint_angles(
            self._ik,
            [there + at for there, at in zip(offset, position, strict=True)],
            arm.times(gripper, tuple(flange[:4])),
            data.qpos[self._arm_joint_ids],
        )
        data.ctrl[self._gripper_actuator_ids] = 255.0 * arm.clipped(self._opening + opening, 0.0, 1.0)

    @property
    def _opening(self) -> float:
        """Of the gripper, 0…1."""
        return arm.clipped(float(self._data.qpos[self._gripper_opening_joint_id]) / 0.8, 0.0, 1.0)

    def compute_ob_info(self) -> dict[str, Any]:
        """What the package tells of the present; within a step it is found out once."""
        if self._told is not None:
            return dict(self._told)
        data, joints, site = self._data, self._arm_joint_ids, self._pinch_site_id
        qpos, qvel, force = data.qpos, data.qvel, data.cfrc_ext[self._pad_id]
        info = {
            "proprio/joint_pos": qpos[joints],
            "proprio/joint_vel": qvel[joints],
            "proprio/effector_pos": data.site_xpos[site].copy(),
            "proprio/effector_yaw": np.array([arm.yaw_of_matrix(data.site_xmat[site])]),
            "proprio/gripper_opening": np.array([self._opening]),
            "proprio/gripper_vel": qvel[[self._gripper_opening_joint_id]],
            "proprio/gripper_contact": np.array([arm.clipped(math.sqrt(force.dot(force)) / 50, 0.0, 1.0)]),
        }
        self.add_object_info(info)
        return info | {
            "prev_qpos": self._prev_qpos.copy(),
            "prev_qvel": self._prev_qvel.copy(),
            "qpos": qpos.copy(),
            "qvel": qvel.copy(),
            "control": data.ctrl.copy(),
            "time": np.array([data.time]),
        }

    def _outcome(self) -> tuple[bool, bool, float]:
        return bool(self._success), bool(self.terminate_episode()), float(self.compute_reward())

    def compute_reward(self, ob: Any = None, action: Any = None) -> float:
        """1 at the goal, else 0; with a reward task, minus the number of things that are not at their goals."""
        return super().compute_reward()  # type: ignore[misc]

    def _choose_task(self, options: Mapping[str, Any]) -> None:
        drawn = int(self.np_random.integers(1, self.num_tasks + 1))  # always, so that the stream is the same either way
        given = options.get("task_id") if self._reward_task_id is None else self._reward_task_id
        if given is None and options.get("task_info") is not None:
            self.cur_task_id, self.cur_task_info = None, options["task_info"]
            return
        chosen = drawn if given is None else int(given)
        if not 1 <= chosen <= self.num_tasks:
            raise ContractError(f"task_id={given!r}: expected 1 … {self.num_tasks}")
        self.cur_task_id, self.cur_task_info = chosen, self.task_infos[chosen - 1]

    # ------------------------------------------------------------------ placing
    def initialize_episode(self) -> None:
        """Place the arm, the things and their goals."""
        import mujoco

        self._cube_colors = np.array(self._cube_colors)
        self._cube_colors[: self._num_cubes, :3] = self._value("cube.color")
        self._cube_success_colors = self._cube_colors  # a cube keeps its colour when it arrives
        for cube in range(self._num_cubes):
            self._model.geom_rgba[self._cube_geom_ids_list[cube]] = self._cube_colors[cube]
            self._model.geom_rgba[self._cube_target_geom_ids_list[cube], :3] = self._cube_colors[cube, :3]
        self._data.qpos[self._arm_joint_ids] = self._home_qpos
        mujoco.mj_kinematics(self._model, self._data)
        if self._mode == "data_collection":
            self.initialize_arm()
            self._scatter()
            mujoco.mj_kinematics(self._model, self._data)
            self.set_new_target(return_info=False)
        else:
            self._set_up_task()
        self.pre_step()
        mujoco.mj_forward(self._model, self._data)
        self.post_step()

    def initialize_arm(self) -> None:
        """Bring the gripper to its start, turned at random."""
        kept = self._arm_sampling_bounds
        self._arm_sampling_bounds = np.stack([self._value("agent.ee_start_position")] * 2)
        try:
            super().initialize_arm()  # type: ignore[misc]
        finally:
            self._arm_sampling_bounds = kept

    def _scatter(self) -> None:
        """Place the things as their factors say, for data collection."""
        for cube, (xy, yaw) in enumerate(
            zip(self._value("cube.start_position"), self._value("cube.start_yaw"), strict=True)
        ):
            self._put_cube(cube, (*xy, self._halves[cube]), yaw)

    def _set_up_task(self) -> None:
        raise NotImplementedError

    def _arrange(self, positions: np.ndarray, jitter: bool) -> None:
        """Place cubes at (N, 3); `jitter`: off by up to 1 cm and turned at random, as the package starts tasks."""
        sizes_known = positions.copy()
        sizes_known[:, 2] = self._heights(positions)
        moved = self._asked("cube.start_position" if jitter else "cube.goal_position")
        turned = self._asked("cube.start_yaw" if jitter else "cube.goal_yaw")
        for cube, position in enumerate(sizes_known):
            yaw = 0.0
            if jitter:
                position[:2] += self.np_random.uniform(-0.01, 0.01, size=2)
                yaw = self.np_random.uniform(0, 2 * np.pi)
            if moved is not None:
                position = np.array([*moved[cube], self._halves[cube]])
            self._put_cube(cube, position, yaw if turned is None else turned[cube])

    def _put_cube(self, cube: int, position: Any, yaw: float) -> None:
        pose = self._data.joint(f"object_joint_{cube}").qpos
        pose[:3], pose[3:] = position, (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))

    def _aim_cube(self, cube: int, position: Any, quat: Any) -> None:
        target = self._cube_target_mocap_ids[cube]
        self._data.mocap_pos[target], self._data.mocap_quat[target] = position, quat

    def _heights(self, positions: np.ndarray) -> np.ndarray:
        """Heights (N,) of the middles of cubes in stacks, whatever the sizes of the cubes."""
        halves = self._halves
        if (halves == HALF).all():
            return positions[:, 2].copy()
        near = np.hypot(*(positions[:, None, :2] - positions[None, :, :2]).transpose(2, 0, 1)) < 0.02
        below = near & (positions[None, :, 2] < positions[:, None, 2] - 1e-6)
        raised = positions[:, 2] - HALF - 2 * HALF * below.sum(1)  # above the table, as in a drawer
        return raised + halves + 2 * (below * halves).sum(1)

    @property
    def _halves(self) -> np.ndarray:
        return self._value("cube.size")


def _check_arguments(render_mode: Any, ob_type: Any, kwargs: Mapping[str, Any]) -> None:
    choices = {
        "render_mode": (render_mode, (None, "rgb_array")),
        "ob_type": (ob_type, ("states", "pixels")),
        "mode": (kwargs.get("mode", "task"), ("task", "data_collection")),
        "success_timing": (kwargs.get("success_timing", "post"), ("pre", "post")),
    }
    for name, (found, expected) in choices.items():
        if found not in expected:
            raise ContractError(f"{name}={found!r}: expected {' or '.join(map(repr, expected))}")
