"""The rollout engine: a generator of complete episodes, in episode order.

Episode k is started with seed `base + k` whichever env runs it, so the stream of episodes does not depend on the number
of envs, on which of them finish first, or on an interruption. Every way of recording and evaluating consumes this one
generator.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from stable_worldmodel.errors import ContractError, EnvFault, PolicyNotSetError
from stable_worldmodel.protocols import Info
from stable_worldmodel.world.episode import SUCCESS_KEYS, Episode, Recorder, newest, success_flag
from stable_worldmodel.world.stepper import Stepper

logger = logging.getLogger(__name__)

Observer = Callable[[Info, np.ndarray], None]
MODES = ("auto", "wait", "batches")


class _Running:
    """What is known of the episode an env is in the middle of."""

    def __init__(self, index: int, seed: int | None, wanted: Callable[[str], bool] | None):
        self.index = index
        self.seed = seed
        self.length = 0
        self.total_reward = 0.0
        self.success = False
        self.recorder = Recorder(wanted)


class Rollout:
    """Runs exactly the episodes of `indices` and yields each when it and all before it are complete.

    Args:
        stepper: pool and policy.
        indices: episode numbers, ascending. Not "the first to finish", which would favour short episodes.
        seed: base seed; episode k gets `seed + k`. None leaves episodes unseeded.
        options: reset options: one mapping for all, a sequence with one item per episode number up to the last, or a
            sequence of N, of which episode k uses item k mod N.
        max_steps: episodes still running after this many env steps end there, neither terminated nor truncated.
        mode: 'auto' starts the next episode as soon as an env is free; 'wait' runs one episode per env and leaves
            finished envs frozen; 'batches' starts the next episodes when all envs are free, as policies with one state
            for the whole batch prefer. Vector envs that cannot reset single envs always run in batches.
        wanted: which info keys to record into `Episode.columns`; None records nothing.
        any_step: an episode succeeds if its env reports success at any step, not only at the last.
        observers: called with (infos, mask) after every reset and step, before anything is recorded. They may edit
            infos of the masked envs.
        prepared_seeds: the envs have been reset already, with these seeds (dataset mode); do not reset them again.
    """

    def __init__(
        self,
        stepper: Stepper,
        indices: Sequence[int],
        *,
        seed: int | None = None,
        options: Any = None,
        max_steps: int | None = None,
        mode: str = "auto",
        wanted: Callable[[str], bool] | None = None,
        any_step: bool = False,
        observers: Sequence[Observer] = (),
        prepared_seeds: Sequence[int | None] | None = None,
    ):
        num_envs = stepper.pool.num_envs
        if stepper.policy is None:
            raise PolicyNotSetError("no policy is set; call world.set_policy(policy) first")
        if mode not in MODES:
            raise ContractError(f"mode={mode!r}: expected one of {MODES}")
        if mode == "wait" and len(indices) > num_envs:
            raise ContractError(f"mode='wait' runs one episode per env: {len(indices)} episodes, {num_envs} envs")
        if max_steps is not None and max_steps < 1:
            raise ContractError(f"max_steps={max_steps}: expected an integer >= 1")
        if isinstance(options, (list, tuple)) and len(options) not in (num_envs, max(indices, default=-1) + 1):
            raise ContractError(
                f"options has {len(options)} items: expected one per env ({num_envs}) or per episode "
                f"({max(indices, default=-1) + 1})"
            )
        self._stepper = stepper
        self._waiting = deque(indices)
        self._order = deque(indices)
        self._seed = seed
        self._options = options
        self._max_steps = max_steps
        self._in_batches = mode == "batches" or not stepper.pool.resets_singly
        self._wanted = wanted
        self._any_step = any_step
        self._observers = observers
        self._prepared_seeds = prepared_seeds
        # Finished episodes held back for an older one that still runs; bounds memory.
        self._held_back_limit = 4 * num_envs
        self._done: dict[int, Episode] = {}
        self._running: dict[int, _Running] = {}  # by env
        self.env_steps = 0

    @property
    def running(self) -> dict[int, int]:
        """Which episode each busy env is in, env -> episode number. An observer finds its episode here."""
        return {env: running.index for env, running in self._running.items()}

    @property
    def held_back(self) -> Collection[Episode]:
        """Finished episodes that wait for an older one."""
        return self._done.values()

    def __iter__(self) -> Iterator[Episode]:
        try:
            yield from self._run()
        except EnvFault as fault:
            running = self._running.get(fault.env)
            fault.episode = None if running is None else running.index
            raise

    def _run(self) -> Iterator[Episode]:
        self._start_all()
        while self._running:
            stepped = self._stepper.step(self._mask())
            self.env_steps += int(stepped.sum())
            self._notify(stepped)
            self._record_step(stepped)
            yield from self._in_order()
            self._refill()

    def _mask(self) -> np.ndarray:
        mask = np.zeros(self._stepper.pool.num_envs, bool)
        mask[list(self._running)] = True
        return mask

    def _notify(self, mask: np.ndarray) -> None:
        for observer in self._observers:
            observer(self._stepper.infos, mask)

    def _start_all(self) -> None:
        """The full reset every rollout begins with. Envs without an episode are reset too, but never stepped."""
        num_envs = self._stepper.pool.num_envs
        for env in range(min(num_envs, len(self._waiting))):
            self._assign(env)
        if self._prepared_seeds is None:
            self._stepper.reset(*self._reset_arguments())
        self._begin(self._mask())

    def _refill(self) -> None:
        """Start waiting episodes in idle envs, unless too many finished ones are held back."""
        if self._running and self._in_batches:
            return
        idle = ~self._mask()
        fresh = np.zeros_like(idle)
        for env in np.flatnonzero(idle).tolist():
            if not self._waiting or len(self._done) >= self._held_back_limit:
                break
            self._assign(env)
            fresh[env] = True
        if fresh.any():
            self._stepper.reset(*self._reset_arguments(), mask=fresh if self._stepper.pool.resets_singly else None)
            self._begin(fresh)

    def _assign(self, env: int) -> None:
        index = self._waiting.popleft()
        if self._prepared_seeds is not None:
            seed = self._prepared_seeds[index]
        else:
            seed = None if self._seed is None else self._seed + index
        self._running[env] = _Running(index, seed, self._wanted)

    def _reset_arguments(self) -> tuple[list[int | None], list[Any]]:
        num_envs = self._stepper.pool.num_envs
        # Idle envs are seeded too: an episode without a seed could not be repeated if its worker is lost.
        seeds: list[int | None] = [self._seed] * num_envs
        options: list[Any] = [None] * num_envs
        for env, running in self._running.items():
            seeds[env] = running.seed
            options[env] = self._episode_options(running.index)
        return seeds, options

    def _episode_options(self, index: int) -> Any:
        if isinstance(self._options, (list, tuple)):
            return self._options[index % len(self._options)]
        return self._options

    def _begin(self, mask: np.ndarray) -> None:
        self._notify(mask)
        for env in np.flatnonzero(mask).tolist():
            self._running[env].recorder.add(self._stepper.infos, env)

    def _record_step(self, stepped: np.ndarray) -> None:
        """Add the step to every running episode; set complete ones aside and free their envs."""
        stepper = self._stepper
        for env in np.flatnonzero(stepped).tolist():
            running = self._running[env]
            running.length += 1
            running.total_reward += float(stepper.rewards[env])
            running.recorder.add(stepper.infos, env)
            ended = bool(stepper.terminateds[env] or stepper.truncateds[env])
            spent = running.length == self._max_steps
            if self._any_step or ended or spent:
                success = self._success(env)
                running.success = success or (self._any_step and running.success)
            if ended or spent:
                self._done[running.index] = self._complete(env, running)
                del self._running[env]
                stepper.alive[env] = False  # also when only the budget ended it

    def _success(self, env: int) -> bool:
        infos = self._stepper.infos
        flags = {key: newest(infos[key], env) for key in SUCCESS_KEYS if key in infos}
        return success_flag(flags, self._stepper.terminateds[env])

    def _complete(self, env: int, running: _Running) -> Episode:
        stepper = self._stepper
        level = logging.INFO if stepper.log_episodes else logging.DEBUG
        logger.log(level, "episode %d ended after %d steps in env %d", running.index, running.length, env)
        return Episode(
            index=running.index,
            seed=running.seed,
            length=running.length,
            total_reward=running.total_reward,
            success=running.success,
            terminated=bool(stepper.terminateds[env]),
            truncated=bool(stepper.truncateds[env]),
            columns=running.recorder.columns(),
            final={key: _own(newest(value, env)) for key, value in stepper.infos.items() if key[0] != "_"},
        )

    def _in_order(self) -> Iterator[Episode]:
        while self._order and self._order[0] in self._done:
            yield self._done.pop(self._order.popleft())


def _own(value: Any) -> Any:
    """A copy of an info value, which the pool will overwrite."""
    return value.clone() if hasattr(value, "clone") else copy.copy(value)
