"""Many envs as one, in worker processes that may be lost without consequence."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from stable_worldmodel.errors import ContractError, EnvFault
from stable_worldmodel.pool.base import Pool, Transition
from stable_worldmodel.pool.fleet import Fleet, Request
from stable_worldmodel.pool.handle import WorkerLost
from stable_worldmodel.pool.shared_infos import SharedInfos
from stable_worldmodel.pool.spaces import PoolSpaces
from stable_worldmodel.pool.transitions import Transitions
from stable_worldmodel.pool.worker import Operation, Place, Reply

TIMEOUT = 300.0  # seconds
MAX_RESTARTS = 3


class ProcessPool(Pool):
    """Envs in worker processes; infos, observations and actions go through shared memory.

    The workers start when something of the envs is first needed: fresh interpreters, which do not import the caller's
    `__main__`. Env i lives in worker i mod W. When an env raises, hangs or its worker dies, the worker is replaced and
    every env in it is brought back by repeating its episode from its seed, so nothing is seen from outside. That needs
    seeded episodes, and envs that are deterministic given their seed.

    Args:
        env_fns: one zero-argument factory per env: any callable that cloudpickle can send, lambdas included.
        workers: W, at most one per env; None takes one per CPU core.
        timeout: seconds one reset, step or call of one env may take before it counts as hanging; None waits forever.
        max_restarts: how often the same request may fail before EnvFault is raised.

    Raises ContractError for bad arguments at once; what EnvPool raises, when the workers start.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        workers: int | None = None,
        timeout: float | None = TIMEOUT,
        max_restarts: int = MAX_RESTARTS,
    ):
        if not env_fns:
            raise ContractError("env_fns is empty: expected at least one factory")
        if workers is not None and workers < 1:
            raise ContractError(f"workers={workers}: expected an integer >= 1")
        if timeout is not None and timeout <= 0:
            raise ContractError(f"timeout={timeout}: expected seconds > 0, or None to wait forever")
        self._num_envs = len(env_fns)
        self.workers = min(workers or cpu_count(), self._num_envs)
        self.seeds = np.full(self._num_envs, -1, np.int64)
        self._fleet = Fleet(
            [_pickled(list(env_fns[w :: self.workers])) for w in range(self.workers)],
            timeout,
            max_restarts,
            revive=self._revive,
            give_up=self._give_up,
            heartbeat=lambda w: int(self._shared.progress[w, 0]),
        )
        # From the start of the workers on there are also _shared, the memory of transitions, and _batch, the
        # observations of all envs, with _last, those of each, if they are no arrays.
        self._spaces: PoolSpaces | None = None
        self._infos = SharedInfos(self._num_envs, self.workers)
        self._histories: list[list[Operation]] = [[] for _ in env_fns]  # since the last reset
        self._ended = np.zeros(self._num_envs, bool)
        self._attributes: dict[str, list[Any]] = {}
        self._closed = False

    @property
    def num_envs(self) -> int:
        return self._num_envs

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, for those who watch them; empty before they start."""
        return self._fleet.pids

    @property
    def spaces(self) -> PoolSpaces:
        if self._spaces is None:
            self._start()
        return self._spaces  # type: ignore[return-value]

    @property
    def infos(self) -> dict[str, Any]:
        return self._infos.data

    # ------------------------------------------------------------------ life
    def _start(self) -> None:
        """Start the workers, once."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        if self._spaces is not None:
            return
        try:
            found = self._fleet.start()
            spaces = PoolSpaces([found[i % self.workers][i // self.workers] for i in range(self.num_envs)])
            observation = spaces.single_observation
            self._shared = Transitions(spaces.single_action, observation, self.num_envs, self.workers)
            self._infos.stacked = spaces.history_size > 1
            self._batch = self._shared.all.observations
            if self._batch is None:
                self._batch = create_empty_array(observation, self.num_envs)
                self._last: list[Any] = [None] * self.num_envs
            for w in range(self.workers):
                self._attach(w)
            self._spaces = spaces
        except BaseException as error:
            self.close()
            if isinstance(error, WorkerLost):
                raise error.error or RuntimeError(f"{error.reason}\n\n{error.trace}") from error
            raise

    def _attach(self, w: int) -> None:
        place = Place(w, self.workers, self.num_envs, self._infos.stacked)
        self._fleet.ask(w, "attach", place, descriptors=(self._shared.memory.descriptor,))

    def close(self, **kwargs: Any) -> None:
        if self._closed:
            return
        self._closed = True
        errors = self._fleet.stop(**kwargs)
        self._infos.close()
        if self._spaces is not None:
            self._shared.memory.close()
        if errors:
            raise errors[0]

    # ------------------------------------------------------------------ what a pool does
    def _reset(self, indices: list[int], seeds: list[int | None], options: list[Any]) -> Any:
        self._start()
        full = len(indices) == self.num_envs
        starts = {i: (seed, own) for i, seed, own in zip(indices, seeds, options, strict=True)}
        if full:
            self._infos.forget()
        requests = {}
        for w, chosen in self._by_worker(indices).items():
            arguments = (self._local(chosen), [starts[i][0] for i in chosen], [starts[i][1] for i in chosen], full)
            requests[w] = Request("reset", arguments, resets=frozenset(chosen))
        replies = self._fleet.run(requests)
        for i, start in starts.items():
            self._histories[i] = [("reset", start)]
        self._ended[indices] = False
        return self._absorb(replies, full)

    def _step(self, indices: list[int], actions: Any) -> Transition:
        rows = self._shared.all
        by_message = rows.actions is None
        if not by_message:
            rows.actions[:] = actions  # type: ignore[index]
            actions = np.array(actions)  # kept in the histories
        rows.rewards[:], rows.terminateds[:], rows.truncateds[:] = 0.0, False, False
        requests = {}
        for w, chosen in self._by_worker(indices).items():
            local = self._local(chosen)
            sent = {j: actions[i] for i, j in zip(chosen, local, strict=True)} if by_message else None
            requests[w] = Request("step", (local, sent))
        replies = self._fleet.run(requests)
        for i in indices:
            self._histories[i].append(("step", actions[i]))
        self._ended |= rows.terminateds | rows.truncateds
        return self._absorb(replies), rows.rewards, rows.terminateds, rows.truncateds, self.infos

    def _absorb(self, replies: dict[int, Reply], full: bool = False) -> Any:
        """Take what did not come through the shared memory; the observations of all envs."""
        for w, reply in replies.items():
            self._take(w, reply)
        if self._infos.is_stale:
            request = Request("map", *self._infos.allocate(full))
            for w, reply in self._fleet.run(dict.fromkeys(range(self.workers), request)).items():
                self._take(w, reply)
        return self._observations()

    def _take(self, w: int, reply: Reply) -> None:
        self._infos.take(w, reply)
        for j, observation in reply.observations:
            self._last[w + j * self.workers] = observation

    def _observations(self) -> Any:
        if self._shared.all.observations is None:
            self._batch = concatenate(self.single_observation_space, self._last, self._batch)
        return self._batch

    def _call(self, indices: list[int], name: str, arguments: list[tuple[tuple, dict]]) -> list[Any]:
        self._start()
        given = dict(zip(indices, arguments, strict=True))
        shares = self._by_worker(indices)
        replies = self._fleet.run(
            {
                w: Request("call", (self._local(chosen), name, [given[i] for i in chosen]), may_raise=True)
                for w, chosen in shares.items()
            }
        )
        results = {i: value for w, chosen in shares.items() for i, value in zip(chosen, replies[w].value, strict=True)}
        for i in indices:
            if self._histories[i]:
                self._histories[i].append(("call", (name, *given[i])))
        return [results[i] for i in indices]

    def get_attr(self, name: str) -> list[Any]:
        values: list[Any] = [None] * self.num_envs
        for w, reply in self._ask_all("get_attr", name).items():
            values[w :: self.workers] = reply.value
        return values

    def _set_attr(self, name: str, values: list[Any]) -> None:
        self._start()
        shares = {
            w: Request("set_attr", (name, values[w :: self.workers]), may_raise=True) for w in range(self.workers)
        }
        self._fleet.run(shares)
        self._attributes[name] = values

    def has(self, name: str) -> bool:
        return all(reply.value for reply in self._ask_all("has", name).values())

    def _ask_all(self, method: str, *arguments: Any) -> dict[int, Reply]:
        self._start()
        return self._fleet.run(dict.fromkeys(range(self.workers), Request(method, arguments, may_raise=True)))

    def _by_worker(self, indices: list[int]) -> dict[int, list[int]]:
        shares: dict[int, list[int]] = {}
        for i in indices:
            shares.setdefault(i % self.workers, []).append(i)
        return shares

    def _local(self, indices: list[int]) -> list[int]:
        """A worker's own numbers of its envs."""
        return [i // self.workers for i in indices]

    # ------------------------------------------------------------------ faults
    def _revive(self, w: int, request: Request, cause: WorkerLost | None) -> None:
        histories = [self._repeatable(i, request, cause) for i in range(w, self.num_envs, self.workers)]
        self._attach(w)
        if self._infos.is_mapped:
            arguments, descriptors = self._infos.mapping(keep=True)
            self._fleet.ask(w, "map", *arguments, descriptors=descriptors)
        attributes = {name: values[w :: self.workers] for name, values in self._attributes.items()}
        self._take(w, self._fleet.ask(w, "restore", attributes, histories))

    def _repeatable(self, i: int, request: Request, cause: WorkerLost | None) -> list[Operation]:
        """What brings env i back to where it was."""
        history = self._histories[i]
        if not history or i in request.resets:
            return []
        seed = history[0][1][0]
        if seed is None:
            if self._ended[i]:
                return []  # nobody will look at it again before its next reset
            reason = cause.reason if cause else "the pool was interrupted"
            raise self._fault(i, f"{reason}; its episode has no seed, so it cannot be repeated", cause)
        return history

    def _give_up(self, w: int, cause: WorkerLost, failures: int) -> None:
        local = int(self._shared.progress[w, 1]) if cause.env is None else cause.env
        reason = f"failed {failures} times in a row; the last time it {cause.reason}"
        raise self._fault(w + local * self.workers, reason, cause) from cause.error

    def _fault(self, i: int, reason: str, cause: WorkerLost | None) -> EnvFault:
        history = self._histories[i]
        steps = sum(kind == "step" for kind, _ in history)
        return EnvFault(reason, i, history[0][1][0] if history else None, steps, cause.trace if cause else "")


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pickled(env_fns: list[Callable[[], gym.Env]]) -> bytes:
    try:
        return cloudpickle.dumps(env_fns)
    except Exception as error:
        raise ContractError(
            f"an env factory cannot be sent to a worker process ({type(error).__name__}: {error}); "
            "build what it captures inside the factory, or use the in-process pool"
        ) from error
