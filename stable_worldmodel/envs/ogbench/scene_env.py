"""`swm/OGBScene-v0`: a robot arm, a cube, two buttons, and the drawer and window that they lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stable_worldmodel.envs.mujoco.factors import Factor, color
from stable_worldmodel.envs.mujoco.scene_effects import Told
from stable_worldmodel.envs.ogbench import factors, package
from stable_worldmodel.envs.ogbench.manipulation import FINE, Manipulation
from stable_worldmodel.errors import ContractError

_base = package.load("manipspace.envs.scene_env").SceneEnv
_SLIDES = {"drawer": (-0.16, 0.0), "window": (0.0, 0.2)}  # m; open at -0.16 and at 0.2
_JITTER = 0.01  # m, of drawer and window at the start of a task


class SceneEnv(Manipulation, _base):  # type: ignore[misc, valid-type]
    """Several things to handle; physics, robot and tasks are the `ogbench` package's.

    As CubeEnv, with these differences. Observations have 40 entries: of the buttons (state as two flags, position,
    velocity), the drawer and the window (position, velocity) too. A button that is pressed changes its state; in state
    0 it locks the drawer (button 0) or the window (button 1). Success: the cube, drawer and window are within 0.04 m of
    their goals and the buttons as they should be; in data collection, the one of them that is the target.

    Info, in addition: `button_states`, `prev_button_states`, `goal_button_states`.

    Reset options, in addition: `button_states` beside `state`, by default what the episode starts with, and
    `goal_button_states` beside `goal_state`.

    Args: those of CubeEnv; `env_type` is for compatibility.
    """

    variants = ("scene",)
    side_cameras = {  # noqa: RUF012
        "side_pixels": {"pos": (0.4, -0.505, 0.762), "xyaxes": (1.0, 0.0, 0.0, 0.0, 0.771, 0.637)},
    }
    angle = 5.0
    smooth = 480  # the window and the drawer are all edges
    details = {np.inf: FINE}  # noqa: RUF012  (the camera at the side sees the arm from near)

    def _table(self) -> tuple[Factor, ...]:
        area, red = self._object_sampling_bounds, self._colors["red"][:3]
        about = "of the buttons that lock, and of what they lock"
        return factors.table(
            self._num_cubes,
            self._cube_colors[: self._num_cubes, :3],
            area,
            self._arm_sampling_bounds,
            area.mean(0)[None],
            ("front_pixels", "side_pixels") if self.multiview else ("front_pixels",),
            self.angle,
            (color("lock_color.value", Told(np.stack([red, red])), about, shape=(2, 3)),),
        )

    # ------------------------------------------------------------------ buttons
    def _apply_button_states(self) -> None:
        super()._apply_button_states()
        model, colors = self._model, self._value("lock_color.value")
        for button, thing in enumerate(_SLIDES):
            if self._cur_button_states[button] == 0:
                model.geom_rgba[self._button_geom_ids_list[button], :3] = colors[button]
                model.mat_rgba[model.material(f"{thing}_handle").id, :3] = colors[button]

    def set_state(self, qpos: Any, qvel: Any, button_states: Any = None, **states: int) -> None:
        """Go on from these positions, velocities and states of the buttons.

        Args:
            button_states: 0 or 1 of each; None: as they are.
            states: `button_state_0`, `button_state_1`, in place of `button_states`.
        """
        self._require_episode()
        wanted = self._cur_button_states if button_states is None else button_states
        names = [f"button_state_{button}" for button in range(self._num_buttons)]
        if unknown := sorted(set(states) - set(names)):
            raise ContractError(f"unknown {', '.join(unknown)}: expected {', '.join(names)}")
        wanted = [states.get(name, value) for name, value in zip(names, np.ravel(wanted), strict=True)]
        self._write_state(np.concatenate([np.ravel(qpos), np.ravel(qvel)]), {"button_states": wanted})

    def _write_state(self, state: Any, extra: Mapping[str, Any]) -> None:
        if extra.get("button_states") is not None:
            after = self._buttons("button_states", extra["button_states"])
            before = extra.get("prev_button_states")
            self._cur_button_states = after if before is None else self._buttons("prev_button_states", before)
            self._apply_button_states()
            super()._write_state(state, extra)
            if not np.array_equal(self._cur_button_states, after):
                self._cur_button_states = after
                self._apply_button_states()
                self._after_buttons(state, extra)
            return
        super()._write_state(state, extra)

    def _after_buttons(self, state: Any, extra: Mapping[str, Any]) -> None:
        """Put back what recomputing forces has changed."""
        self._simulation.write_state(*self._state_of("state", state), None, extra.get("qacc_warmstart"))

    def _buttons(self, name: str, states: Any) -> np.ndarray:
        found = np.array(states, np.int64).reshape(-1)
        if found.shape != (self._num_buttons,) or not np.isin(found, (0, 1)).all():
            raise ContractError(f"{name}={states!r}: expected {self._num_buttons} of 0 or 1")
        return found

    # ------------------------------------------------------------------ placing
    def _scatter(self) -> None:
        super()._scatter()
        self._cur_button_states = np.array(self.np_random.integers(self._num_button_states, size=self._num_buttons))
        self._target_button_states = self._cur_button_states.copy()
        self._apply_button_states()
        for name, (low, high) in _SLIDES.items():
            self._data.joint(f"{name}_slide").qpos[0] = self.np_random.uniform(low, high)

    def _set_up_task(self) -> None:
        start, goal = self.cur_task_info["init"], self.cur_task_info["goal"]
        order = self.np_random.permutation(self._num_cubes) if self._permute_blocks else np.arange(self._num_cubes)
        self._target_button_states = np.array(goal["button_states"])
        with self._elsewhere():
            self.initialize_arm()
            self._arrange(np.asarray(goal["block_xyzs"], np.float64)[order], jitter=False)
            poses = [self._data.joint(f"object_joint_{cube}").qpos.copy() for cube in range(self._num_cubes)]
            self._set_things(goal)
            self._settle()
            self._visit()
        for cube, pose in enumerate(poses):
            self._aim_cube(cube, pose[:3], pose[3:])
        self._target_drawer_pos, self._target_window_pos = goal["drawer_pos"], goal["window_pos"]
        self._mark_targets()
        self.initialize_arm()
        self._arrange(np.asarray(start["block_xyzs"], np.float64)[order], jitter=True)
        shifts = {f"{name}_pos": start[f"{name}_pos"] + self.np_random.uniform(-_JITTER, _JITTER) for name in _SLIDES}
        self._set_things({"button_states": start["button_states"], **shifts})

    def _set_things(self, scene: Mapping[str, Any]) -> None:
        self._cur_button_states = np.array(scene["button_states"])
        for name, limits in _SLIDES.items():
            self._data.joint(f"{name}_slide").qpos[0] = np.clip(scene[f"{name}_pos"], *limits)
        self._apply_button_states()

    def _mark_targets(self) -> None:
        self._model.site("drawer_handle_center_target").pos[1] = self._target_drawer_pos
        self._model.site("window_handle_center_target").pos[0] = self._target_window_pos

    # ------------------------------------------------------------------ goals
    def _visit(self, state: np.ndarray | None = None) -> None:
        """See Manipulation; the buttons of a goal are those of the target."""
        kept = self._cur_button_states
        self._cur_button_states = self._target_button_states.copy()
        try:
            super()._visit(state)
        finally:
            self._cur_button_states = kept

    def _draw_goal(self) -> np.ndarray:
        kept, self._cur_button_states = self._cur_button_states, self._target_button_states
        data = self._data
        try:
            self._data = self._simulation.scratch
            self._apply_button_states()
            return super()._draw_goal()
        finally:
            self._cur_button_states = kept
            self._data = self._simulation.scratch
            self._apply_button_states()
            self._data = data

    def _take_goal(self, state: Any) -> None:
        qpos, _ = self._state_of("goal_state", state)
        places = [qpos[self._model.joint(f"{name}_slide").qposadr[0]] for name in _SLIDES]
        self._target_drawer_pos, self._target_window_pos = (float(place) for place in places)
        self._mark_targets()
        super()._take_goal(state)

    def _restore(self, options: Mapping[str, Any]) -> None:
        if options.get("goal_button_states") is not None:
            self._target_button_states = self._buttons("goal_button_states", options["goal_button_states"])
            if options.get("goal_state") is None:
                options = {**options, "goal_state": self._goal_state}
        if options.get("target_task") is not None:
            self._target_task = str(options["target_task"])
        super()._restore(options)

    def set_new_target(self, return_info: bool = True, p_stack: float = 0.5) -> Any:
        """See Manipulation; what is not the target is to stay as it is."""
        if self._mode == "data_collection":
            self._target_button_states = self._cur_button_states.copy()
        return super().set_new_target(return_info, p_stack)

    def _show_target_reached(self) -> None:
        super()._show_target_reached()
        if self._target_task in _SLIDES:
            place = getattr(self, f"_target_{self._target_task}_pos")
            self._data.joint(f"{self._target_task}_slide").qpos[0] = place

    def set_cube_target_pos(self, cube_id: int, target_pos: Any, target_quat: Any = None) -> None:
        """Set where the cube is to go, xyz in m and wxyz; `success` follows at the next step."""
        self._point_cube(cube_id, target_pos, target_quat)

    set_target_pos = set_cube_target_pos

    def set_target_button_state(self, button_id: int, state: int) -> None:
        """Set what a button is to be, 0 or 1."""
        self._require_episode()
        if not 0 <= button_id < self._num_buttons:
            raise ContractError(f"button_id={button_id}: expected 0 … {self._num_buttons - 1}")
        wanted = self._target_button_states.copy()
        wanted[button_id] = state
        self._restore({"goal_button_states": wanted})

    def set_target_drawer_pos(self, position: float) -> None:
        """Set where the drawer is to be, m; -0.16 is open, 0 closed."""
        self._set_slide("drawer", position)

    def set_target_window_pos(self, position: float) -> None:
        """Set where the window is to be, m; 0.2 is open, 0 closed."""
        self._set_slide("window", position)

    def _set_slide(self, name: str, position: float) -> None:
        self._require_episode()
        low, high = _SLIDES[name]
        if not low <= position <= high:
            raise ContractError(f"{name} position {position}: expected {low} … {high}")
        state = self._goal_state.copy()
        state[self._model.joint(f"{name}_slide").qposadr[0]] = position
        self._take_goal(state)

    def _info(self) -> dict[str, Any]:
        return super()._info() | {"goal_button_states": self._target_button_states.copy()}

    def pre_step(self) -> None:
        """Remember the states of the buttons and where everything is before a step."""
        super().pre_step()
        self._prev_button_states = self._cur_button_states.copy()
        self._prev_ob_info = {  # what the package reads of all that it would note here
            f"privileged/button_{button}_pos": self._data.joint(f"buttonbox_joint_{button}").qpos.copy()
            for button in range(self._num_buttons)
        }

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """See Manipulation; states of the buttons are restored as well if they were recorded."""
        options = super().reset_options_from_dataset(init_row, goal_row)
        for name in ("button_states", "prev_button_states"):
            if name in init_row:
                options[name] = np.ravel(init_row[name])
        if "goal_button_states" in goal_row:
            options["goal_button_states"] = np.ravel(goal_row["goal_button_states"])
        return options
