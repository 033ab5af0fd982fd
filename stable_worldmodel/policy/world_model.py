"""Planning with a world model: solve, execute the first part of the plan, solve again."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.buffer import HistoryBuffer
from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy.base import BasePolicy
from stable_worldmodel.policy.config import ACTION_HISTORY_KEY, PlanConfig
from stable_worldmodel.policy.memory import GoalMemory, LatentMemory
from stable_worldmodel.policy.prepare import Process, Transform, apply_scaler, live_envs, prepare_info
from stable_worldmodel.protocols import Info, Solver
from stable_worldmodel.solver.common import select_rows
from stable_worldmodel.solver.problem import NoFiniteCostError


class WorldModelPolicy(BasePolicy):
    """Receding-horizon control of many envs, each replanned when its own queue of actions is empty.

    A plan is a function of its env's info, warm start and history only: envs are solved together only if these have
    the same lengths, and the solver's noise is keyed by (episode seed, decision index). Without episode seeds the key
    is the env's slot and a count of its solves. What the solver returns as `goal` is given back to it as entries of the
    info for the rest of the episode, so that an unchanged goal is encoded once. What it returns as `context` are the
    latents of the context's frames; if all but the newest of the next context are among them (`receding_horizon` 1),
    it gets these as `past_emb` (n, L - 1, ...) in place of the frames.

    Args:
        solver: a Solver. If its `configure` takes `action_bounds` it gets the Box bounds in the scaled action space;
            if its `solve` takes `keys` it gets the noise keys.
        config: how far to plan and how much to execute.
        process: scalers per info column, (rows, d) -> (rows, d). That of `action` spans the space the solver plans in.
        transform: callables per info key, applied to one (C, H, W) uint8 tensor at a time. World models of this
            library normalise uint8 images themselves.
        history_keys: every input of the model's encoder; with `config.history_len` > 1 they carry the frames at the
            last macro steps, and `action_history` (n, L - 1, A) the actions in between. Early in an episode the
            context is shorter.
    """

    type = "world_model"

    def __init__(
        self,
        solver: Solver,
        config: PlanConfig,
        process: Process | None = None,
        transform: Transform | None = None,
        *,
        history_keys: Sequence[str] = ("pixels",),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.solver = solver
        self.config = config
        self.process = dict(process or {})
        self.transform = dict(transform or {})
        self.history_keys = tuple(history_keys)

    @property
    def flatten_receding_horizon(self) -> int:
        """Env steps executed per plan."""
        return self.config.receding_horizon * self.config.action_block

    @property
    def plan_seconds(self) -> list[float]:
        """How long each solve took since a pool was attached; several envs may share one."""
        return list(self._plan_seconds)

    def set_env(self, env: Any) -> None:
        """Attach a pool, configure the solver for it and forget all plans. TypeError if the solver is not a Solver."""
        for method in ("configure", "solve"):
            if not callable(getattr(self.solver, method, None)):
                raise TypeError(f"{type(self.solver).__name__} is not a Solver: it has no callable {method}")
        super().set_env(env)
        space, num_envs, config = env.single_action_space, env.num_envs, self.config
        self._is_box = isinstance(space, gym.spaces.Box)
        self._action_size = math.prod(space.shape)
        self._queue = np.zeros((num_envs, self.flatten_receding_horizon, self._action_size), space.dtype)
        self._cursor = np.full(num_envs, self.flatten_receding_horizon)  # next action; at the end: empty
        tail = (num_envs, config.horizon - config.receding_horizon, self._action_size * config.action_block)
        self._tails = np.zeros(tail, np.float32 if self._is_box else np.int64)
        self._has_tail = np.zeros(num_envs, bool)
        self._episode_keys = -1 - np.arange(num_envs)  # negative: no seed, the slot instead
        self._solves = np.zeros(num_envs, np.int64)
        self._first_solve = np.zeros(num_envs, np.int64)  # `_solves` when the seeded episode began
        self._goals = GoalMemory(num_envs)
        self._latents = LatentMemory(num_envs, config.history_len, config.action_block)
        self._plan_seconds: list[float] = []
        self._history: HistoryBuffer | None = None
        if config.history_len > 1:
            capacity = config.history_capacity
            self._history = HistoryBuffer(num_envs, capacity, config.action_block, block_keys=("action",))
        optional = {}
        if _takes(self.solver.configure, "action_bounds"):
            optional["action_bounds"] = self._action_bounds(space)
        self.solver.configure(action_space=env.action_space, n_envs=num_envs, config=config, **optional)
        self._keyed = _takes(self.solver.solve, "keys")
        # Then envs with and without a warm start can be solved together.
        self._merges_tails = self._is_box and bool(getattr(self.solver, "fills_with_zeros", False))

    def reset(self, env_indices: Sequence[int], episode_seeds: Sequence[int] | None) -> None:
        """Envs `env_indices` begin episodes with these seeds; None means that the episodes have none."""
        self._attached_env()
        rows = np.asarray(env_indices, np.int64)
        self._flush(rows)
        self._episode_keys[rows] = -1 - rows if episode_seeds is None else episode_seeds
        self._first_solve[rows] = 0 if episode_seeds is None else self._solves[rows]

    def get_action(self, info_dict: Info, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """Return actions (N, *action_shape) in the env's units; NaN (integer spaces: 0) for envs that ended.

        Reads the control keys `_needs_flush` and `_active`, bool (N,), if present. Without `_active` an env has ended
        if `terminated` or `truncated` of the info says so.
        """
        self._attached_env()
        if info_dict.get("_needs_flush") is not None:
            self._flush(np.flatnonzero(info_dict["_needs_flush"]))
        if self._history is not None:
            self._remember(self._history, info_dict)
            self._latents.advance()
        live = live_envs(info_dict, len(self._cursor))
        waiting = np.flatnonzero(live & (self._cursor == self.flatten_receding_horizon))
        if len(waiting):
            self._replan(info_dict, waiting)
        return self._next_actions(live)

    def _flush(self, rows: np.ndarray) -> None:
        self._cursor[rows] = self.flatten_receding_horizon
        self._has_tail[rows] = False
        self._tails[rows] = 0
        self._goals.forget(rows)
        self._latents.forget(rows)
        if self._history is not None:
            self._history.reset(rows)

    def _remember(self, history: HistoryBuffer, info: Info) -> None:
        missing = [key for key in (*self.history_keys, "action") if key not in info]
        if missing:
            raise MissingKeyError(f"history_len={self.config.history_len} needs {missing}; info has {sorted(info)}")
        entry = {key: info[key] for key in self.history_keys}
        scaler = self.process.get("action")
        entry["action"] = info["action"] if scaler is None else apply_scaler(scaler.transform, "action", info["action"])
        history.append(entry)

    def _replan(self, info: Info, rows: np.ndarray) -> None:
        """Solve for the given envs, those with equally long context and warm start together.

        Solvers that say that they complete warm starts with zeros get a zero one for envs that have none.
        """
        context = np.ones(len(rows), np.int64)
        if self._history is not None:
            context = np.minimum(self._history.num_strided(rows), self.config.history_len)
        warm = np.full(len(rows), self._has_tail[rows].any()) if self._merges_tails else self._has_tail[rows]
        seen = self._latents.holds(rows, context - 1)
        kinds = np.stack([context, warm, seen], axis=1)
        for kind in np.unique(kinds, axis=0):
            self._plan(info, rows[(kinds == kind).all(axis=1)], int(kind[0]), bool(kind[1]), bool(kind[2]))

    def _plan(self, info: Info, rows: np.ndarray, context: int, warm: bool, seen: bool) -> None:
        """Solve for envs that all have `context` frames, a tail if `warm`, and latents of the past frames if `seen`."""
        observed = select_rows({key: value for key, value in info.items() if not key.startswith("_")}, rows)
        if self._history is not None and context > 1:
            past = self._history.get(context, rows) or {}
            observed[ACTION_HISTORY_KEY] = past.pop("action")  # already scaled
            observed.update({} if seen else past)
        keys = np.stack([self._episode_keys[rows], self._solves[rows] - self._first_solve[rows]], axis=1)
        prepared = prepare_info(observed, self.process, self.transform)
        prepared.update(self._goals.recall(observed, rows))
        if seen:
            prepared["past_emb"] = self._latents.recall(rows, context - 1)
        begun = time.perf_counter()
        try:
            result = self.solver.solve(
                prepared,
                init_action=torch.from_numpy(self._tails[rows]) if warm else None,
                **({"keys": keys} if self._keyed else {}),
            )
        except NoFiniteCostError as error:
            raise NoFiniteCostError(rows[error.rows].tolist(), error.iteration, "envs") from error
        self._plan_seconds.append(time.perf_counter() - begun)
        self._goals.remember(observed, rows, result.get("goal"))
        self._latents.remember(rows, result.get("context"))
        plan = self._checked_plan(result["actions"], len(rows))  # (n, H, A)
        executed = self.config.receding_horizon
        self._solves[rows] += 1
        self._queue[rows] = self._env_actions(plan[:, :executed]).reshape(len(rows), -1, self._action_size)
        self._cursor[rows] = 0
        if self.config.warm_start and executed < self.config.horizon:
            self._tails[rows] = plan[:, executed:]
            self._has_tail[rows] = True

    def _checked_plan(self, actions: Any, n: int) -> np.ndarray:
        plan = np.asarray(actions)
        expected = (n, self.config.horizon, self._action_size * self.config.action_block)
        if plan.shape != expected:
            raise ContractError(
                f"{type(self.solver).__name__}.solve returned actions {plan.shape}: expected {expected}, "
                "(envs, horizon, action size * action_block)"
            )
        return plan

    def _env_actions(self, macro_actions: np.ndarray) -> np.ndarray:
        """Macro actions of the solver (n, R, A) as env actions (n * R * K, A_env), in the env's units."""
        actions = macro_actions.reshape(-1, self._action_size)
        if not self._is_box:
            return actions
        if "action" in self.process:
            actions = np.asarray(self.process["action"].inverse_transform(actions))
        space = self.env.single_action_space
        # The solver keeps the bounds in its own units; rounding on the way back may still step over them.
        return np.clip(actions, space.low.reshape(-1), space.high.reshape(-1))

    def _next_actions(self, live: np.ndarray) -> np.ndarray:
        filler = np.nan if self._queue.dtype.kind == "f" else 0
        actions = np.full((len(live), self._action_size), filler, self._queue.dtype)
        rows = np.flatnonzero(live)
        actions[rows] = self._queue[rows, self._cursor[rows]]
        self._cursor[rows] += 1
        return actions.reshape(self.env.action_space.shape)

    def _action_bounds(self, space: gym.Space) -> tuple[np.ndarray, np.ndarray] | None:
        """Bounds of one env action in the solver's space, each (A_env,); None if there are none."""
        if not isinstance(space, gym.spaces.Box):
            return None
        ends = np.stack([space.low.reshape(-1), space.high.reshape(-1)]).astype(np.float64)
        finite = np.isfinite(ends)
        if not finite.any():
            return None
        scaler = self.process.get("action")
        if scaler is not None:
            # Scalers pass NaN through, but some refuse infinity.
            ends = np.asarray(scaler.transform(np.where(finite, ends, np.nan)), np.float64)
        return np.where(finite[0], ends[0], -np.inf), np.where(finite[1], ends[1], np.inf)


def _takes(function: Callable[..., Any], argument: str) -> bool:
    """Solvers written against the bare protocol lack the optional arguments."""
    return argument in inspect.signature(function).parameters
