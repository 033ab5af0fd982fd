"""What the envs of a World are made of: id or vector env, constructor arguments, wrappers; and the pool they end in."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from stable_worldmodel.envs import resolve_id
from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool import Pool, make_pool
from stable_worldmodel.world import built
from stable_worldmodel.world.evaluation import check_count
from stable_worldmodel.world.identity import describe
from stable_worldmodel.wrappers import MegaWrapper, add_success, flatten_actions
from stable_worldmodel.wrappers.images import parse_image_shape

DEFAULT_LIMIT = 100  # env steps
_FALLBACK_SHAPE = (84, 84)  # where nothing is drawn


class Opened(NamedTuple):
    """A pool, and how results refer to its envs."""

    pool: Pool
    name: str
    origin: dict[str, Any]  # JSON-able, beside the name: what the hub resolved


@dataclass(frozen=True)
class EnvRecipe:
    """How to build the envs of a World; its arguments are documented there.

    Raises ContractError for arguments that are out of range or do not go together, before anything is built.
    """

    env: Any  # Gymnasium id, vector env, or address on the hub
    num_envs: int | None
    image_shape: Sequence[int] | None
    limit: int | None  # env steps
    kwargs: Mapping[str, Any]  # of the env's constructor
    pre: list[Callable]
    extra: list[Callable]
    standard: Mapping[str, Any]  # options of MegaWrapper

    def __post_init__(self) -> None:
        is_built = built.is_built(self.env)
        check_count("num_envs", 1 if self.num_envs is None and is_built else self.num_envs)
        if self.draws and self.image_shape is None and not is_built:
            raise ContractError("image_shape is missing: give (H, W), or add_pixels=False to render nothing")
        if is_built and self.kwargs:
            names = sorted(self.kwargs)
            raise ContractError(f"{names}: expected no constructor arguments for envs that are built already")
        if self.image_shape is not None:
            parse_image_shape(self.image_shape)

    @property
    def draws(self) -> bool:
        """Whether frames are rendered."""
        return bool(self.standard["add_pixels"])

    @functools.cached_property
    def arguments(self) -> dict[str, Any]:
        """What the env's constructor gets."""
        arguments = {"max_episode_steps": self.limit, **self.kwargs}
        if self.draws:
            arguments.setdefault("render_mode", "rgb_array")
        return arguments

    def world_arguments(self) -> dict[str, Any]:
        """The arguments of a World with this recipe."""
        renamed = {"pixels_transform": "image_transform", "separate_goal": "goal_conditioned"}
        return {
            "env_name": self.env,
            "num_envs": self.num_envs,
            "image_shape": self.image_shape,
            "max_episode_steps": self.limit,
            "pre_wrappers": self.pre,
            "extra_wrappers": self.extra,
            **{renamed.get(name, name): value for name, value in self.standard.items()},
            **self.kwargs,
        }

    def open(self, backend: str, workers: int | None, timeout: float | None, trust_remote_code: bool) -> Opened:
        """Build the envs, or take over those of a vector env; see World for errors."""
        if built.is_built(self.env):
            found = built.open_built(self.env, self.num_envs, backend, trust_remote_code)
            wrap = functools.partial(
                built.wrap_built,
                limit=self.limit,
                is_default_limit=self.limit == DEFAULT_LIMIT,
                image_shape=self.image_shape,
                standard=self.standard,
                pre=self.pre,
                extra=self.extra,
            )
            return Opened(built.pool_of(found.env, wrap, backend, workers, timeout), found.name, found.origin)
        name = resolve_id(self.env)
        mega = functools.partial(MegaWrapper, image_shape=self.image_shape or _FALLBACK_SHAPE, **self.standard)
        frames = [built.observed_frames] if self.draws else []
        wrappers: list[Callable] = [*frames, *self.pre, mega, *self.extra]
        # The spec, not the id: a worker process does not know what was registered here.
        make_one = functools.partial(make_env, gym.spec(name), self.arguments, wrappers)
        return Opened(make_pool([make_one] * int(self.num_envs or 1), backend, workers, timeout), name, {})

    def describe(self) -> dict[str, Any]:
        """Image shape, arguments and wrappers, JSON-able."""
        shape = None if self.image_shape is None else [int(size) for size in self.image_shape]
        wrappers = {"pre": self.pre, "extra": self.extra, **self.standard}
        return {"image_shape": shape, "arguments": describe(self.arguments), "wrappers": describe(wrappers)}


def make_env(spec: EnvSpec, arguments: dict[str, Any], wrappers: Sequence[Callable]) -> gym.Env:
    """Build one env: constructor, time limit, what success is, then the wrappers from the inside out."""
    env = flatten_actions(add_success(gym.make(spec, disable_env_checker=True, **copy.deepcopy(arguments))))
    for wrap in wrappers:
        env = wrap(env)
    return env
