"""The envs of a Gymnasium vector env, wherever it keeps them, as a pool."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool.base import Pool, Transition
from stable_worldmodel.pool.buffers import InfoBuffer
from stable_worldmodel.pool.slots import Slots
from stable_worldmodel.pool.spaces import EnvSpaces, PoolSpaces
from stable_worldmodel.pool.vector_infos import final_transition, split_infos

MODES = getattr(gym.vector, "AutoresetMode", None)  # Gymnasium 1.0 has none
_LIMIT = "_max_episode_steps"


def envs_have(env: Any, name: str) -> bool:
    """Whether all envs of a vector env (or the env itself) have the attribute `name`. Starts and breaks nothing."""
    if isinstance(env, gym.Env):
        return env.has_wrapper_attr(name)
    base = env.unwrapped  # Gymnasium's vector wrappers pass on neither `call` nor `get_attr`
    if getattr(base, "started", True) is False:
        probe = base.env_fns[0]()
        try:
            return bool(probe.has_wrapper_attr(name))
        finally:
            probe.close()
    if isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) or hasattr(base, "started"):
        # Asking an asynchronous env for an attribute that is missing ends its workers.
        return all(base.call("has_wrapper_attr", name))
    if hasattr(base, name):
        return True
    try:
        base.get_attr(name)
    except (AttributeError, NotImplementedError):
        return False
    return True


def call_envs(env: Any, name: str, *args: Any, **kwargs: Any) -> list[Any]:
    """Call the method `name` of every env of a vector env (or of the env itself), or read the attribute."""
    if isinstance(env, gym.Env):
        member = env.get_wrapper_attr(name)
        return [member(*args, **kwargs) if callable(member) else member]
    base = env.unwrapped
    if callable(getattr(base, "call", None)):
        return list(base.call(name, *args, **kwargs))
    member = getattr(base, name)
    value = member(*args, **kwargs) if callable(member) else member
    return [value] * base.num_envs if isinstance(value, str) else list(value)


class VectorPool(Pool):
    """A Gymnasium vector env as a pool; the pool owns it from here on.

    A vector env steps all its envs. One that is frozen here is stepped all the same, with some action, and what it
    gives is not looked at; it has to be reset before it is stepped on (ContractError). Automatic resets are switched
    off where the vector env allows that, else the last transition is taken from `final_obs` and `final_info`. With a
    SAME_STEP env that cannot be told otherwise, the frame of an episode's last row is that of the row before.

    Args:
        env: has `num_envs`, single and batched spaces, `reset`, `step`; `call` for what goes beyond that.
        wrap: what to put around each env. A wrapper may change anything but actions.
    """

    def __init__(self, env: Any, wrap: Callable[[gym.Env], gym.Env] = lambda env: env):
        if MODES is not None and isinstance(env.unwrapped, SyncVectorEnv):
            env.unwrapped.autoreset_mode = env.unwrapped.metadata["autoreset_mode"] = MODES.DISABLED
        if MODES is not None and getattr(env.unwrapped, "started", True) is False:
            env.unwrapped.autoreset_mode = MODES.DISABLED
        self.env = env
        n = self.num_envs
        self._variations: list[Any] | None = None
        limits = [None] * n
        if envs_have(self.env, _LIMIT):
            limits = call_envs(self.env, _LIMIT)
        self._rows = [RowEnv(self, i, limits[i]) for i in range(n)]
        self._wrapped = [wrap(row) for row in self._rows]
        self._spaces = PoolSpaces([EnvSpaces.of(env) for env in self._wrapped])
        self.seeds = np.full(n, -1, np.int64)
        buffer = InfoBuffer(n, stacked=self._spaces.history_size > 1)
        observations = create_empty_array(self._spaces.single_observation, n)
        flags = np.zeros(n, bool), np.zeros(n, bool)
        self._slots = Slots(self._wrapped, observations, np.zeros(n), *flags, buffer)
        self._ended = np.zeros(n, bool)
        self._stepped_over = np.zeros(n, bool)  # frozen here, moved there
        space = copy.deepcopy(self.env.single_action_space)
        space.seed(0)
        self._idle_action = space.sample()
        self._frames: list[Any] | None = None
        self._closed = False

    @property
    def num_envs(self) -> int:
        return int(self.env.num_envs)

    @property
    def resets_singly(self) -> bool:  # type: ignore[override]
        """Whether single envs can be reset: Gymnasium's `reset_mask`."""
        base = self.env.unwrapped
        known = isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) or hasattr(base, "started")
        return MODES is not None and (known or hasattr(base, "autoreset_mode"))

    @property
    def spaces(self) -> PoolSpaces:
        return self._spaces

    @property
    def infos(self) -> dict[str, Any]:
        return self._slots.infos.data

    @property
    def _mode(self) -> Any:
        return self.env.metadata.get("autoreset_mode") if self.env.metadata else None

    def _observations(self) -> Any:
        return self._slots.batch()

    # ------------------------------------------------------------------ episodes
    def _reset(self, indices: list[int], seeds: list[int | None], options: list[Any]) -> Any:
        full = len(indices) == self.num_envs
        groups: list[tuple[Any, list[int]]] = []  # envs by their options, as a vector env takes one mapping for all
        for i, given in zip(indices, options, strict=True):
            place = next((members for known, members in groups if _equal(known, given)), None)
            if place is None:
                groups.append((given, place := []))
            place.append(i)
        if not self.resets_singly and (not full or len(groups) > 1):
            raise ContractError(
                f"{type(self.env).__name__} resets all its envs at once, with the same options: it has no reset_mask"
            )
        by_env = dict(zip(indices, seeds, strict=True))
        for number, (given, members) in enumerate(groups):
            everyone = full and number == 0
            self._start(list(range(self.num_envs)) if everyone else members, by_env, given, everyone)
        self._slots.reset(indices, seeds, options, full=full)
        return self._slots.batch()

    def _start(self, members: list[int], seeds: dict[int, int | None], options: Any, everyone: bool) -> None:
        """Have the envs of `members` reset, and keep what they say for their rows."""
        given: dict[str, Any] = dict(options or {})
        if not everyone:
            mask = np.zeros(self.num_envs, bool)
            mask[members] = True
            given["reset_mask"] = mask
        chosen = [seeds.get(i) if i in members else None for i in range(self.num_envs)]
        observations, infos = self.env.reset(seed=_seed_argument(chosen), options=given or None)
        self._frames = self._variations = None
        each = self._split(observations)
        for i in members:
            self._rows[i].expect(each[i], split_infos(infos, i))
        self._ended[members] = self._stepped_over[members] = False

    def _step(self, indices: list[int], actions: Any) -> Transition:
        lost = [i for i in indices if self._stepped_over[i]]
        if lost:
            raise ContractError(f"envs {lost} were frozen while the vector env stepped on; reset them first")
        if MODES is not None and self._mode is not None and MODES(self._mode) == MODES.DISABLED and self._ended.any():
            # A vector env refuses to step one that has ended, even if nobody looks at it.
            self.env.reset(options={"reset_mask": self._ended.copy()})
            self._ended[:] = False
        stepped = np.zeros(self.num_envs, bool)
        stepped[indices] = True
        chosen = [
            self._rows[i].inner_action(actions[i]) if stepped[i] else self._idle_action for i in range(len(stepped))
        ]
        space = self.env.single_action_space
        empty: Any = create_empty_array(space, self.num_envs)
        batch = concatenate(space, chosen, empty)
        before = self._frames
        observations, rewards, terminateds, truncateds, infos = self.env.step(batch)
        self._frames = None
        self._stepped_over |= ~stepped
        each = self._split(observations)
        gone = []  # envs that show their next episode already
        for i in indices:
            ended = bool(terminateds[i] or truncateds[i])
            observation, info = each[i], split_infos(infos, i)
            final = final_transition(infos, i) if ended else None
            if final is not None:
                observation, info = final[0] if final[0] is not None else observation, final[1]
                gone.append(i)
            flags = bool(terminateds[i]), bool(truncateds[i])
            self._rows[i].expect(observation, info, chosen[i], float(rewards[i]), *flags)
            self._ended[i] = ended
        self._keep_frames(gone, before)
        slots = self._slots
        slots.step(indices, actions)
        return slots.batch(), slots.rewards, slots.terminateds, slots.truncateds, slots.infos.data

    def _split(self, observations: Any) -> list[Any]:
        """One observation per env, which nothing overwrites."""
        return [copy.deepcopy(item) for item in iterate(self.env.observation_space, observations)]

    # ------------------------------------------------------------------ frames
    def frame(self, i: int) -> Any:
        """What env i shows now; all envs are asked at once."""
        if self._frames is None:
            self._frames = call_envs(self.env, "render")
        return self._frames[i]

    def _keep_frames(self, gone: list[int], before: list[Any] | None) -> None:
        """Stay with the frames that the envs of `gone` showed last."""
        if gone and before is not None:
            self._frames = call_envs(self.env, "render")
            for i in gone:
                self._frames[i] = before[i]

    def variation(self, i: int) -> Any:
        """The variation space of env i with its current values, or None."""
        if self._variations is None:
            found = envs_have(self.env, "variation_space")
            self._variations = call_envs(self.env, "variation_space") if found else [None] * self.num_envs
        return self._variations[i]

    # ------------------------------------------------------------------ members
    def get_attr(self, name: str) -> list[Any]:
        if all(env.has_wrapper_attr(name) for env in self._wrapped):
            return [env.get_wrapper_attr(name) for env in self._wrapped]
        if not envs_have(self.env, name):
            raise AttributeError(f"the envs of {type(self.env).__name__} have no attribute {name!r}")
        base = self.env.unwrapped
        return list(base.get_attr(name)) if hasattr(base, "get_attr") else call_envs(base, name)

    def has(self, name: str) -> bool:
        return envs_have(self.env, name)

    def _call(self, indices: list[int], name: str, arguments: list[tuple[tuple, dict]]) -> list[Any]:
        if not indices:
            return []
        args, kwargs = arguments[0]
        if len(indices) < self.num_envs or any(not _equal(given, arguments[0]) for given in arguments):
            raise ContractError(
                f"{name!r}: a vector env calls all its envs with the same arguments; to call them one by one, build "
                "the World from an id, or from a SyncVectorEnv or LazyVectorEnv that has not started"
            )
        return call_envs(self.env, name, *args, **kwargs)

    def _set_attr(self, name: str, values: list[Any]) -> None:
        self.env.unwrapped.set_attr(name, values)

    def close(self, **kwargs: Any) -> None:
        if not self._closed:
            self._closed = True
            self.env.close(**kwargs)


