"""`swm/Fetch…-v3`: the Fetch arm reaches, pushes, slides, and picks and places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.env2d import column
from stable_worldmodel.envs.gymnasium_robotics import package
from stable_worldmodel.envs.mujoco.effects import RGB, Density, Put, Scale
from stable_worldmodel.envs.mujoco.env import MujocoEnv
from stable_worldmodel.envs.mujoco.factors import Factor, color, number, switch
from stable_worldmodel.envs.mujoco.scene_effects import Backdrop, Faded, Told
from stable_worldmodel.errors import ContractError

VIEW = {"distance": 2.5, "azimuth": 132.0, "elevation": -14.0, "lookat": (1.3, 0.75, 0.55)}
_PARTS = ("gripper_finger", "gripper", "arm", "head", "torso", "base")
_LOOKS = ("table.color", "object.color", "light.intensity", "background.color", "camera.angle_delta")
_SETTLE = 400  # substeps in which the arm goes where a factor wants it


class FetchWrapper(MujocoEnv):
    """A Fetch environment of Gymnasium-Robotics with factors of variation.

    Observations are float32, the package's `observation` and `desired_goal` in one array (13 or 28), or with
    `flatten=False` its dictionary. Actions are the change of the gripper's xyz (0.05 m) and its opening, in [-1, 1].
    Rewards are the package's: -1 or 0, or minus the distance. Success: within 0.05 m of the goal. Episodes are
    truncated at the package's limit of 50 steps and do not terminate.

    Info: `env_name`, the package's id; `qpos`, `qvel`, `qacc_warmstart`, `substep` and `goal_state` (xyz), from which a
    row is restored bit for bit; `proprio`, the package's observation; `state`, that and the goal; `goal`, a picture;
    `is_success`; `render_quality`.

    Reset options: `variation`, `variation_values`; `goal_state`, xyz; `state`, qpos‖qvel, with `substep` as recorded.
    Looks are varied by default. Factors of the arm, the block and the goal act where a reset names them.

    Args:
        env_id: of the package, such as "FetchPush-v4" or "FetchPushDense-v4".
        init_value: mapping factor name -> default, for the life of the env.
        resolution: side of the pictures.
        render_mode: "rgb_array", or None for an env that is never rendered.
        flatten: whether observations are one array.
        quality: of pictures: "full", "matched" or "fast".
        kwargs: of the package's env, `max_episode_steps` among them.
    """

    smooth = 128
    _goal: np.ndarray | None
    _before: np.ndarray | None
    _scene: Any

    def __init__(
        self,
        env_id: str,
        init_value: Mapping[str, Any] | None = None,
        resolution: int = 224,
        render_mode: str | None = None,
        flatten: bool = True,
        quality: str = "matched",
        **kwargs: Any,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        self.render_mode, self.flatten, self.env_id = render_mode, flatten, env_id
        self._shape = resolution, resolution
        self._arguments = dict(kwargs)
        self._fetch = self._build()
        model, data = self._model_and_data()
        look = None if quality == "full" else self._look
        self._site = model.site("target0").id
        self._simulate(model, data, self._table(), quality, init_value, look, self._look.digest)
        self.default_variations = tuple(name for name in _LOOKS if self._fetch.has_object or name != "object.color")
        self.action_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        inner = self._fetch.observation_space
        size = inner["observation"].shape[0] + inner["desired_goal"].shape[0]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32) if flatten else inner
        self._started = False

    def _build(self) -> Any:
        package.load()
        env = gym.make(self.env_id, disable_env_checker=True, **self._arguments)
        self._limit = env.spec.max_episode_steps if env.spec is not None else None
        self._nominal = env.unwrapped.initial_gripper_xpos.copy()  # type: ignore[attr-defined]
        self._weld = env.unwrapped.model.eq_data.copy()  # type: ignore[attr-defined]
        self._look = package.look_of(env.unwrapped.model)  # type: ignore[attr-defined]
        return env.unwrapped

    def _model_and_data(self) -> tuple[Any, Any]:
        return self._fetch.model, self._fetch.data

    def _table(self) -> tuple[Factor, ...]:
        low, high = np.array([1.15, 0.6]), np.array([1.45, 0.9])
        rows = [
            color("table.color", Put("mat_rgba", "table_mat", RGB), "of the table"),
            color("background.color", Backdrop("floor_mat"), "of floor and sky"),
            number(
                "light.intensity", 0, 1, Scale(("light_diffuse",), "light0"), "diffuse part of the light", dtype=float
            ),
            Factor(
                "camera.angle_delta", Told(np.zeros((1, 2))), -10.0, 10.0, (1, 2), about="orbit and height, degrees"
            ),
            Factor(
                "agent.start_position",
                Told(np.clip(self._nominal[:2], (1.25, 0.6), (1.45, 0.9))),
                np.array([1.25, 0.6]),
                np.array([1.45, 0.9]),
                (2,),
                about="xy of the gripper, around which block and goal are drawn, m",
            ),
            Factor(
                "goal.start_position",
                Told((1.3, 0.74, _HEIGHT)),
                np.array([*low, _HEIGHT]),
                np.array([*high, _HEIGHT]),
                (3,),
                about="xyz of the goal, m",
            ),
            switch(
                "rendering.transparent_arm",
                Faded(tuple(f"robot0:{part}_mat" for part in _PARTS)),
                "1: the arm is nearly transparent",
            ),
        ]
        if self._fetch.has_object:
            material = "puck_mat" if "Slide" in self.env_id else "block_mat"
            rows += [
                color("object.color", Put("mat_rgba", material, RGB), "of the block or puck"),
                Factor("block.start_position", Told((1.3, 0.74)), low, high, (2,), about="xy in m"),
                Factor("block.angle", Told(np.zeros(1)), -np.pi, np.pi, (1,), about="about the vertical, rad"),
                number("block.mass", 0.01, 50, Density(names=("object0",)), "kg; inertia in proportion", dtype=float),
            ]
        return tuple(rows)

    @property
    def camera(self) -> Any:  # type: ignore[override]
        """The package's view, turned about what it looks at as `camera.angle_delta` says."""
        import mujoco

        view = mujoco.MjvCamera()
        around, up = self._value("camera.angle_delta")[0]
        view.lookat[:], view.distance = VIEW["lookat"], VIEW["distance"]
        view.azimuth, view.elevation = VIEW["azimuth"] + around, VIEW["elevation"] - up
        return view

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        super().reset(seed=seed)
        options = options or {}
        self._draw_factors(seed, options)
        self._fetch.model.eq_data[:] = self._weld  # MuJoCo derives it again when a mass has changed
        fetch, start = self._fetch, self._asked("agent.start_position")
        fetch.initial_gripper_xpos = self._nominal.copy()
        if start is not None:
            fetch.initial_gripper_xpos[:2] = start
        fetch.reset(seed=int(self.np_random.integers(2**31)) if seed is None else seed)
        if start is not None:
            self._move_arm(fetch.initial_gripper_xpos - self._nominal)
        self._place_block()
        self._simulation.finish()
        self._started, self._steps, self._before = True, 0, None
        wanted = options.get("goal_state")
        asked = self._asked("goal.start_position")
        self._set_goal(wanted if wanted is not None else fetch.goal if asked is None else asked)
        self._forward()
        if options.get("state") is not None:
            self._write_state(options["state"], options)
        return self._report()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the gripper for 0.04 s. Raises ContractError unless `action` is 4 finite numbers."""
        import mujoco

        self._require_episode()
        values = np.array(action, np.float64)
        if values.shape != (4,) or not np.isfinite(values).all():
            raise ContractError(f"action={action!r}: expected 4 finite numbers")
        fetch, (model, data) = self._fetch, self._model_and_data()
        fetch._set_action(np.clip(values, -1.0, 1.0))
        mujoco.mj_step(model, data, fetch.n_substeps - 1)
        self._before = self._everything()
        mujoco.mj_step(model, data)
        fetch._step_callback()
        self._steps += 1
        observation, info = self._report()
        achieved = self._seen["achieved_goal"]
        reward = float(fetch.compute_reward(achieved, fetch.goal, info))
        truncated = self._limit is not None and self._steps >= self._limit
        return observation, reward, False, truncated, info

    def run_ahead(self, actions: Any) -> np.ndarray:
        """What actions (K, T, 4) would achieve, xyz (K, T, 3), from the present on; the episode stays as it is."""
        import mujoco

        self._require_episode()
        sequences = np.clip(np.array(actions, np.float64), -1.0, 1.0)
        fetch, ahead = self._fetch, self._simulation.scratch
        model, data = self._model_and_data()
        achieved = np.empty((*sequences.shape[:2], 3))
        try:
            fetch.data = ahead
            for sequence, places in zip(sequences, achieved, strict=True):
                mujoco.mj_copyData(ahead, model, data)
                for action, place in zip(sequence, places, strict=True):
                    fetch._set_action(action)
                    mujoco.mj_step(model, ahead, fetch.n_substeps)
                    fetch._step_callback()
                    place[:] = fetch._get_obs()["achieved_goal"]
        finally:
            fetch.data = data
        return achieved

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """The package's reward, for relabelling goals in hindsight."""
        return self._fetch.compute_reward(np.asarray(achieved_goal), np.asarray(desired_goal), info)

    def _report(self) -> tuple[Any, dict[str, Any]]:
        self._seen = self._fetch._get_obs()
        flat = np.concatenate([self._seen["observation"], self._seen["desired_goal"]]).astype(np.float32)
        if self._goal is None and self.render_mode is not None:
            self._goal = self._draw_goal()
        info = {
            "env_name": self.env_id,
            **self._state_info(),
            "state": flat.copy(),
            "proprio": self._seen["observation"].copy(),
            "goal_state": self._fetch.goal.copy(),
            "substep": np.zeros_like(self._everything()) if self._before is None else self._before.copy(),
            "is_success": bool(self._fetch._is_success(self._seen["achieved_goal"], self._fetch.goal)),
        }
        if self._goal is not None:
            info["goal"] = self._goal.copy()
        return (flat if self.flatten else self._seen), info

    # ------------------------------------------------------------------ placing
    def _move_arm(self, shift: np.ndarray) -> None:
        """Let the arm follow its mocap body by `shift`, then stand still; the block stays where it is."""
        import mujoco

        model, data = self._model_and_data()
        block = data.qpos[-7:].copy()
        if self._fetch.has_object:
            data.qpos[-7:-5] = _ASIDE
        self._fetch._utils.reset_mocap2body_xpos(model, data)
        data.mocap_pos[0] += shift
        mujoco.mj_step(model, data, _SETTLE)
        if self._fetch.has_object:
            data.qpos[-7:] = block
        data.qvel[:], data.qacc_warmstart[:], data.time = 0.0, 0.0, self._fetch.initial_time
        mujoco.mj_forward(model, data)

    def _place_block(self) -> None:
        if not self._fetch.has_object:
            return
        qpos = self._fetch.data.qpos
        place, angle = self._asked("block.start_position"), self._asked("block.angle")
        if place is not None:
            qpos[-7:-5] = place
        if angle is not None:
            qpos[-4:] = np.cos(angle[0] / 2), 0, 0, np.sin(angle[0] / 2)

    def _set_goal(self, goal: Any) -> None:
        found = np.array(goal, np.float64).reshape(-1)
        if found.shape != (3,) or not np.isfinite(found).all():
            raise ContractError(f"goal_state={goal!r}: expected 3 finite numbers, xyz in m")
        self._fetch.goal, self._goal = found, None
        model, data = self._model_and_data()
        self._scene = data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()
        model.site_pos[self._site] = found - data.xpos[model.site_bodyid[self._site]]

    def _draw_goal(self) -> np.ndarray:
        """The picture with the block, or the gripper, at the goal."""
        import mujoco

        model, other = self._fetch.model, self._simulation.scratch
        mujoco.mj_resetData(model, other)
        other.qpos[:], other.mocap_pos[:], other.mocap_quat[:] = self._scene
        if self._fetch.has_object:
            other.qpos[-7:-4] = self._fetch.goal
        else:
            mujoco.mj_forward(model, other)
            self._fetch._utils.reset_mocap2body_xpos(model, other)
            other.mocap_pos[0] += self._fetch.goal - other.site("robot0:grip").xpos
            mujoco.mj_step(model, other, _SETTLE)
        mujoco.mj_forward(model, other)
        return self._simulation.picture(self._shape, self.camera, other)

    def sample_goal(self, seed: int | None = None) -> np.ndarray:
        """A goal, xyz, as the package draws them; the episode stays as it is."""
        self._require_episode()
        fetch = self._fetch
        kept, fetch.np_random = fetch.np_random, np.random.default_rng(seed)
        try:
            return fetch._sample_goal()
        finally:
            fetch.np_random = kept

    # ------------------------------------------------------------------ pictures
    def _resized(self) -> None:
        self._goal = None

    def render(self, *args: Any, **kwargs: Any) -> np.ndarray | None:
        """See MujocoEnv."""
        self._require_episode()
        return super().render(*args, **kwargs)

    # ------------------------------------------------------------------ restoring
    def _write_state(self, state: Any, extra: Mapping[str, Any]) -> None:
        import mujoco

        qpos, qvel = self._state_of("state", state)
        model, data = self._model_and_data()
        before = extra.get("substep")
        if before is not None and np.any(before):
            values = np.array(before, np.float64).reshape(-1)
            self._repeat(values)
            if np.array_equal(data.qpos, qpos) and np.array_equal(data.qvel, qvel):
                self._before = values
                return
        self._simulation.write_state(qpos, qvel)
        mujoco.mj_forward(model, data)
        self._simulation.write_state(qpos, qvel, None, extra.get("qacc_warmstart"))

    def _repeat(self, before: np.ndarray) -> None:
        """Make the last substep again: what is derived, such as where the gripper is, lags behind by one."""
        import mujoco

        if before.shape != self._everything().shape:
            raise ContractError(f"substep has shape {before.shape}: expected {self._everything().shape}")
        model, data = self._model_and_data()
        mujoco.mj_setState(model, data, before, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_step(model, data)
        self._fetch._step_callback()

    def set_state(self, qpos: Any, qvel: Any) -> None:
        """Go on from these positions and velocities."""
        self._require_episode()
        self._before = None
        self._write_state(np.concatenate([np.ravel(qpos), np.ravel(qvel)]), {})

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """Reset options that restore a recorded row bit for bit; the goal is what was achieved in `goal_row`.

        Raises:
            MissingKeyError: `qpos` or `qvel` is missing, or `goal_qpos` and `goal_proprio` both are.
        """
        options = super().reset_options_from_dataset(
            {**init_row, "qpos": column(init_row, "qpos"), "qvel": column(init_row, "qvel")}, goal_row
        )
        if "substep" in init_row:
            options["substep"] = np.ravel(init_row["substep"])
        proprio = column(goal_row, "goal_proprio").reshape(-1)
        # Of the package's observation: the gripper, then the block.
        return options | {"goal_state": proprio[3:6] if self._fetch.has_object else proprio[:3]}

    def _everything(self) -> np.ndarray:
        import mujoco

        model, data = self._model_and_data()
        values = np.empty(mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_INTEGRATION)))
        mujoco.mj_getState(model, data, values, int(mujoco.mjtState.mjSTATE_INTEGRATION))
        return values

    def _forward(self) -> None:
        import mujoco

        mujoco.mj_forward(*self._model_and_data())

    # ------------------------------------------------------------------ copies
    def __getstate__(self) -> dict[str, Any]:
        goal = self._fetch.goal.copy(), self._fetch.initial_gripper_xpos.copy()
        return {**super().__getstate__(), "_fetch": None, "_goal_of_fetch": goal}

    def __setstate__(self, state: dict[str, Any]) -> None:
        goal, start = state.pop("_goal_of_fetch")
        self.env_id, self._arguments = state["env_id"], state["_arguments"]
        state["_fetch"] = self._build()
        state["_fetch"].initial_gripper_xpos = start
        picture, scene = state.get("_goal"), state.get("_scene")
        super().__setstate__(state)
        self._simulation.restore()
        self._simulation.finish()
        self._fetch.model.eq_data[:] = self._weld
        if self._started:
            self._set_goal(goal)
            self._goal, self._scene = picture, scene
        warmstart = self._fetch.data.qacc_warmstart.copy()
        self._forward()
        self._fetch.data.qacc_warmstart[:] = warmstart
        if self._before is not None:
            self._repeat(self._before)

    def _require_episode(self) -> None:
        if not self._started:
            raise gym.error.ResetNeeded("FetchWrapper has no episode yet; call reset() first")


_ASIDE = 1.1, 0.45  # xy of a corner of the table, m
_HEIGHT = 0.4247  # m, of things on the table
