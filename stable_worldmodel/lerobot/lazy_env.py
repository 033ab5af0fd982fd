"""A vector env whose worker processes start when they are first needed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from stable_worldmodel.errors import ContractError

# Gymnasium 1.0 has no modes.
_MODES = getattr(gym.vector, "AutoresetMode", None)
CONTEXT = "forkserver"  # a plain fork inherits pipes and GL contexts, and can deadlock


def autoreset_options(mode: Any = None) -> dict[str, Any]:
    """The constructor argument for `mode` (default SAME_STEP), where Gymnasium has such modes."""
    return {} if _MODES is None else {"autoreset_mode": mode or _MODES.SAME_STEP}


class LazyVectorEnv(VectorEnv):
    """Factories of envs, and from first use on an asynchronous vector env of them.

    With many tasks only the workers of the one that runs exist. Workers start by `forkserver` at the first `reset`,
    `step`, `call` or `get_attr`, or by `ensure`; observations come through shared memory. After `close` the next use
    starts new ones. Nothing is closed by a finaliser: call `close`, or use a `with` block.

    Args:
        env_fns: one zero-argument factory per env, at least one (ContractError).
        observation_space, action_space: of one env. What is not given is read from a temporary env, built by the
            first factory and closed; if both are given none is built in this process.
        metadata: of one env; None takes that of the temporary env, if there is one.
        use_async: False builds the envs in this process instead, at the same moment.

    Attributes:
        env_fns: the factories.
        autoreset_mode: SAME_STEP; may be changed while nothing has started.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        observation_space: gym.Space | None = None,
        action_space: gym.Space | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        use_async: bool = True,
    ):
        self.env_fns = list(env_fns)
        if not self.env_fns:
            raise ContractError("env_fns is empty: expected at least one factory")
        if observation_space is None or action_space is None:
            env = self.env_fns[0]()
            try:
                observation_space = observation_space or env.observation_space
                action_space = action_space or env.action_space
                metadata = env.metadata if metadata is None else metadata
            finally:
                env.close()
        self.num_envs = len(self.env_fns)
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.metadata = dict(metadata or {})
        self.spec = None
        self.render_mode = "rgb_array"
        self.use_async = use_async
        self.autoreset_mode = autoreset_options().get("autoreset_mode")
        self._env: Any = None
        self._starting = threading.Lock()  # a prefetching thread and the caller may both ask for the workers

    @property
    def started(self) -> bool:
        """Whether there are envs now."""
        return self._env is not None

    @property
    def unwrapped(self) -> LazyVectorEnv:
        """This object, whether started or not."""
        return self

    def ensure(self) -> VectorEnv:
        """Start the envs if there are none, and return the vector env."""
        with self._starting:
            if self._env is None:
                self._env = self._build()
                if self.autoreset_mode is not None:
                    self.metadata["autoreset_mode"] = self.autoreset_mode
            return self._env

    def _build(self) -> VectorEnv:
        modes = autoreset_options(self.autoreset_mode)
        if not self.use_async:
            return SyncVectorEnv(self.env_fns, **modes)
        spaces = self.single_observation_space, self.single_action_space
        _preload()
        fns = [_OnlyInWorker(make, os.getpid(), *spaces, self.metadata) for make in self.env_fns]
        return AsyncVectorEnv(fns, shared_memory=True, context=CONTEXT, **modes)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Forwarded."""
        return self.ensure().reset(**kwargs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Forwarded."""
        return self.ensure().step(actions)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the method `name` of every env, or read the attribute; one result per env."""
        return self.ensure().call(name, *args, **kwargs)  # type: ignore[attr-defined]

    def get_attr(self, name: str) -> Any:
        """The attribute `name` of every env."""
        return self.ensure().get_attr(name)  # type: ignore[attr-defined]

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every env; a list or tuple holds one value per env."""
        self.ensure().set_attr(name, values)  # type: ignore[attr-defined]

    def render(self) -> Any:
        """One frame per env."""
        return self.call("render")

    def close(self, **kwargs: Any) -> None:
        """Shut the workers down and forget them; a second call does nothing."""
        with self._starting:
            env, self._env = self._env, None
        if env is not None:
            env.close(**kwargs)

    def __enter__(self) -> LazyVectorEnv:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Nothing: waiting for workers in a finaliser can hang the interpreter."""


def _preload() -> None:
    """Have the fork server import Gymnasium once, instead of every worker, unless the program said what it imports.

    It takes effect if the server has not started yet.
    """
    server = getattr(forkserver, "_forkserver", None)
    if getattr(server, "_preload_modules", None) == ["__main__"]:
        multiprocessing.set_forkserver_preload(["__main__", "gymnasium.vector", "stable_worldmodel.lerobot.env"])


class _OnlyInWorker:
    """A factory that gives a stand-in where it was made.

    AsyncVectorEnv builds one env in this process to read its spaces; a simulator must not be started for that.
    """

    def __init__(
        self,
        make: Callable[[], gym.Env],
        process: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        metadata: dict[str, Any],
    ):
        self._make, self._process = make, process
        self._spaces = observation_space, action_space
        self._metadata = metadata

    def __call__(self) -> gym.Env:
        if os.getpid() != self._process:
            return self._make()
        env: gym.Env = gym.Env()
        env.observation_space, env.action_space = self._spaces
        env.metadata = dict(self._metadata)
        return env
