"""A World and its policy as bytes, from which another process builds them anew."""

from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle
import gymnasium as gym

from stable_worldmodel.errors import ContractError
from stable_worldmodel.world import World
from stable_worldmodel.world.built import is_built

_POOL = "pool"


class _Pickler(cloudpickle.Pickler):
    """Leaves out the pool, which policies refer to and which stays here."""

    def __init__(self, file: io.BytesIO, pool: Any):
        super().__init__(file)
        self._pool = pool

    def persistent_id(self, value: Any) -> str | None:
        return _POOL if value is self._pool else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: str) -> None:
        return None  # `World.set_policy` attaches another one


def pack_world(world: World) -> bytes:
    """What it takes to build `world` and its policy anew: the recipe, the env's registration, the policy.

    Raises ContractError for envs that are built already, and for what cloudpickle cannot send, naming the reason.
    """
    recipe = world.recipe
    if is_built(recipe.env):
        raise ContractError(
            f"{world.env_name}: other processes cannot build envs that are built already, or that come from the hub; "
            "give World the id of a registered env"
        )
    arguments = {**recipe.world_arguments(), **world.pool_options, "env_name": world.env_name, "verbose": 0}
    file = io.BytesIO()
    try:
        _Pickler(file, world.envs).dump({
            "arguments": arguments,
            "spec": gym.spec(world.env_name),
            "policy": world.policy,
        })  # fmt: skip
    except Exception as error:  # whatever the objects in it raise
        raise ContractError(
            f"the World or its policy cannot be sent to other processes: {type(error).__name__}: {error}; "
            "wrappers and transforms must be picklable, without open files, locks or simulators"
        ) from error
    return file.getvalue()


def unpack_world(data: bytes) -> World:
    """Build the World that `pack_world` described, its policy attached. The caller closes it."""
    packed = _Unpickler(io.BytesIO(data)).load()
    gym.registry.setdefault(packed["spec"].id, packed["spec"])  # what was registered there may be unknown here
    world = World(**packed["arguments"])
    if packed["policy"] is not None:
        world.set_policy(packed["policy"])
    return world
