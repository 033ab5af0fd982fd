"""What the DM Control environments share; each of them is a table on top of this."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np

from stable_worldmodel.envs.mujoco import gl
from stable_worldmodel.envs.mujoco.env import MujocoEnv
from stable_worldmodel.envs.mujoco.factors import Factor
from stable_worldmodel.errors import ContractError, require

ACTION_REPEAT = 2  # suite steps per env step
_SOLVED = 0.95  # of a suite step's reward, whose maximum is 1

Measure = Callable[[Any], Any]  # of a dm_control Physics


class Task(NamedTuple):
    """One task of a domain.

    Attributes:
        suite: the suite's task that places things at reset and observes.
        reward: in place of the suite's, in 0…1.
        has_goal: whether it is to reach a configuration, see ConfigurationGoal.
    """

    suite: str
    reward: Measure | None = None
    has_goal: bool = False


class Draw(NamedTuple):
    """Something besides qpos and qvel that a suite task draws at reset: how to read it, and to write it back."""

    read: Measure
    write: Callable[[Any, np.ndarray], None]


class DMControlWrapper(MujocoEnv):
    """A domain of the DeepMind Control Suite with factors of variation. With default factors it is the suite's own.

    Actions are in [-1, 1] and scaled to the actuators; each is repeated for two suite steps, whose rewards are added.
    Observations are the suite's, flattened in its order, float32. An episode is truncated at the suite's limit and
    terminates only in tasks with a goal.

    Info: `env_name`; `qpos`, `qvel`, `state` (both), `qacc_warmstart`, `act` where there are activations, all float64;
    `score`, the sum of rewards / 1000; `is_success`, whether the last suite step was rewarded with at least 0.95 of 1;
    `render_quality`; what `extras` and `draws` of the subclass name.

    Reset options: `variation`, `variation_values`; `state`, qpos‖qvel, with `act` and `qacc_warmstart` if wanted; every
    name in `draws`. Nothing is varied unless asked for.

    Args:
        task: one of `tasks`; "-" and "_" are the same.
        seed: for resets until the first one with a seed.
        environment_kwargs: passed to the suite's Environment.
        render_mode: "rgb_array", or None for an env that is never rendered.
        init_value: mapping factor name -> default, for the life of the env.
        quality: of pictures: "full", "matched" or "fast".
    """

    domain: ClassVar[str]
    tasks: ClassVar[Mapping[str, Task]]
    default_task: ClassVar[str]
    extras: ClassVar[Mapping[str, Measure]] = {}
    draws: ClassVar[Mapping[str, Draw]] = {}

    def __init__(
        self,
        task: str | None = None,
        seed: int | None = None,
        environment_kwargs: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        init_value: Mapping[str, Any] | None = None,
        quality: str = "matched",
    ):
        if render_mode not in (None, "rgb_array"):
            raise ContractError(f"render_mode={render_mode!r}: expected 'rgb_array' or None")
        self.render_mode = render_mode
        self.task = self._task_named(self.default_task if task is None else task)
        self._first_seed = seed
        self._dmc = load(self.domain, self.tasks[self.task].suite, environment_kwargs)
        self._simulate(*self._model_and_data(), self.table(self.task), quality, init_value)
        spec = self._dmc.action_spec()
        self.action_space = gym.spaces.Box(-1.0, 1.0, spec.shape, np.float64)
        self._low, self._high = spec.minimum, spec.maximum
        size = sum(int(np.prod(entry.shape)) for entry in self._dmc.observation_spec().values())
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._started = False

    @classmethod
    def table(cls, task: str) -> tuple[Factor, ...]:
        """The factors for a task."""
        raise NotImplementedError

    @property
    def dmc_env(self) -> Any:
        """The `dm_control.rl.control.Environment` underneath."""
        return self._dmc

    @property
    def name(self) -> str:
        """What info calls `env_name`: the class name without its suffix."""
        return type(self).__name__.removesuffix("DMControlWrapper")

    # ------------------------------------------------------------------ episode
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed and options give the same one. See the class for `options`."""
        if seed is None and not self._started:
            seed = self._first_seed
        super().reset(seed=seed)
        options = options or {}
        physics, task = self._dmc.physics, self._dmc.task
        self._draw_factors(seed, options)
        task._random = np.random.RandomState(self.np_random.integers(2**32))  # the suite offers no other way
        with physics.reset_context():
            task.initialize_episode(physics)
            self._simulation.finish()
            for name, draw in self.draws.items():
                if options.get(name) is not None:
                    draw.write(physics, np.asarray(options[name], np.float64).reshape(-1))
        self._begin_goal(options)
        if options.get("state") is not None:
            self._write_state("state", options["state"], options.get("act"), options.get("qacc_warmstart"))
        self._steps, self._return, self._reward = 0, 0.0, 0.0
        self._started = True
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Two suite steps with one action. Raises ContractError unless it is n finite numbers."""
        self._require_episode()
        values = np.asarray(action, np.float64)
        if values.shape != self.action_space.shape or not np.isfinite(values).all():
            raise ContractError(f"action={action!r}: expected {len(self._low)} finite numbers")
        physics, task, environment = self._dmc.physics, self._dmc.task, self._dmc
        control = self._scaled(np.clip(values, -1.0, 1.0))
        total, terminated = 0.0, False
        for _ in range(ACTION_REPEAT):
            task.before_step(control, physics)
            physics.step(environment._n_sub_steps)
            task.after_step(physics)
            self._reward = float(self._measure_reward(physics))
            total += self._reward
            self._steps += 1
            terminated |= self._reached_goal()  # at either step; both are made, so that no goal changes the motion
        self._return += total
        truncated = self._steps >= environment._step_limit and not terminated
        return self._observe(), total, terminated, truncated, self._info()

    def _measure_reward(self, physics: Any) -> float:
        own = self.tasks[self.task].reward
        return self._dmc.task.get_reward(physics) if own is None else own(physics)

    def _scaled(self, action: np.ndarray) -> np.ndarray:
        """Actuator commands; exactly the action where the actuator's range is [-1, 1]."""
        scaled = self._low + (self._high - self._low) / 2.0 * (action + 1.0)
        return np.where((self._low == -1.0) & (self._high == 1.0), action, scaled)

    def _observe(self) -> np.ndarray:
        parts = self._dmc.task.get_observation(self._dmc.physics).values()
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        physics = self._dmc.physics
        measured = {name: np.array(measure(physics), np.float64) for name, measure in self.extras.items()}
        drawn = {name: np.array(draw.read(physics), np.float64) for name, draw in self.draws.items()}
        return {
            "env_name": self.name,
            **self._state_info(),
            **measured,
            **drawn,
            "score": self._return / 1000.0,
            "is_success": self._is_success(),
        }

    def _is_success(self) -> bool:
        return self._reward >= _SOLVED

    def run_ahead(self, actions: Any) -> np.ndarray:
        """States (K, T, nq + nv) after each of the actions (K, T, n) from here on. The env stays where it is."""
        self._require_episode()
        sequences = np.asarray(actions, np.float64)
        if sequences.ndim != 3 or sequences.shape[2:] != self.action_space.shape:
            raise ContractError(f"actions have shape {sequences.shape}: expected (K, T, {len(self._low)})")
        controls = self._scaled(np.clip(sequences, -1.0, 1.0))
        return self._simulation.run_ahead(controls, ACTION_REPEAT * self._dmc._n_sub_steps)

    # ------------------------------------------------------------------ goals, for tasks that have one
    def _begin_goal(self, options: Mapping[str, Any]) -> None:
        """Choose the goal of the episode."""

    def _reached_goal(self) -> bool:
        return False

    # ------------------------------------------------------------------ restoring
    def set_state(self, qpos: Any, qvel: Any) -> None:
        """Go on from these positions and velocities, with everything else as at the start of an episode."""
        self._require_episode()
        self._write_state("state", np.concatenate([np.ravel(qpos), np.ravel(qvel)]), None, None)

    def set_gravity(self, gravity: Any) -> None:
        """Set gravity, xyz in m/s², until the next reset."""
        values = np.asarray(gravity, np.float64)
        if values.shape != (3,) or not np.isfinite(values).all():
            raise ContractError(f"gravity={gravity!r}: expected 3 finite numbers")
        self._simulation.model.opt.gravity[:] = values

    def reset_options_from_dataset(self, init_row: Mapping[str, Any], goal_row: Mapping[str, Any]) -> dict[str, Any]:
        """See MujocoEnv; what a suite task has drawn, such as a target, is restored as well if it was recorded."""
        options = super().reset_options_from_dataset(init_row, goal_row)
        return options | {name: np.ravel(init_row[name]) for name in self.draws if name in init_row}

    def _write_state(self, name: str, state: Any, act: Any, warmstart: Any) -> None:
        qpos, qvel = self._state_of(name, state)
        with self._dmc.physics.reset_context():
            self._simulation.write_state(qpos, qvel, act, warmstart)

    def _require_episode(self) -> None:
        if not self._started:
            raise gym.error.ResetNeeded(f"{type(self).__name__} has no episode yet; call reset() first")

    def render(self, *args: Any, **kwargs: Any) -> np.ndarray | None:
        """See MujocoEnv."""
        self._require_episode()
        return super().render(*args, **kwargs)

    def _model_and_data(self) -> tuple[Any, Any]:
        physics = self._dmc.physics
        return physics.model.ptr, physics.data.ptr

    @classmethod
    def _task_named(cls, task: str) -> str:
        for name in cls.tasks:
            if name.replace("-", "_") == str(task).replace("-", "_"):
                return name
        raise ContractError(f"task={task!r}: expected one of {', '.join(cls.tasks)}")


def load(domain: str, task: str, environment_kwargs: Mapping[str, Any] | None = None) -> Any:
    """The suite's own environment."""
    with gl.chosen_for_imports():
        suite = require("dm_control.suite", "env")
    with _quiet():
        return suite.load(domain, task, environment_kwargs=dict(environment_kwargs or {}))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes on deprecated MJCF that loading one of the suite's own models logs."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
