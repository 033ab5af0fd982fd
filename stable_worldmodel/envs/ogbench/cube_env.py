"""`swm/OGBCube-v0`: a robot arm moves and stacks one to eight cubes."""

from __future__ import annotations

from typing import Any

import numpy as np

from stable_worldmodel.envs.mujoco.factors import Factor
from stable_worldmodel.envs.ogbench import factors, package
from stable_worldmodel.envs.ogbench.manipulation import Manipulation

_base = package.load("manipspace.envs.cube_env").CubeEnv
ENV_TYPES = {"single": 1, "double": 2, "triple": 3, "quadruple": 4, "octuple": 8}


class CubeEnv(Manipulation, _base):  # type: ignore[misc, valid-type]
    """Cubes on a table, to be brought to their goals; physics, robot and tasks are the `ogbench` package's.

    Observations are the package's, float64 (19 + 9 per cube): arm, gripper, and pose of each cube. Actions are the
    change of the gripper's xyz (0.05 m), yaw (0.3 rad) and opening, each in [-1, 1], for 0.05 s. The reward is 1 at the
    goal; with a reward task it is minus the number of cubes elsewhere. Success: every cube, or in data collection the
    target cube, is within 0.04 m of its goal.

    Info: `env_name`; `qpos`, `qvel`, `state` (both); what the package tells (`proprio/…`, `privileged/…`, `prev_qpos`,
    `prev_qvel`, `control`, `time`); `qacc_warmstart` and `substep`, which let a row be restored bit for bit;
    `goal_state`, qpos‖qvel; `goal`, its picture; `target`, the observation of it; `success` = `is_success`;
    `render_quality`.

    Reset options: `variation`, `variation_values`; `task_id` (from 1) or `task_info`; `state`, `goal_state`, qpos‖qvel;
    `control`, `substep`, `qacc_warmstart`, `time` as recorded beside `state`.

    In mode "task" a task places the cubes unless a reset names their factors; nothing is varied unless asked for. In
    mode "data_collection" the factors place them, and their places are varied by default.

    Args:
        env_type: one of `ENV_TYPES`; "single" by default.
        ob_type: "states", or "pixels" for pictures as observations and a transparent arm.
        permute_blocks: whether cubes change roles in tasks.
        multiview: whether `render_multiview` returns two views.
        height, width: of pictures.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.
        quality: of pictures: "full", "matched" or "fast".
        kwargs: of the package: `mode`, `terminate_at_goal`, `success_timing`, `visualize_info`, `reward_task_id`, …
    """

    variants = tuple(ENV_TYPES)
    side_cameras = {  # noqa: RUF012
        "side": {"pos": (1.287, 0.0, 0.509), "xyaxes": (1.0, 0.0, 0.0, -0.001, 0.628, 0.778)},
        "side_pixels": {"pos": (0.414, -0.753, 0.639), "xyaxes": (1.0, 0.0, 0.0, -0.001, 0.628, 0.778)},
    }
    angle = 10.0
    smooth = 128

    def _table(self) -> tuple[Factor, ...]:
        count, area = self._num_cubes, self._object_sampling_bounds
        return factors.table(
            count,
            self._cube_colors[:count, :3],
            area,
            self._arm_sampling_bounds,
            factors.in_a_row(count, area),
            ("front_pixels", "side_pixels") if self.multiview else ("front_pixels",),
            self.angle,
        )

    def _set_up_task(self) -> None:
        order = self.np_random.permutation(self._num_cubes) if self._permute_blocks else np.arange(self._num_cubes)
        with self._elsewhere():
            self.initialize_arm()
            self._arrange(np.asarray(self.cur_task_info["goal_xyzs"], np.float64)[order], jitter=False)
            poses = [self._data.joint(f"object_joint_{cube}").qpos.copy() for cube in range(self._num_cubes)]
            self._settle()
            self._visit()
        for cube, pose in enumerate(poses):
            self._aim_cube(cube, pose[:3], pose[3:])
        self.initialize_arm()
        self._arrange(np.asarray(self.cur_task_info["init_xyzs"], np.float64)[order], jitter=True)

    def post_step(self) -> None:
        """Find out what is at its goal, and mark the goals."""
        reached = self._compute_successes()
        collecting = self._mode == "data_collection"
        self._success = reached[self._target_block] if collecting else all(reached)
        for cube, geoms in enumerate(self._cube_target_geom_ids_list):
            marked = self._visualize_info and (not collecting or cube == self._target_block)
            self._model.geom_rgba[geoms, 3] = 0.2 if marked else 0.0

    def set_state(self, qpos: Any, qvel: Any) -> None:
        """Go on from these positions and velocities."""
        self._require_episode()
        self._write_state(np.concatenate([np.ravel(qpos), np.ravel(qvel)]), {})

    def set_target_pos(self, cube_id: int, target_pos: Any, target_quat: Any = None) -> None:
        """Set where a cube is to go, xyz in m and wxyz; `success` follows at the next step."""
        self._point_cube(cube_id, target_pos, target_quat)
