"""LeRobot's policies in World: anything with `select_action(batch)` and `reset()`."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, require
from stable_worldmodel.lerobot.constants import ACTION
from stable_worldmodel.lerobot.infos import TASK_KEYS, observation_from_infos
from stable_worldmodel.policy.base import BasePolicy
from stable_worldmodel.protocols import Info

QUEUES = ("auto", "chunks", "policy")
Processor = Callable[[Any], Any]


@dataclass
class _Cohort:
    """Envs whose episodes began together, and the state the policy has for them."""

    rows: np.ndarray  # all of them; the queues of a policy hold one entry for each, whoever has ended
    policy: Any
    live: set[int]  # those that have not begun another episode since


class LeRobotPolicy(BasePolicy):
    """Runs a policy with LeRobot's interface in World.

    At every step the infos become LeRobot's observations (see `observation_from_infos`), go through `env_preprocessor`
    and `preprocessor`, to the policy, and its actions back through `postprocessor` and `env_postprocessor`.

    Policies predict several actions at a time and keep them in a queue, as a rule one for the whole batch, though
    episodes end at different times. With `queue="chunks"` this adapter holds a queue per env, filled by
    `predict_action_chunk(batch) -> (B, n, A)`. With `queue="policy"` the policy keeps its own: envs whose episodes
    began together form a batch with a copy of the policy's state; weights are shared. Rollouts then start episodes in
    batches, as LeRobot does, so that one copy is enough.

    Args:
        policy: the policy, or the folder or hub id of a pretrained one, for which the package `lerobot` is needed.
        preprocessor, postprocessor: the policy's pipelines; those of a pretrained one are loaded with it.
        env_preprocessor, env_postprocessor: those of an EnvConfig; the second maps {"action": tensor}.
        rename_map: feature of the env -> feature of the policy.
        device: where the policy runs; None leaves it where it is.
        queue: 'chunks', 'policy', or 'auto': chunks if the policy can predict them from one observation.
        n_action_steps: actions used of each chunk; None is what the policy's config says, else all.
        seed: with the seeds of the episodes it decides about what the policy draws from torch's generators.

    Episodes of a policy that draws random numbers can be repeated with the same number of envs, seeds given.
    """

    type = "lerobot"

    def __init__(
        self,
        policy: Any,
        *,
        preprocessor: Processor | None = None,
        postprocessor: Processor | None = None,
        env_preprocessor: Processor | None = None,
        env_postprocessor: Processor | None = None,
        rename_map: Mapping[str, str] | None = None,
        device: str | None = None,
        queue: str = "auto",
        n_action_steps: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if queue not in QUEUES:
            raise ContractError(f"queue={queue!r}: expected one of {QUEUES}")
        self.rename_map = dict(rename_map or {})
        if isinstance(policy, (str, Path)):
            from stable_worldmodel.lerobot.pretrained import load_pretrained_policy

            policy, *own = load_pretrained_policy(policy, device, self.rename_map)
            preprocessor, postprocessor = preprocessor or own[0], postprocessor or own[1]
        if not callable(getattr(policy, "select_action", None)) or not callable(getattr(policy, "reset", None)):
            raise TypeError(f"{type(policy).__name__} is no LeRobot policy: it lacks select_action(batch) or reset()")
        self.policy = policy.to(device) if device is not None and hasattr(policy, "to") else policy
        self.preprocessor, self.postprocessor = preprocessor, postprocessor
        self.env_preprocessor, self.env_postprocessor = env_preprocessor, env_postprocessor
        self.seed = seed
        self.queue = _choose_queue(policy, queue)
        self.n_action_steps = n_action_steps or _setting(policy, "n_action_steps", None)
        self._forget()

    @property
    def reset_mode(self) -> str:
        """How rollouts should start episodes; see `world.Rollout`."""
        return "auto" if self.queue == "chunks" else "batches"

    @property
    def input_features(self) -> dict[str, Any]:
        """What the policy's config says it reads: name -> feature; empty if it says nothing."""
        return dict(_setting(self.policy, "input_features", None) or {})

    def _forget(self) -> None:
        self._cohorts: list[_Cohort] = []
        self._queues: dict[int, deque[np.ndarray]] = {}
        self._seeds: dict[int, int | None] = {}
        self._steps: dict[int, int] = {}
        self._tasks: list[str] = []

    # ------------------------------------------------------------------ hooks of World
    def set_env(self, env: Any) -> None:
        """Attach a pool, whose actions must be arrays (ContractError), and forget all episodes."""
        if env.action_space.shape is None:
            raise ContractError(
                f"{type(self).__name__} gives arrays: expected a space with a shape, {env.action_space}"
            )
        super().set_env(env)
        if callable(getattr(self.policy, "eval", None)):
            self.policy.eval()
        self._forget()

    def reset(self, env_indices: np.ndarray, episode_seeds: np.ndarray | None) -> None:
        """Begin episodes in the envs of `env_indices`; the others go on."""
        rows = np.asarray(env_indices, int)
        seeds: list[int | None] = [None] * len(rows) if episode_seeds is None else np.asarray(episode_seeds).tolist()
        self._tasks = self._read_tasks()
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._seeds[row], self._steps[row] = seed, 0
            self._queues[row] = deque()
        if self.queue == "chunks":
            self.policy.reset()
            return
        for cohort in self._cohorts:
            cohort.live -= set(rows.tolist())
        self._cohorts = [cohort for cohort in self._cohorts if cohort.live]
        in_use = any(cohort.policy is self.policy for cohort in self._cohorts)
        own = _with_own_state(self.policy) if in_use else self.policy
        own.reset()
        self._cohorts.append(_Cohort(rows, own, set(rows.tolist())))

    def get_action(self, info_dict: Info, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """Return actions (N, *action_shape); NaN (integer spaces: 0) for envs that do not act.

        Raises MissingKeyError for an observation that the policy reads and the envs do not give, ContractError for
        actions of the wrong shape.
        """
        env = self._attached_env()
        acting = np.asarray(info_dict.get("_active", np.ones(env.num_envs, bool)), bool)
        space = env.single_action_space
        actions = np.full(env.action_space.shape, np.nan if space.dtype.kind == "f" else 0, space.dtype)
        rows = np.flatnonzero(acting)
        begun = {row for cohort in self._cohorts for row in cohort.live} | self._queues.keys()
        fresh = np.array([row for row in rows.tolist() if row not in begun], int)
        if len(fresh):  # a loop that does not call reset
            self.reset(fresh, None)
        step = self._from_chunks if self.queue == "chunks" else self._from_policies
        for row, action in step(info_dict, rows):
            actions[row] = (
                action.reshape(space.shape) if space.dtype.kind == "f" else np.rint(action).reshape(space.shape)
            )
            self._steps[row] += 1
        return actions

    # ------------------------------------------------------------------ queues
    def _from_chunks(self, info: Info, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        empty = np.array([row for row in rows.tolist() if not self._queues[row]], int)
        if len(empty):
            chunk = self._infer(self.policy, "predict_action_chunk", info, empty)  # (b, n, A)
            for row, actions in zip(empty.tolist(), chunk[:, : self.n_action_steps], strict=True):
                self._queues[row].extend(actions)
        for row in rows.tolist():
            yield row, self._queues[row].popleft()

    def _from_policies(self, info: Info, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        wanted = set(rows.tolist())
        for cohort in self._cohorts:
            if not cohort.live & wanted:
                continue
            actions = self._infer(cohort.policy, "select_action", info, cohort.rows)  # (b, A)
            for row, action in zip(cohort.rows.tolist(), actions, strict=True):
                if row in cohort.live & wanted:
                    yield row, action

    def _infer(self, policy: Any, method: str, info: Info, rows: np.ndarray) -> np.ndarray:
        """What the policy says for the given envs, in the env's units: (b, A), or chunks (b, n, A)."""
        torch = require("torch")
        with torch.inference_mode(), self._random_stream(rows):
            observation = observation_from_infos(info, rows, self.input_features, self.rename_map)
            observation["task"] = [self._tasks[row] for row in rows.tolist()]
            for process in (self.env_preprocessor, self.preprocessor):
                observation = observation if process is None else process(observation)
            if self.preprocessor is None:
                observation = _on_device_of(policy, observation)
            output = getattr(policy, method)(observation)
            axes = 2 if method == "select_action" else 3
            if not torch.is_tensor(output) or output.ndim != axes or len(output) != len(rows):
                found = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
                raise ContractError(
                    f"{type(policy).__name__}.{method} returned {found}: expected a tensor of {axes} axes, the first "
                    f"with one entry per env ({len(rows)})"
                )
            flat = self._postprocess(output.reshape(-1, output.shape[-1]))
            size = math.prod(self.env.single_action_space.shape)
            if flat.shape != (math.prod(output.shape[:-1]), size):
                raise ContractError(
                    f"the postprocessors returned actions {flat.shape}: expected {size} numbers per env"
                )
            return flat.reshape(*output.shape[:-1], size)

    def _postprocess(self, actions: Any) -> np.ndarray:
        if self.postprocessor is not None:
            actions = self.postprocessor(actions)
        if self.env_postprocessor is not None:
            actions = self.env_postprocessor({ACTION: actions})[ACTION]
        return actions.detach().float().cpu().numpy()

    @contextlib.contextmanager
    def _random_stream(self, rows: np.ndarray) -> Iterator[None]:
        """Torch's generators as a function of the episodes and their steps; the caller's are left alone."""
        seeds = [seed for row in rows.tolist() if (seed := self._seeds[row]) is not None]
        if len(seeds) < len(rows):
            yield
            return
        torch = require("torch")
        keys = [self.seed, *seeds, *(self._steps[row] for row in rows.tolist())]
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1))
            yield

    def _read_tasks(self) -> list[str]:
        """The sentence of every env, empty where there is none."""
        pool = self._attached_env()
        for name in TASK_KEYS:
            with contextlib.suppress(AttributeError, NotImplementedError):
                return [str(text) for text in pool.get_attr(name)]
        return [""] * pool.num_envs


def _choose_queue(policy: Any, queue: str) -> str:
    """Chunks need a policy that predicts them from the newest observation alone and does not average over them."""
    can_predict = callable(getattr(policy, "predict_action_chunk", None))
    if queue == "chunks" and not can_predict:
        raise ContractError(f"queue='chunks': {type(policy).__name__} has no predict_action_chunk(batch)")
    if queue != "auto":
        return queue
    one_frame = _setting(policy, "n_obs_steps", 1) == 1
    ensembles = _setting(policy, "temporal_ensemble_coeff", None) is not None
    return "chunks" if can_predict and one_frame and not ensembles else "policy"


def _setting(policy: Any, name: str, default: Any) -> Any:
    return getattr(getattr(policy, "config", None), name, default)


def _with_own_state(policy: Any) -> Any:
    """A copy that shares weights and nothing else."""
    shared: dict[int, Any] = {}
    for find in ("parameters", "buffers"):
        if callable(getattr(policy, find, None)):
            shared.update({id(tensor): tensor for tensor in getattr(policy, find)()})
    try:
        return copy.deepcopy(policy, shared)
    except Exception as error:
        raise ContractError(
            f"the state of {type(policy).__name__} cannot be copied for envs that start at different times ({error}); "
            "evaluate with reset_mode='batches'"
        ) from error


def _on_device_of(policy: Any, observation: dict[str, Any]) -> dict[str, Any]:
    parameter = next(policy.parameters(), None) if callable(getattr(policy, "parameters", None)) else None
    if parameter is None:
        return observation
    return {key: value.to(parameter.device) if hasattr(value, "to") else value for key, value in observation.items()}
