"""The part of a planner that is not its algorithm: configuration, chunks of envs, results."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.protocols import Info
from stable_worldmodel.solver import noise
from stable_worldmodel.solver.common import (
    Bounds,
    Problem,
    cost_parameter,
    num_rows,
    prepare_init_action,
    resolve_cost,
    select_rows,
    to_device,
)

logger = logging.getLogger(__name__)


class ChunkedSolver:
    """Base of the planners over continuous actions; a subclass implements `_plan` for one chunk of envs.

    Args:
        model: the object to minimise under its earlier name; exactly one of `model` and `cost`.
        device: where candidates are drawn and costs computed; the cost must be there.
        seed: fixes all noise. Equal seed, keys and info give an equal plan.
        cost: an object with `get_cost(info, candidates (n, S, H, A)) -> (n, S)`; its info is un-expanded, (n, ...).
        batch_size: envs per chunk. None takes one on the CPU, so that a plan is the same to the last bit whatever envs
            are solved with it and its activations stay in cache, and all of them on other devices.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        cost: Any = None,
        device: torch.device | str = "cpu",
        seed: int = 1234,
        batch_size: int | None = None,
    ):
        if batch_size is not None and batch_size < 1:
            raise ContractError(f"batch_size={batch_size}: expected >= 1, or None to choose by device")
        self.cost = resolve_cost(model, cost)
        self.device = torch.device(device)
        self.seed = seed
        self.batch_size = batch_size
        self._n_envs: int | None = None
        self._action_dim = 0
        self._horizon = 0
        self._bounds: Bounds | None = None
        self._unkeyed_solves = 0

    @property
    def n_envs(self) -> int | None:
        """Envs of the pool, None before `configure`. A solve may be about any number of envs."""
        return self._n_envs

    @property
    def action_dim(self) -> int:
        """Size A of a macro action: flattened env action times `action_block`; 0 before `configure`."""
        return self._action_dim

    @property
    def horizon(self) -> int:
        """Planned macro steps H; 0 before `configure`."""
        return self._horizon

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
            config: a PlanConfig; `horizon` and `action_block` are read.
            action_bounds: (low, high) of one env action, each (A / action_block,), in the space the model was trained
                in (normalised, not the env's). Candidates and plans are clamped to them; infinite entries are free.
        """
        if action_space.shape is None:
            raise ContractError(f"{action_space}: expected a space with a shape")
        if not isinstance(action_space, gym.spaces.Box):
            logger.warning("%s plans continuous actions; the action space is %s", type(self).__name__, action_space)
        size = math.prod(action_space.shape[1:])
        self._n_envs = n_envs
        self._action_dim = size * config.action_block
        self._horizon = config.horizon
        self._bounds = None if action_bounds is None else _tiled_bounds(action_bounds, size, config.action_block)

    def __call__(self, info: Info, init_action: Any = None, *, keys: Any = None) -> dict[str, Any]:
        """Same as `solve`."""
        return self.solve(info, init_action, keys=keys)

    def solve(self, info: Info, init_action: Any = None, *, keys: Any = None) -> dict[str, Any]:
        """Plan for the n envs of `info`, which may be any subset of the pool.

        Args:
            info: arrays, tensors and lists of length n, observations with a time axis (n, T, ...). Not modified.
            init_action: warm start (n, t, A), 0 <= t <= H; its tail is filled by the cost's `get_action` or by zeros.
            keys: int64 (n, 2), e.g. (episode seed, decision index): env i's noise is a function of (seed, keys[i]).
                Without keys all envs of a call share one stream and consecutive calls continue it.

        Returns:
            `actions` (n, H, A) on the CPU; `costs`, a list with the cost of each returned plan; lists of one (n, H, A)
            tensor for what else the planner keeps (see its class); `timing`, seconds {prepare, optimise, total};
            `model_steps`, the number of model transitions evaluated.

        Raises:
            ContractError: wrong shapes, a cost that is on another device, or a plan whose cost is NaN.
        """
        started = time.perf_counter()
        self._check_ready()
        n = num_rows(info)
        seeds = self._stream_seeds(n, keys)
        init_action = None if init_action is None else torch.as_tensor(init_action)
        if init_action is not None and len(init_action) != n:
            raise ContractError(f"init_action has {len(init_action)} rows, info has {n}: expected one row per env")
        timing = {"prepare": 0.0, "optimise": 0.0}
        model_steps = 0
        plans: list[dict[str, torch.Tensor]] = []
        for rows in self._chunks(n):
            begun = time.perf_counter()
            problem = self._problem(info, rows, init_action, seeds[rows])
            prepared = time.perf_counter()
            plans.append({key: value.cpu() for key, value in self._plan(problem).items()})
            timing["prepare"] += prepared - begun
            timing["optimise"] += time.perf_counter() - prepared
            model_steps += problem.model_steps
        result = self._result(plans)
        timing["total"] = time.perf_counter() - started
        return {**result, "timing": timing, "model_steps": model_steps}

    def _plan(self, problem: Problem) -> dict[str, torch.Tensor]:
        """Plan for one chunk: `actions` (n, H, A), `costs` (n,) and any further tensors with a leading n."""
        raise NotImplementedError

    def _check_ready(self) -> None:
        if self._n_envs is None:
            raise RuntimeError(f"{type(self).__name__} is not configured; call configure(...) before solve")
        parameter = cost_parameter(self.cost)
        if parameter is not None and parameter.device.type != self.device.type:
            raise ContractError(
                f"the cost is on {parameter.device}, the solver on {self.device}: "
                f"move the cost, or pass device='{parameter.device}'"
            )

    def _stream_seeds(self, n: int, keys: Any) -> np.ndarray:
        if keys is None:
            keys = np.tile([0, self._unkeyed_solves], (n, 1))
            self._unkeyed_solves += 1
        keys = np.asarray(keys)
        if keys.shape != (n, 2) or keys.dtype.kind not in "iu":
            raise ContractError(f"keys: expected integers of shape ({n}, 2), found {keys.dtype} {keys.shape}")
        return noise.stream_seeds(self.seed, keys)

    def _chunks(self, n: int) -> Iterator[np.ndarray]:
        size = self.batch_size or (1 if self.device.type == "cpu" else n)
        for start in range(0, n, size):
            yield np.arange(start, min(start + size, n))

    @torch.no_grad()
    def _problem(self, info: Info, rows: np.ndarray, init_action: torch.Tensor | None, seeds: np.ndarray) -> Problem:
        parameter = cost_parameter(self.cost)
        cost_dtype = torch.float32 if parameter is None else parameter.dtype
        # Means and deviations of a low-precision model's actions are still kept in float32.
        dtype = torch.promote_types(cost_dtype, torch.float32)
        chunk = to_device(select_rows(info, rows), self.device, cost_dtype)
        if callable(getattr(self.cost, "prepare", None)):
            chunk = self.cost.prepare(chunk)
        init = prepare_init_action(
            self.cost,
            chunk,
            None if init_action is None else init_action[torch.from_numpy(rows)],
            self._horizon,
            len(rows),
            self._action_dim,
            self.device,
            dtype,
        )
        bounds = self._bounds and (self._bounds[0].to(init), self._bounds[1].to(init))
        return Problem(self.cost, chunk, init, bounds, seeds)

    def _result(self, plans: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        merged = {key: torch.cat([plan[key] for plan in plans]) for key in plans[0]}
        actions, costs = merged.pop("actions"), merged.pop("costs")
        if costs.isnan().any():
            rows = costs.isnan().nonzero().flatten().tolist()
            raise ContractError(
                f"the plans of rows {rows} have cost NaN: check the model's weights and the info for NaN values"
            )
        return {"actions": actions, "costs": costs.tolist(), **{key: [value] for key, value in merged.items()}}


def _tiled_bounds(bounds: tuple[np.ndarray, np.ndarray], size: int, action_block: int) -> Bounds:
    """Bounds of a macro action, float64 (A,), from those of one env action."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in bounds)
    if low.shape != (size,) or high.shape != (size,) or not (low <= high).all():
        raise ContractError(
            f"action_bounds: expected two arrays of shape ({size},) with low <= high, found low={low}, high={high}"
        )
    return torch.from_numpy(np.tile(low, action_block)), torch.from_numpy(np.tile(high, action_block))
