"""Acting with a model that gives its actions directly: one forward pass, no search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.policy.base import BasePolicy
from stable_worldmodel.policy.prepare import Process, Transform, apply_scaler, live_envs, prepare_info
from stable_worldmodel.protocols import Info
from stable_worldmodel.solver.common import cost_parameter, select_rows, to_device


class FeedForwardPolicy(BasePolicy):
    """Goal-conditioned control without planning: the actions are `model.get_action(info)`.

    The model gets the prepared info of the live envs, on its own device, floats in its own dtype, with the prepared
    `goal` also as `goal_pixels`. It returns actions (n, *action_shape) or flattened (n, A), integers for integer
    spaces, or the next K actions at once: (n, K, *action_shape), (n, K, A), or macro actions (n, K * A) as models
    trained with frameskip K do. Then it is asked again when an env has executed all K, or begins an episode. It is put
    into eval mode when a pool is attached.

    Args:
        model: anything with `get_action(info)`, usually a torch module.
        process: scalers per info column, (rows, d) -> (rows, d). That of `action` maps the model's actions back.
        transform: callables per info key, applied to one (C, H, W) uint8 tensor at a time.
        batch_size: envs per forward pass. None takes one on the CPU, where the rounding of sums depends on the size of
            a batch, so that an episode is the same to the last bit for any number of envs; all of them on other
            devices, where actions agree up to that rounding.
    """

    type = "feed_forward"

    def __init__(
        self,
        model: Any,
        process: Process | None = None,
        transform: Transform | None = None,
        *,
        batch_size: int | None = None,
        **kwargs: Any,
    ):
        if not callable(getattr(model, "get_action", None)):
            raise TypeError(f"{type(model).__name__} has no callable get_action(info)")
        if batch_size is not None and batch_size < 1:
            raise ContractError(f"batch_size={batch_size}: expected >= 1, or None to choose by device")
        super().__init__(**kwargs)
        self.model = model
        self.process = dict(process or {})
        self.transform = dict(transform or {})
        self.batch_size = batch_size

    def set_env(self, env: Any) -> None:
        """Attach a pool and put the model into eval mode. Actions must be arrays (ContractError)."""
        if env.action_space.shape is None:
            raise ContractError(
                f"{type(self).__name__} gives arrays: expected a space with a shape, {env.action_space}"
            )
        super().set_env(env)
        space = env.single_action_space
        self._queue = np.zeros((env.num_envs, 0, *space.shape), space.dtype)  # the last chunk of every env
        self._left = np.zeros(env.num_envs, np.int64)  # its actions that are still to be executed
        if callable(getattr(self.model, "eval", None)):
            self.model.eval()

    def reset(self, env_indices: Sequence[int], episode_seeds: Sequence[int] | None) -> None:
        """Envs `env_indices` begin episodes: what is left of their chunks is dropped."""
        self._attached_env()
        self._left[np.asarray(env_indices, np.int64)] = 0

    def get_action(self, info_dict: Info, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """Return actions (N, *action_shape) in the env's units; NaN (integer spaces: 0) for envs that ended.

        Reads the control keys `_needs_flush` and `_active`, bool (N,), if present. Without `_active` an env has ended
        if `terminated` or `truncated` says so.

        Raises:
            MissingKeyError: info has no `goal`.
            ContractError: the model returned actions of the wrong shape or type, or some that are not finite.
        """
        env = self._attached_env()
        if "goal" not in info_dict:
            raise MissingKeyError(
                f"{type(self).__name__} needs 'goal' in info, which has {sorted(info_dict)}; use a goal-conditioned env"
            )
        space = env.single_action_space
        filler = np.nan if space.dtype.kind == "f" else 0
        actions = np.full(env.action_space.shape, filler, space.dtype)
        if info_dict.get("_needs_flush") is not None:
            self._left[np.flatnonzero(info_dict["_needs_flush"])] = 0
        live = live_envs(info_dict, env.num_envs)
        waiting = np.flatnonzero(live & (self._left == 0))
        if len(waiting):
            self._enqueue(waiting, self._env_actions(self._infer(info_dict, waiting)))
        rows = np.flatnonzero(live)
        actions[rows] = self._queue[rows, self._queue.shape[1] - self._left[rows]]
        self._left[rows] -= 1
        return actions

    def _enqueue(self, rows: np.ndarray, chunks: np.ndarray) -> None:
        """Take over chunks (n, K, *action_shape) for the envs `rows`."""
        held, new = self._queue.shape[1], chunks.shape[1]
        if held != new:
            if self._left.any():
                raise ContractError(f"{self._source} returned {new} actions per env, and {held} before: expected one K")
            self._queue = np.zeros((len(self._left), *chunks.shape[1:]), chunks.dtype)
        self._queue[rows] = chunks
        self._left[rows] = new

    @torch.inference_mode()
    def _infer(self, info: Info, rows: np.ndarray) -> np.ndarray:
        """What the model returns for the given envs, as (n, K, A)."""
        observed = select_rows({key: value for key, value in info.items() if not key.startswith("_")}, rows)
        prepared = prepare_info(observed, self.process, self.transform)
        prepared.setdefault("goal_pixels", prepared["goal"])
        parameter = cost_parameter(self.model)
        device, dtype = (
            (torch.device("cpu"), torch.float32) if parameter is None else (parameter.device, parameter.dtype)
        )
        inputs = to_device(prepared, device, dtype)
        size = self.batch_size or (1 if device.type == "cpu" else len(rows))
        chunks = [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        outputs = [self._checked(self.model.get_action(select_rows(inputs, chunk)), rows[chunk]) for chunk in chunks]
        return np.concatenate(outputs)

    def _checked(self, output: Any, rows: np.ndarray) -> np.ndarray:
        """Actions of the envs `rows` as an array (n, K, A)."""
        space, source, n = self.env.single_action_space, self._source, len(rows)
        size = math.prod(space.shape)
        if not isinstance(output, torch.Tensor | np.ndarray) or not _fits(tuple(output.shape), n, space.shape):
            found = tuple(output.shape) if hasattr(output, "shape") else type(output).__name__
            expected = " or ".join(map(str, sorted({(n, *space.shape), (n, size)})))
            raise ContractError(
                f"{source} returned {found}: expected actions {expected}, or K of them per env, "
                f"({n}, K, {size}) or ({n}, K * {size})"
            )
        tensor = torch.as_tensor(output).cpu()
        # NumPy has no bfloat16.
        actions = (tensor.float() if tensor.element_size() < 4 and tensor.is_floating_point() else tensor).numpy()
        if not isinstance(space, gym.spaces.Box) and actions.dtype.kind not in "biu":
            raise ContractError(f"{source} returned {actions.dtype}: expected integers for {space}")
        bad = ~np.isfinite(actions.reshape(n, -1)).all(axis=1)
        if bad.any():
            raise ContractError(
                f"{source} returned NaN or infinity for envs {rows[bad].tolist()}: "
                "check the model's weights and the info for NaN values"
            )
        return actions.reshape(n, -1, size)

    def _env_actions(self, chunks: np.ndarray) -> np.ndarray:
        """Actions of the model (n, K, A) as (n, K, *action_shape) in the env's units, moved into its bounds."""
        space = self.env.single_action_space
        actions = chunks.reshape(-1, chunks.shape[2])  # (n * K, A)
        if isinstance(space, gym.spaces.Box):
            if "action" in self.process:
                actions = apply_scaler(self.process["action"].inverse_transform, "action", actions)
            actions = np.clip(actions.reshape(-1, *space.shape), space.low, space.high)
        return actions.reshape(*chunks.shape[:2], *space.shape).astype(space.dtype)

    @property
    def _source(self) -> str:
        return f"{type(self.model).__name__}.get_action"


def _fits(found: tuple[int, ...], n: int, shape: tuple[int, ...]) -> bool:
    """Whether `found` is that of one or of several actions of the given shape for each of n envs."""
    size = math.prod(shape)
    if not found or found[0] != n or 0 in found:
        return False
    if found[1:] == shape or found[2:] in (shape, (size,)):
        return True
    return len(found) == 2 and found[1] % size == 0
