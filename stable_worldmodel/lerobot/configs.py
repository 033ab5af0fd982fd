"""Which envs to build, as data that LeRobot's tools and `env_config.json` understand.

A new benchmark is a subclass of EnvConfig with a name in the registry; nothing else knows it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv

from stable_worldmodel.envs import resolve_id
from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from stable_worldmodel.lerobot.env import PIXELS, SOURCES, View, make_lerobot_env
from stable_worldmodel.lerobot.features import FeatureType, PolicyFeature
from stable_worldmodel.lerobot.lazy_env import LazyVectorEnv, autoreset_options
from stable_worldmodel.utils import flatten_dict

ENV_CONFIGS: dict[str, type[EnvConfig]] = {}

# What the key of an observation is to a policy.
_KINDS = {
    ACTION: (FeatureType.ACTION, ACTION),
    "agent_pos": (FeatureType.STATE, OBS_STATE),
    "environment_state": (FeatureType.ENV, OBS_ENV_STATE),
    PIXELS: (FeatureType.VISUAL, OBS_IMAGE),
}
OBS_TYPES = {
    "pixels": (PIXELS,),
    "pixels_agent_pos": (PIXELS, "agent_pos"),
    "environment_state_agent_pos": ("environment_state", "agent_pos"),
    "pixels_environment_state_agent_pos": (PIXELS, "environment_state", "agent_pos"),
}


def register_env_config(name: str) -> Callable[[type[EnvConfig]], type[EnvConfig]]:
    """Class decorator that enters an EnvConfig under `name`; a name that is taken raises ContractError."""

    def enter(cls: type[EnvConfig]) -> type[EnvConfig]:
        if ENV_CONFIGS.get(name, cls) is not cls:
            raise ContractError(f"env type {name!r} is taken by {ENV_CONFIGS[name].__name__}")
        cls.type = name
        ENV_CONFIGS[name] = cls
        return cls

    return enter


def make_env_config(env_type: str, **values: Any) -> EnvConfig:
    """The config of a registered type, or of any Gymnasium id.

    Raises ContractError for values the config does not have, gymnasium.error.Error for an unknown type or id.
    """
    cls = ENV_CONFIGS.get(env_type)
    if cls is None:
        cls, values = ENV_CONFIGS["gym"], {"task": resolve_id(env_type), **values}
    unknown = sorted(values.keys() - {item.name for item in fields(cls)})
    if unknown:
        raise ContractError(f"{cls.__name__} has no values {unknown}, only {[item.name for item in fields(cls)]}")
    return cls(**values)


def identity(value: Any) -> Any:
    """The processor that changes nothing."""
    return value


@dataclass
class EnvConfig:
    """One task of a package `gym_<type>`. Subclasses set the defaults and, where needed, `gym_kwargs`.

    Attributes:
        type: its name in the registry.
    """

    task: str | None = None  # the env is <package>/<task>
    fps: int = 30
    features: dict[str, PolicyFeature] = field(default_factory=dict)  # by the env's keys
    features_map: dict[str, str] = field(default_factory=dict)  # env key -> policy key
    max_parallel_tasks: int = 1
    disable_env_checker: bool = True

    type: ClassVar[str] = ""

    @property
    def package_name(self) -> str:
        """The package that registers the env."""
        return f"gym_{self.type}"

    @property
    def gym_id(self) -> str:
        return f"{self.package_name}/{self.task}"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """What the env's constructor gets."""
        return {}

    @property
    def suite(self) -> str:
        """The name of the group of tasks."""
        return self.type or self.gym_id

    def factory(self) -> Callable[[], gym.Env]:
        """What builds one env, here or in a worker process."""
        if self.gym_id not in gym.registry:
            importlib.import_module(self.package_name)
        return functools.partial(
            gym.make, gym.spec(self.gym_id), disable_env_checker=self.disable_env_checker, **self.gym_kwargs
        )

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        """`{suite: {task id: vector env}}`. Worker processes are used only for several envs, and start on first use."""
        return {self.suite: {0: vector_env([self.factory()] * n_envs, use_async_envs)}}

    def get_env_processors(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """What observations go through before, and actions after, the policy's own processors."""
        return identity, identity

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `env_config_from_dict` reads it."""
        values = asdict(self)
        values["features"] = {key: feature.to_dict() for key, feature in self.features.items()}
        return {"type": self.type, **values}


def env_config_from_dict(values: Mapping[str, Any]) -> EnvConfig:
    """The config that `to_dict` described. ContractError if its type is unknown."""
    rest = dict(values)
    env_type = rest.pop("type", None)
    if env_type not in ENV_CONFIGS:
        raise ContractError(f"env type {env_type!r}: expected one of {sorted(ENV_CONFIGS)}")
    features = rest.get("features") or {}
    rest["features"] = {key: PolicyFeature(FeatureType(item["type"]), item["shape"]) for key, item in features.items()}
    if "tasks" in rest:
        rest["tasks"] = [env_config_from_dict(task) for task in rest["tasks"]]
    return make_env_config(env_type, **rest)


def vector_env(
    factories: Sequence[Callable[[], gym.Env]],
    use_async_envs: bool,
    spaces: tuple[gym.Space, gym.Space] | None = None,
    *,
    lazy: bool = False,
) -> Any:
    """A vector env of these envs; one env is always synchronous. `lazy`: build nothing before the first use."""
    workers = use_async_envs and len(factories) > 1
    if workers or lazy:
        return LazyVectorEnv(factories, *(spaces or (None, None)), use_async=workers)
    return SyncVectorEnv(factories, **autoreset_options())


@register_env_config("gym")
@dataclass
class GymEnvConfig(EnvConfig):
    """Any registered env, shown as LeRobot expects it; its actions must be numbers along one axis, or discrete.

    `features` and `features_map` follow from the fields. Sizes that are not known are read from an env that is built,
    reset and closed when the config is made.
    """

    obs_type: str = "pixels_agent_pos"  # one of OBS_TYPES
    observation_height: int = 224
    observation_width: int = 224
    episode_length: int = 100  # env steps until truncation
    task_description: str = ""  # the sentence a policy is told; the task's name if empty
    kwargs: dict[str, Any] = field(default_factory=dict)  # of the env's constructor
    sources: dict[str, str] = field(default_factory=dict)  # observation key -> key of the env's observation or info
    cameras: dict[str, str] = field(default_factory=dict)  # the env's view -> the policy's camera; empty: one view

    sizes: ClassVar[Mapping[str, int]] = {}  # of actions and vectors, where they are known

    def __post_init__(self) -> None:
        if not self.task:
            raise ContractError(f"{type(self).__name__} needs a task, the id of an env")
        if self.obs_type not in OBS_TYPES:
            raise ContractError(f"obs_type={self.obs_type!r}: expected one of {sorted(OBS_TYPES)}")
        for name in ("observation_height", "observation_width", "episode_length", "fps"):
            if getattr(self, name) < 1:
                raise ContractError(f"{name}={getattr(self, name)}: expected an integer >= 1")
        kinds = self._kinds()
        image = (self.observation_height, self.observation_width, 3)
        vectors = [key for key, (kind, _) in kinds.items() if kind is not FeatureType.VISUAL]
        sizes = {key: feature.shape[0] for key, feature in self.features.items() if key in vectors}
        if not set(vectors) <= sizes.keys():
            sizes = {**(self.sizes if set(vectors) <= self.sizes.keys() else self._measured(vectors)), **sizes}
        self.features = {
            key: PolicyFeature(kind, (sizes[key],) if key in vectors else image) for key, (kind, _) in kinds.items()
        }
        self.features_map = {key: self.features_map.get(key, name) for key, (_, name) in kinds.items()}

    def _kinds(self) -> dict[str, tuple[FeatureType, str]]:
        """Env key -> what it is to a policy, and its name there; of several cameras one key each, `pixels/<camera>`."""
        kinds = {key: _KINDS[key] for key in (ACTION, *OBS_TYPES[self.obs_type])}
        if self.cameras and PIXELS in kinds:
            del kinds[PIXELS]
            for name in self.cameras.values():
                kinds[f"{PIXELS}/{name}"] = FeatureType.VISUAL, f"{OBS_IMAGES}.{name}"
        return kinds

    @property
    def package_name(self) -> str:
        return "stable_worldmodel.envs"

    @property
    def gym_id(self) -> str:
        return resolve_id(str(self.task))

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return dict(self.kwargs)

    @property
    def view(self) -> View:
        """What the env shows."""
        # All cameras have one shape.
        shapes = {key.partition("/")[0]: feature.shape for key, feature in self.features.items() if key != ACTION}
        sentence, cameras = self.task_description or str(self.task), dict(self.cameras)
        return View(shapes, str(self.task), sentence, self.episode_length, self.fps, dict(self.sources), cameras)

    def factory(self) -> Callable[[], gym.Env]:
        return functools.partial(make_lerobot_env, gym.spec(self.gym_id), self.gym_kwargs, self.view)

    def _measured(self, keys: Sequence[str]) -> dict[str, int]:
        """Sizes found in an env."""
        env = gym.make(gym.spec(self.gym_id), disable_env_checker=True, **self.gym_kwargs)
        try:
            observation, info = env.reset(seed=0)
            space = env.action_space
        finally:
            env.close()
        seen = flatten_dict(observation) if isinstance(observation, Mapping) else {"observation": observation}
        known = {**info, **seen}
        compound = isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple))
        actions = 1 if isinstance(space, gym.spaces.Discrete) else gym.spaces.flatdim(space) if compound else None
        found = {ACTION: int(np.prod(space.shape or ())) if actions is None else actions}
        for key in keys:
            names = (self.sources[key],) if key in self.sources else SOURCES.get(key, ())
            name = next((name for name in names if name in known), None)
            if key != ACTION and name is None:
                raise ContractError(
                    f"{self.gym_id} gives none of {names} for {key!r}: it has {sorted(known)}; choose another "
                    "obs_type, or name the source in sources"
                )
            if name is not None:
                found[key] = int(np.size(known[name]))
        return found


@register_env_config("pusht")
@dataclass
class PushTEnvConfig(GymEnvConfig):
    """PushT with LeRobot's interface: 10 Hz, 300 steps, and actions that are positions in px, 0 to 512.

    `environment_state` is the block's pose among the state (7,), not the 16 key points of `gym_pusht`. Models of this
    library act relative to the agent: give them `kwargs={"relative": True}`.
    """

    task: str | None = "swm/PushT-v1"
    fps: int = 10
    observation_height: int = 384
    observation_width: int = 384
    episode_length: int = 300
    task_description: str = "Push the T-shaped block onto the T-shaped target."

    sizes: ClassVar[Mapping[str, int]] = {ACTION: 2, "agent_pos": 2, "environment_state": 7}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"relative": False, **self.kwargs}


@register_env_config("two_room")
@dataclass
class TwoRoomEnvConfig(GymEnvConfig):
    """TwoRoom: move a dot through a door in the wall. `environment_state` is agent, target and doors (10,)."""

    task: str | None = "swm/TwoRoom-v1"
    fps: int = 10
    task_description: str = "Move the dot through a door to the target."
    sources: dict[str, str] = field(default_factory=lambda: {"environment_state": "observation"})

    sizes: ClassVar[Mapping[str, int]] = {ACTION: 2, "agent_pos": 2, "environment_state": 10}


@register_env_config("cube")
@dataclass
class CubeEnvConfig(GymEnvConfig):
    """A robot arm moves a cube to a target. `agent_pos` is the arm (19,), `environment_state` arm and cube (28,)."""

    task: str | None = "swm/OGBCube-v0"
    fps: int = 20
    episode_length: int = 200
    task_description: str = "Pick up the cube and place it at the target."
    sources: dict[str, str] = field(
        default_factory=lambda: {"agent_pos": "observation", "environment_state": "observation"}
    )

    sizes: ClassVar[Mapping[str, int]] = {ACTION: 5, "agent_pos": 19, "environment_state": 28}


@register_env_config("suite")
@dataclass
class SuiteEnvConfig(EnvConfig):
    """Several tasks that are evaluated together; task id i is that of `tasks[i]`.

    Tasks with equal features share the spaces of the first, so no env is built to read them again. Nothing of a task
    is built before it is used.
    """

    name: str = "suite"
    tasks: list[EnvConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ContractError("tasks is empty: expected at least one EnvConfig")
        first = self.tasks[0]
        self.features, self.features_map, self.fps = dict(first.features), dict(first.features_map), first.fps

    @property
    def suite(self) -> str:
        return self.name

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "tasks": [task.to_dict() for task in self.tasks]}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        spaces: list[tuple[EnvConfig, tuple[gym.Space, gym.Space]]] = []
        envs: dict[int, Any] = {}
        for number, task in enumerate(self.tasks):
            known = next((found for other, found in spaces if _looks_like(task, other)), None)
            envs[number] = vector_env([task.factory()] * n_envs, use_async_envs, known, lazy=True)
            if known is None:
                spaces.append((task, (envs[number].single_observation_space, envs[number].single_action_space)))
        return {self.name: envs}


def _looks_like(task: EnvConfig, other: EnvConfig) -> bool:
    """Whether two tasks are the same env, with the same spaces."""
    return task.gym_id == other.gym_id and task.features == other.features and task.gym_kwargs == other.gym_kwargs


@register_env_config("hub")
@dataclass
class HubEnvConfig(EnvConfig):
    """Code on the hub that builds the envs; its `make_env` gets this config as `cfg`."""

    hub_path: str = ""  # owner/repo[@revision][:path]

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        raise ContractError("envs of the hub need consent: call make_env(config, trust_remote_code=True)")
