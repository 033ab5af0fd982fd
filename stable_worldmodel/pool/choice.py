"""Which kind of pool a set of envs gets."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.base import Pool
from stable_worldmodel.pool.batch import BatchPool, can_batch
from stable_worldmodel.pool.process import TIMEOUT, ProcessPool, cpu_count
from stable_worldmodel.pool.sync import EnvPool

BACKENDS = ("auto", "sync", "process")
# Seconds that one step of all envs must take in this process before worker processes are worth their start (about half
# a second) and their messages (about 0.1 ms per step); measured by benchmarks/rollout.py.
WORTHWHILE = 2e-3
_PROBE_STEPS = 5


def make_pool(
    env_fns: Sequence[Callable[[], gym.Env]],
    backend: str = "auto",
    workers: int | None = None,
    timeout: float | None = TIMEOUT,
) -> Pool:
    """A pool of these envs.

    Args:
        backend: 'sync' steps the envs in this process, 'process' in worker processes. 'auto' builds the first env here
            and times a few steps of it: workers are used if there are two envs and two CPU cores, and if stepping all
            envs would take 2 ms or more. Envs that can be stepped together, as one program, stay in this process.
        workers, timeout: see ProcessPool; 'sync' ignores them.
    """
    if backend not in BACKENDS:
        raise ContractError(f"backend={backend!r}: expected one of {BACKENDS}")
    if backend == "process":
        return ProcessPool(env_fns, workers, timeout)
    if not env_fns:
        return EnvPool(env_fns)  # which refuses that
    parallel = min(workers or cpu_count(), len(env_fns))
    first = env_fns[0]()
    try:
        together = can_batch(first)
        slow = backend == "auto" and not together and parallel > 1 and step_time(first) * len(env_fns) >= WORTHWHILE
    except BaseException:
        first.close()
        raise
    if slow:
        first.close()
        return ProcessPool(env_fns, workers, timeout)
    return (BatchPool if together else EnvPool)([lambda: first, *env_fns[1:]])


def step_time(env: gym.Env) -> float:
    """Seconds of the fastest of a few steps with random actions, drawing included."""
    actions = copy.deepcopy(env.action_space)  # the env's own keeps its state
    fastest = float("inf")
    env.reset(seed=0)
    for _ in range(_PROBE_STEPS):
        action: Any = actions.sample()
        start = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        fastest = min(fastest, time.perf_counter() - start)
        if terminated or truncated:
            env.reset(seed=0)
    env.reset(seed=secrets.randbits(31))  # so that episodes without a seed differ from run to run
    return fastest
