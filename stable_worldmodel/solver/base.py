"""The part of a planner that is not its algorithm: configuration, chunks of envs, keys, timing, results."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.solver.callbacks import Callback, Callbacks
from stable_worldmodel.solver.common import (
    cost_parameter,
    num_rows,
    prepare_init_action,
    proposes_actions,
    resolve_cost,
    select_rows,
    to_device,
)
from stable_worldmodel.solver.discrete import is_discrete
from stable_worldmodel.solver.noise import Noise, stream_ids
from stable_worldmodel.solver.problem import Bounds, Problem, Settings, prepares

logger = logging.getLogger(__name__)

_MEMORY = 1 << 26  # bytes of candidates that a chunk on the CPU may have


class ChunkedSolver:
    """Base of the planners; a subclass implements `_plan` for one chunk of envs.

    Args:
        model: the object to minimise under its earlier name; exactly one of `model` and `cost`.
        device: where candidates are drawn and costs computed; the cost must be there.
        seed: fixes all noise. Equal seed, keys and info give an equal plan.
        cost: an object with `get_cost(info, candidates (n, S, H, A)) -> (n, S)`, or with `prepare(info) -> context`
            and `cost(context, candidates)`; its info is un-expanded, (n, ...).
        batch_size: most envs per chunk. None takes all of them, with one exception: costs with parameters on the CPU
            are solved env by env, so that activations stay in cache and a plan is the same to the last bit whatever
            is solved beside it. Where memory runs out on other devices, chunks are halved until they fit.
        callbacks: see `solver.callbacks`; their histories are in the result under `callbacks`.
    """

    num_samples = 1  # candidates per env and iteration
    _needs_all_iterations = True  # an iteration without any finite cost is an error, however good the others are

    def __init__(
        self,
        model: Any = None,
        *,
        cost: Any = None,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        batch_size: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ):
        if batch_size is not None and batch_size < 1:
            raise ContractError(f"batch_size={batch_size}: expected >= 1, or None to choose by device")
        self.cost = resolve_cost(model, cost)
        self.device = torch.device(device)
        self.seed = seed
        self.batch_size = batch_size
        self.callbacks = list(callbacks or ())
        self._n_envs: int | None = None
        self._action_dim = 0
        self._horizon = 0
        self._receding_horizon = 0
        self._bounds: Bounds | None = None
        self._unkeyed_solves = 0
        self._fits: int | None = None  # envs per chunk that memory allowed last time it ran out

    @property
    def n_envs(self) -> int | None:
        """Envs of the pool, None before `configure`. A solve may be about any number of envs."""
        return self._n_envs

    @property
    def action_dim(self) -> int:
        """Size A of a candidate's macro step: flattened env action times `action_block`; 0 before `configure`."""
        return self._action_dim

    @property
    def horizon(self) -> int:
        """Planned macro steps H; 0 before `configure`."""
        return self._horizon

    @property
    def fills_with_zeros(self) -> bool:
        """Whether no warm start is the same as one of zeros."""
        return not proposes_actions(self.cost)

    def configure(
        self,
        *,
        action_space: gym.Space,
        n_envs: int,
        config: Any,
        action_bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Fix the sizes of the problem.

        Args:
            action_space: batched space of the pool, shape (N, *action shape).
            n_envs: N.
            config: a PlanConfig; `horizon`, `receding_horizon` and `action_block` are read.
            action_bounds: (low, high) of one env action, each (A / action_block,), in the space the model was trained
                in (normalised, not the env's). Candidates and plans are clamped to them; infinite entries are free.
        """
        if action_space.shape is None:
            raise ContractError(f"{action_space}: expected a space with a shape")
        self._n_envs = n_envs
        self._horizon = config.horizon
        self._receding_horizon = config.receding_horizon
        self._action_dim, self._bounds = self._action_sizes(action_space, config.action_block, action_bounds)
        self._configured()

    def _configured(self) -> None:
        """The sizes are fixed: forget what belongs to other ones."""

    def _action_sizes(
        self, action_space: gym.Space, action_block: int, action_bounds: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[int, Bounds | None]:
        """A and the bounds of a macro step."""
        if not isinstance(action_space, gym.spaces.Box) or is_discrete(action_space):
            logger.warning("%s plans continuous actions; the action space is %s", type(self).__name__, action_space)
        size = math.prod(action_space.shape[1:])  # type: ignore[index]
        bounds = None if action_bounds is None else _tiled_bounds(action_bounds, size, action_block)
        return size * action_block, bounds

    def __call__(self, info_dict: Info, init_action: Any = None, *, keys: Any = None) -> dict[str, Any]:
        """Same as `solve`."""
        return self.solve(info_dict, init_action, keys=keys)

    def solve(self, info_dict: Info, init_action: Any = None, *, keys: Any = None) -> dict[str, Any]:
        """Plan for the n envs of `info_dict`, which may be any subset of the pool.

        Args:
            info_dict: arrays, tensors and lists of length n, observations with a time axis (n, T, ...). Not modified.
            init_action: warm start (n, t, A), 0 <= t <= H; its tail is filled by the cost's `get_action` or by zeros.
            keys: int64 (n, 2), e.g. (episode seed, decision index): env i's noise is a function of (seed, keys[i])
                and the iteration. Without keys all envs of a call share one stream, and every call has another.

        Returns:
            `actions` (n, H, A) on the CPU; `costs`, a list with the cost of each returned plan; `excluded`, a list
            with how many candidates of each env were left out because their cost was not finite; lists of one
            (n, H, A) tensor for what else the planner keeps (see its class); `timing`, seconds {prepare, encode,
            optimise, total}; `model_steps`, the number of model transitions evaluated; `callbacks`, if there are any;
            `goal`, if the cost has `goal_entries`: what encoding the goal gave, to be put into the next info;
            `context`, if it has `context_entries`: the latents of the observed frames.

        Raises:
            ContractError: wrong shapes, or a cost that is on another device.
            NoFiniteCostError: all candidates of an env have a cost that is NaN or infinite.
        """
        started = time.perf_counter()
        self._check_ready()
        n = self._num_rows(info_dict)
        streams, keys = self._streams(n, keys)
        init_action = None if init_action is None else torch.as_tensor(init_action)
        if init_action is not None and len(init_action) != n:
            raise ContractError(f"init_action has {len(init_action)} rows, info has {n}: expected one row per env")
        timing = dict.fromkeys(("prepare", "encode", "optimise"), 0.0)
        callbacks = Callbacks(self.callbacks)
        plans: list[dict[str, Any]] = []
        model_steps = done = 0
        while done < n:
            rows = np.arange(done, min(done + self._chunk_size(n), n))
            try:
                plan, steps = self._solve_chunk(info_dict, rows, init_action, streams, keys, timing, callbacks)
            except torch.cuda.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                self._fits = len(rows) // 2
                callbacks.forget_batch()
                logger.info("out of memory with %d envs; going on with chunks of %d", len(rows), self._fits)
                continue
            plans.append(plan)
            model_steps += steps
            done += len(rows)
        result = _merged(plans)
        if callbacks:
            result["callbacks"] = callbacks.end_solve()
        timing["total"] = time.perf_counter() - started
        return {**result, "timing": timing, "model_steps": model_steps}

    def _solve_chunk(
        self,
        info: Info,
        rows: np.ndarray,
        init_action: torch.Tensor | None,
        streams: np.ndarray,
        keys: np.ndarray | None,
        timing: dict[str, float],
        callbacks: Callbacks,
    ) -> tuple[dict[str, Any], int]:
        """Plan for the envs `rows`; their times are added to `timing`."""
        begun = time.perf_counter()
        callbacks.start_batch()
        parameter = cost_parameter(self.cost)
        cost_dtype = torch.float32 if parameter is None else parameter.dtype
        # Means and deviations of a low-precision model's actions are still kept in float32.
        dtype = torch.promote_types(cost_dtype, torch.float32)
        chunk = to_device(select_rows(info, rows), self.device, cost_dtype)
        init = None if init_action is None else init_action[torch.from_numpy(rows)]
        prepared = self._now()
        with torch.no_grad():
            context = self.cost.prepare(chunk) if prepares(self.cost) else chunk
            complete = self._complete(context, init, len(rows), dtype)
        encoded = self._now()
        settings = Settings(self.cost, self._bounds, self._iterations(), self._compiles())
        noise = Noise(streams[rows], self.device, dtype, settings.iterations)
        problem = Problem(settings, rows, None if keys is None else keys[rows], context, complete, noise)
        plan = {key: _to_cpu(value) for key, value in self._plan(problem, callbacks).items()}
        plan["excluded"] = problem.excluded(self._needs_all_iterations)
        if callable(getattr(self.cost, "goal_entries", None)):
            plan["goal"] = self.cost.goal_entries(context)
        if callable(getattr(self.cost, "context_entries", None)):
            plan["context"] = self.cost.context_entries(context)
        optimised = self._now()
        for phase, seconds in zip(timing, (prepared - begun, encoded - prepared, optimised - encoded), strict=True):
            timing[phase] += seconds
        return plan, problem.model_steps

    def _plan(self, problem: Problem, callbacks: Callbacks) -> dict[str, Any]:
        """Plan for one chunk: `actions` (n, H, A), `costs` (n,) and any further tensors with a leading n."""
        raise NotImplementedError

    def _iterations(self) -> int:
        """How often `_plan` evaluates candidates to choose from."""
        return 1

    def _compiles(self) -> bool:
        return False

    def _complete(self, context: Any, init: torch.Tensor | None, n: int, dtype: torch.dtype) -> torch.Tensor:
        """The warm start completed to the whole horizon, (n, H, A) on the device."""
        size = (self._horizon, n, self._action_dim)
        return prepare_init_action(self.cost, context, init, *size, self.device, dtype)

    def _num_rows(self, info: Info) -> int:
        return num_rows(info)

    def _now(self) -> float:
        """The time when everything asked of the device so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _check_ready(self) -> None:
        if self._n_envs is None:
            raise RuntimeError(f"{type(self).__name__} is not configured; call configure(...) before solve")
        parameter = cost_parameter(self.cost)
        if parameter is not None and parameter.device.type != self.device.type:
            raise ContractError(
                f"the cost is on {parameter.device}, the solver on {self.device}: "
                f"move the cost, or pass device='{parameter.device}'"
            )

    def _streams(self, n: int, keys: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """One random stream per env, and the keys as int64 (n, 2)."""
        if keys is None:
            self._unkeyed_solves += 1
            return stream_ids(self.seed, np.tile([0, self._unkeyed_solves - 1], (n, 1))), None
        keys = np.asarray(keys)
        if keys.shape != (n, 2) or keys.dtype.kind not in "iu":
            raise ContractError(f"keys: expected integers of shape ({n}, 2), found {keys.dtype} {keys.shape}")
        return stream_ids(self.seed, keys), keys

    def _chunk_size(self, n: int) -> int:
        return min(self.batch_size or self._most_at_once(n), self._fits or n)

    def _most_at_once(self, n: int) -> int:
        """Envs per chunk if nobody says how many."""
        if self.device.type != "cpu":
            return n
        if cost_parameter(self.cost) is not None:
            return 1
        bytes_per_env = 8 * self.num_samples * self._horizon * self._action_dim
        return max(1, _MEMORY // max(1, bytes_per_env))


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value


def _merged(plans: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of a solve from those of its chunks."""
    result: dict[str, Any] = {}
    for key, first in plans[0].items():
        parts = [plan[key] for plan in plans]
        if first is None:
            result[key] = None
        elif isinstance(first, dict):
            result[key] = {name: torch.cat([part[name] for part in parts]) for name in first}
        elif key == "actions":
            result[key] = torch.cat(parts)
        else:
            merged = torch.cat(parts)
            result[key] = merged.tolist() if key in ("costs", "excluded") else [merged]
    return result


def _tiled_bounds(bounds: tuple[np.ndarray, np.ndarray], size: int, action_block: int) -> Bounds:
    """Bounds of a macro action, float64 (A,), from those of one env action."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in bounds)
    if low.shape != (size,) or high.shape != (size,) or not (low <= high).all():
        raise ContractError(
            f"action_bounds: expected two arrays of shape ({size},) with low <= high, found low={low}, high={high}"
        )
    return torch.from_numpy(np.tile(low, action_block)), torch.from_numpy(np.tile(high, action_block))
