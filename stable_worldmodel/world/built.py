"""Worlds over envs that somebody else built: a Gymnasium vector env, or one that comes from the hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool import EnvPool, Pool, VectorPool, make_pool
from stable_worldmodel.wrappers import MegaWrapper, add_success, flatten_actions

HUB = "hub:"
FRAMES = "pixels"  # the key of an observation that holds frames
_OWN_LIMIT = "_max_episode_steps"


@dataclass(frozen=True)
class Built:
    """A vector env, and how results refer to it."""

    env: Any
    name: str
    origin: dict[str, Any] = field(default_factory=dict)  # JSON-able, beside the name: what the hub resolved


def is_built(env: Any) -> bool:
    """Whether `env` is a vector env, or the address of one on the hub."""
    return is_vector_env(env) or (isinstance(env, str) and env.startswith(HUB))


def is_vector_env(env: Any) -> bool:
    """Whether `env` behaves like Gymnasium's vector envs, whatever its class."""
    needed = ("num_envs", "single_observation_space", "single_action_space", "reset", "step", "close")
    return not isinstance(env, (str, gym.Env)) and all(hasattr(env, name) for name in needed)


def open_built(env: Any, num_envs: int | None, backend: str, trust_remote_code: bool) -> Built:
    """The vector env that World was given, or that the hub has at this address.

    Raises ContractError if it holds another number of envs than `num_envs`, or if the hub's factory returned several
    tasks; RuntimeError if the code of the hub is not trusted.
    """
    if not isinstance(env, str):
        if num_envs is not None and num_envs != env.num_envs:
            raise ContractError(f"num_envs={num_envs}: the vector env has {env.num_envs}; leave num_envs out")
        return Built(env, _name_of(env))
    from stable_worldmodel.lerobot.factory import open_hub

    # Envs of the hub run here unless asked for otherwise: what they registered is unknown in other processes.
    address, _, task = env.removeprefix(HUB).partition("#")
    found = open_hub(address, num_envs or 1, backend == "process", trust_remote_code=trust_remote_code)
    return Built(found.only(task), env, {"hub": found.origin})


def _name_of(env: Any) -> str:
    spec = getattr(env, "spec", None)
    if spec is None and type(env) is SyncVectorEnv:
        first = env.envs[0]
        return first.spec.id if first.spec is not None else type(first.unwrapped).__name__
    return spec.id if spec is not None else type(env.unwrapped).__name__


def pool_of(
    env: Any, wrap: Callable[[gym.Env], gym.Env], backend: str, workers: int | None, timeout: float | None
) -> Pool:
    """The pool that steps the envs of a vector env as freely as it can.

    The envs of a SyncVectorEnv are stepped directly, those of a lazy vector env that has not started are built by its
    factories in worker processes (`backend`); anything else is stepped as a whole, see VectorPool.
    """
    try:
        return _pool_of(env, wrap, backend, workers, timeout)
    except BaseException:
        env.close()
        raise


def _pool_of(
    env: Any, wrap: Callable[[gym.Env], gym.Env], backend: str, workers: int | None, timeout: float | None
) -> Pool:
    if getattr(env, "started", True) is False:
        if backend == "auto" and env.num_envs > 1 and getattr(env, "use_async", True):
            backend = "process"
        return make_pool([functools.partial(_build, make, wrap) for make in env.env_fns], backend, workers, timeout)
    if type(env) is SyncVectorEnv:
        pool = EnvPool([functools.partial(wrap, sub) for sub in env.envs])
        env.closed = True  # closing the pool closes its envs
        return pool
    return VectorPool(env, wrap)


def _build(make: Callable[[], gym.Env], wrap: Callable[[gym.Env], gym.Env]) -> gym.Env:
    env = make()
    try:
        return wrap(env)
    except BaseException:
        env.close()
        raise


def wrap_built(
    env: gym.Env,
    *,
    limit: int | None,
    is_default_limit: bool,
    image_shape: Sequence[int] | None,
    standard: Mapping[str, Any],
    pre: Sequence[Callable],
    extra: Sequence[Callable],
) -> gym.Env:
    """Put around an env what World puts around those it makes. Its own time limit stays unless another one is given."""
    if limit is not None and not (is_default_limit and env.has_wrapper_attr(_OWN_LIMIT)):
        env = TimeLimit(env, limit)
    env = flatten_actions(add_success(env))
    if standard["add_pixels"]:
        env = observed_frames(env)
        image_shape = image_shape or _native_shape(env)
    for wrapper in pre:
        env = wrapper(env)
    env = MegaWrapper(env, image_shape=image_shape or (84, 84), **standard)
    for wrapper in extra:
        env = wrapper(env)
    return env


class ObservedFramesWrapper(gym.Wrapper):
    """Frames in the observation (`pixels`: one, or a mapping of cameras) become what `render` returns instead.

    Attributes:
        frames_space: their space.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        children: Any = env.observation_space
        self.frames_space = children[FRAMES]
        self.observation_space = gym.spaces.Dict({key: child for key, child in children.items() if key != FRAMES})
        self._frames: Any = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._without_frames(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, *rest = self.env.step(action)
        return self._without_frames(observation), *rest  # type: ignore[return-value]

    def render(self) -> Any:
        return self._frames

    def _without_frames(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        self._frames = observation[FRAMES]
        return {key: value for key, value in observation.items() if key != FRAMES}


def observed_frames(env: gym.Env) -> gym.Env:
    """Wrap `env` if its observations hold frames."""
    space = env.observation_space
    return ObservedFramesWrapper(env) if isinstance(space, gym.spaces.Dict) and FRAMES in space.spaces else env


def _native_shape(env: gym.Env) -> tuple[int, ...]:
    """(H, W, C) of the frames an env gives by itself."""
    if not env.has_wrapper_attr("frames_space"):
        raise ContractError("image_shape is missing: give (H, W), or add_pixels=False to render nothing")
    space = env.get_wrapper_attr("frames_space")
    shapes: set[Any] = (
        {child.shape for child in space.values()} if isinstance(space, gym.spaces.Dict) else {space.shape}
    )
    if len(shapes) > 1:
        raise ContractError(f"the cameras have sizes {sorted(shapes)}: give one as image_shape=(H, W)")
    return tuple(shapes.pop())
