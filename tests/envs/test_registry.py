"""The table of ids."""

from __future__ import annotations

import importlib
import warnings

import gymnasium as gym
import pytest

from stable_worldmodel import envs
from stable_worldmodel.envs import registry


@pytest.fixture
def own_ids():
    yield
    for name in ("swm-test/One-v0", "swm-test/Two-v0"):
        gym.registry.pop(name, None)
        envs.WORLDS.discard(name)
        envs.DISCRETE_WORLDS.discard(name)


def test_every_id_names_a_class() -> None:
    for name in envs.WORLDS:
        module, _, member = gym.spec(name).entry_point.partition(":")
        assert isinstance(getattr(importlib.import_module(module), member), type), name


def test_discrete_ids_are_ids() -> None:
    assert envs.DISCRETE_WORLDS <= envs.WORLDS


def test_registering_twice_is_silent() -> None:
    before = set(envs.WORLDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.register_all()
        importlib.reload(envs)
    assert before == envs.WORLDS


def test_own_envs_can_be_added(own_ids) -> None:
    entry_point = "stable_worldmodel.envs.two_room.env:TwoRoomEnv"
    envs.register("swm-test/One-v0", entry_point, kwargs={"collision": "swept"})
    envs.register("swm-test/Two-v0", entry_point, discrete=True)
    assert {"swm-test/One-v0", "swm-test/Two-v0"} <= envs.WORLDS
    assert envs.DISCRETE_WORLDS & {"swm-test/One-v0", "swm-test/Two-v0"} == {"swm-test/Two-v0"}
    env = gym.make("swm-test/One-v0")
    env.reset(seed=0)
    assert env.unwrapped.layout().swept