class RowEnv(gym.Env):
    """One env of a vector env: `reset` and `step` hand out what the pool was told about it."""

    render_mode = "rgb_array"

    def __init__(self, pool: VectorPool, number: int, max_episode_steps: int | None):
        vector = pool.env
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self.metadata = dict(vector.metadata or {})
        self.spec = getattr(vector, "spec", None)
        if max_episode_steps is not None:
            self._max_episode_steps = max_episode_steps
        self._pool, self._number = pool, number
        self._next: Any = None

    def expect(self, observation: Any, info: dict[str, Any], *transition: Any) -> None:
        """Note what the coming `reset`, or with action, reward and flags the coming `step`, is to return."""
        self._next = observation, info, transition

    def inner_action(self, action: Any) -> Any:
        """`action` as the vector env takes it: World flattens compound ones."""
        if isinstance(self.action_space, (gym.spaces.Dict, gym.spaces.Tuple)):
            return gym.spaces.unflatten(self.action_space, np.asarray(action))
        return action

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info, _ = self._next
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, info, (taken, reward, terminated, truncated) = self._next
        if not _equal(action, taken):
            raise ContractError("a wrapper changed the action: envs of a vector env take wrappers of observations only")
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        return self._pool.frame(self._number)

    @property
    def variation_space(self) -> Any:
        """Of this env, with the current values; None if it has none."""
        return self._pool.variation(self._number)


def _seed_argument(seeds: Sequence[int | None]) -> Any:
    """None, or one integer where vector envs that take no list understand the same."""
    if all(seed is None for seed in seeds):
        return None
    first = seeds[0]
    if first is not None and all(seed == first + i for i, seed in enumerate(seeds)):
        return first
    return list(seeds)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)
