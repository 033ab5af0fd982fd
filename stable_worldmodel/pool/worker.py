"""The child side of a process pool: a loop that obeys one pipe.

It runs in a fresh interpreter, which has not imported the user's `__main__`. Requests are `(method, arguments)`, with
descriptors sent after the message that mentions them; replies are `Reply` or `Failure`.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, NamedTuple

import cloudpickle

from stable_worldmodel.pool.buffers import InfoBuffer, Layout
from stable_worldmodel.pool.memory import Shapes, SharedArrays
from stable_worldmodel.pool.slots import Slots, build, close_all
from stable_worldmodel.pool.spaces import EnvSpaces
from stable_worldmodel.pool.transitions import Transitions

Operation = tuple[str, Any]  # ("reset", (seed, options)), ("step", action) or ("call", (name, args, kwargs))


class Reply(NamedTuple):
    """What a request gave, and what of it could not go through the shared memory."""

    value: Any = None
    layout: Layout | None = None  # of this worker's infos, if it changed
    objects: Sequence[tuple[str, int, Any]] = ()  # new entries of list columns: key, env, value
    observations: Sequence[tuple[int, Any]] = ()  # env, observation, if their space is not of arrays


class Failure(NamedTuple):
    """An exception in the worker."""

    env: int  # the worker's own number of the env that was called last
    trace: str
    error: BaseException | None  # None if it cannot be pickled


class Place(NamedTuple):
    """Where a worker stands among its pool."""

    worker: int  # its number w
    workers: int  # W
    num_envs: int  # N, of the whole pool
    stacked: bool  # infos have a time axis already

    @property
    def rows(self) -> slice:
        """Its envs: w, w + W, w + 2 W … Neighbours go to different workers, so a half-busy pool is balanced."""
        return slice(self.worker, None, self.workers)


class Server:
    """The envs of one worker. Env numbers are its own, 0 … M - 1."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._envs: list[Any] = []
        self._sent: dict[tuple[str, int], Any] = {}  # text the parent has

    def build(self, factories: bytes) -> list[EnvSpaces]:
        """Build the envs and say what they are."""
        self._envs = build(pickle.loads(factories))
        return [EnvSpaces.of(env) for env in self._envs]

    def attach(self, place: Place) -> None:
        """Take the shared memory of transitions, whose descriptor follows."""
        first = self._envs[0]
        shared = Transitions(
            first.action_space, first.observation_space, place.num_envs, place.workers, recv_handle(self._connection)
        )
        shared.memory.close()
        self._rows = place.rows
        mine = shared.rows(self._rows)
        self._actions = mine.actions
        self._slots = Slots(
            self._envs,
            mine.observations,
            mine.rewards,
            mine.terminateds,
            mine.truncateds,
            InfoBuffer(len(self._envs), place.stacked),
            shared.progress[place.worker],
        )

    def map(self, layout: Layout, shapes: Shapes, keep: bool) -> Reply:
        """Keep infos in the shared memory whose descriptor follows; `keep` what it holds, or bring the values."""
        shared = SharedArrays(shapes, recv_handle(self._connection))
        shared.close()
        self._slots.infos.move(layout, {key: array[self._rows] for key, array in shared.arrays.items()}, keep)
        self._sent.clear()
        return self._reply(() if keep else range(len(self._envs)))

    def reset(self, indices: list[int], seeds: list[int | None], options: list[Any], full: bool) -> Reply:
        self._slots.reset(indices, seeds, options, full)
        return self._reply(indices)

    def step(self, indices: list[int], actions: Any = None) -> Reply:
        """Step; without `actions` they are in the shared array."""
        if actions is None:
            actions = self._actions.copy()  # type: ignore[union-attr]  # a copy, because an env may keep its action
        self._slots.step(indices, actions)
        return self._reply(indices)

    def restore(self, attributes: dict[str, list[Any]], histories: list[list[Operation]]) -> Reply:
        """Bring new envs to where lost ones were: one history per env, each beginning with a reset or empty."""
        everywhere = range(len(self._envs))
        for name, values in attributes.items():
            self._slots.set_attr(everywhere, name, values)
        for i, history in enumerate(histories):
            for kind, what in history:
                if kind == "reset":
                    self._slots.reset([i], [what[0]], [what[1]], full=False)
                elif kind == "step":
                    self._slots.step([i], {i: what})
                else:
                    name, args, kwargs = what
                    self._slots.call([i], name, [(args, kwargs)])
        return self._reply(everywhere)

    def call(self, indices: list[int], name: str, arguments: list[tuple[tuple, dict]]) -> Reply:
        return Reply(self._slots.call(indices, name, arguments))

    def get_attr(self, name: str) -> Reply:
        return Reply(self._slots.get_attr(name))

    def set_attr(self, name: str, values: list[Any]) -> Reply:
        self._slots.set_attr(range(len(self._envs)), name, values)
        return Reply()

    def has(self, name: str) -> Reply:
        return Reply(self._slots.has(name))

    def close(self, arguments: dict[str, Any]) -> Reply:
        envs, self._envs = self._envs, []
        close_all(envs, **arguments)
        return Reply()

    def failure(self, error: BaseException) -> Failure:
        env = self._slots.current if hasattr(self, "_slots") else 0
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return Failure(env, trace, error if _survives_pickling(error) else None)

    def _reply(self, indices: Sequence[int]) -> Reply:
        """The answer to a request that wrote the rows of `indices`."""
        infos = self._slots.infos
        layout = infos.layout if infos.changed else None
        infos.changed = False
        objects = [
            (key, i, column[i])
            for key, column in infos.data.items()
            if isinstance(column, list)
            for i in indices
            if self._is_new(key, i, column[i])
        ]
        observations = () if self._slots.in_place else [(i, self._slots.last[i]) for i in indices]
        return Reply(None, layout, objects, observations)

    def _is_new(self, key: str, env: int, value: Any) -> bool:
        """Whether the parent must be sent `value`. Text that stays the same is not sent again."""
        if not isinstance(value, (str, bytes, type(None))):
            return True
        place = (key, env)
        if place in self._sent and self._sent[place] == value:
            return False
        self._sent[place] = value
        return True


def serve(connection: Connection, lifeline: int, make_server: Callable[[Connection], Any] = Server) -> None:
    """Answer requests until the parent closes the pipe, or dies."""
    _die_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    server = make_server(connection)
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            break
        try:
            answer = getattr(server, method)(*arguments)
        except BaseException as error:
            answer = server.failure(error)
        try:
            connection.send_bytes(_dump(answer))
        except OSError:
            break
        except Exception as error:  # a result that cannot be pickled
            connection.send_bytes(pickle.dumps(server.failure(error)))
        if method == "close":
            break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # at once: threads of a simulator must not keep a worker alive


def _die_with(lifeline: int) -> None:
    """Have the kernel end this process when the other end of `lifeline`, a pipe, closes, even if it hangs in C code."""
    if hasattr(os, "O_ASYNC"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _dump(answer: Any) -> bytes:
    try:
        return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception:  # functions and classes of the user's __main__, such as the constraint of a space
        return cloudpickle.dumps(answer)


def _survives_pickling(error: BaseException) -> bool:
    try:
        return type(pickle.loads(_dump(error))) is type(error)
    except Exception:
        return False
