"""Envs stepped together in a World: nothing but the time it takes may differ."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.pool import EnvPool
from stable_worldmodel.pool.batch import BatchPool, can_batch
from stable_worldmodel.pool.choice import make_pool
from stable_worldmodel.world.construction import make_env
from stable_worldmodel.wrappers import MegaWrapper

IDS = (
    "swm/TwoRoom-v1",
    "swm/Piecewise-v0",
    "swm/SimplePointMaze-v0",
    "swm/SimpleNavigation-v0",
    "swm/PushT-v1",
    "swm/PushT-Discrete-v1",
)
SHAPE = (20, 24)


def factory(id: str, steps: int | None = 12, **mega: Any) -> Any:
    mega = {"image_shape": SHAPE, **mega}
    arguments = {"max_episode_steps": steps, "render_mode": "rgb_array"}
    return functools.partial(make_env, gym.spec(id), arguments, [functools.partial(MegaWrapper, **mega)])


def both(id: str, n: int = 4, **kwargs: Any) -> tuple[BatchPool, EnvPool]:
    return BatchPool([factory(id, **kwargs)] * n), EnvPool([factory(id, **kwargs)] * n)


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal to the last bit, but for the time that drawing took."""
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            if key != "render_time":
                assert_same(value, theirs[key])
    elif isinstance(ours, tuple):
        for value, other in zip(ours, theirs, strict=True):
            assert_same(value, other)
    else:
        np.testing.assert_array_equal(ours, theirs, strict=isinstance(ours, np.ndarray))


@pytest.mark.parametrize("mega", [{}, {"add_pixels": False}])
@pytest.mark.parametrize("id", IDS)
def test_a_batch_pool_is_an_env_pool(id: str, mega: dict) -> None:
    ours, theirs = both(id, **mega)
    options = [None, {"variation": ["all"]}, {"variation": []}, None]
    assert_same(ours.reset(seed=5, options=options), theirs.reset(seed=5, options=options))
    rng = np.random.default_rng(0)
    ours.action_space.seed(1)
    for step in range(40):
        actions = ours.action_space.sample()
        mask = rng.random(4) < 0.7 if step % 3 else None
        assert_same(ours.step(actions, mask), theirs.step(actions, mask))
        if step % 7 == 6:
            again = rng.random(4) < 0.5
            assert_same(*(pool.reset(seed=step, options={"variation": ["all"]}, mask=again) for pool in (ours, theirs)))
    assert ours.infos["truncated"].any()


@pytest.mark.parametrize("id", IDS)
def test_calls_between_steps_count(id: str) -> None:
    ours, theirs = both(id)
    for pool in (ours, theirs):
        pool.reset(seed=3)
        goals = pool.call("sample_goal", 1)
        pool.call_each("_set_goal_state", [None, {"goal_state": goals[1]}, None, {"goal_state": goals[3]}])
        pool.call_each("_set_state", [{"state": goal} for goal in pool.call("sample_goal", 2)])
    ours.action_space.seed(0)
    for _ in range(4):
        actions = ours.action_space.sample()
        assert_same(ours.step(actions), theirs.step(actions))


def test_what_a_reader_of_infos_wrote_is_gone_after_a_step() -> None:
    ours, theirs = both("swm/TwoRoom-v1")
    for pool in (ours, theirs):
        _, infos = pool.reset(seed=3)
        for key in ("goal", "goal_state", "pixels", "observation"):
            infos[key][:] = 0
    actions = np.ones((4, 2), np.float32)
    assert_same(ours.step(actions), theirs.step(actions))


def test_illegal_actions_are_refused_unless_frozen() -> None:
    ours, _ = both("swm/TwoRoom-v1")
    ours.reset(seed=0)
    actions = np.full((4, 2), np.nan, np.float32)
    actions[:2] = 0
    with pytest.raises(ContractError, match="finite"):
        ours.step(actions)
    ours.step(actions, np.array([True, True, False, False]))


def test_a_pool_is_a_batch_where_nothing_else_is_around_the_envs() -> None:
    class Own(gym.Wrapper):
        pass

    def wrapped(inner: Any, outer: Any = lambda env: env, **mega: Any) -> Any:
        return lambda: outer(MegaWrapper(inner(gym.make("swm/TwoRoom-v1", disable_env_checker=True)), SHAPE, **mega))

    plain = wrapped(lambda env: env)
    assert can_batch(plain())
    assert isinstance(make_pool([plain] * 2), BatchPool)
    assert not can_batch(gym.make("swm/TwoRoom-v1"))
    for other in (
        wrapped(Own),
        wrapped(lambda env: env, Own),
        wrapped(lambda env: env, history_size=2),
        wrapped(lambda env: env, pixels_transform=lambda image: image),
        wrapped(lambda env: env, goal_shape=(9, 9)),
        lambda: MegaWrapper(gym.make("swm/TwoRoom-v1"), (*SHAPE, 1)),
        lambda: MegaWrapper(gym.make("swm/TwoRoom-v0"), SHAPE),
    ):
        assert not can_batch(other())
        assert type(make_pool([other] * 2, "sync")) is EnvPool


@pytest.mark.parametrize("id", IDS)
def test_collected_datasets_are_equal(id: str) -> None:
    class Record:
        def __init__(self) -> None:
            self.episodes: list[Any] = []

        def write_episode(self, episode: Any, **kwargs: Any) -> None:
            self.episodes.append(episode)

    written = []
    for wrappers in ([], [gym.Wrapper]):  # the second makes the World step its envs one by one
        writer = Record()
        options = {"variation": ["all"]}
        with swm.World(id, 3, image_shape=SHAPE, max_episode_steps=15, extra_wrappers=wrappers, verbose=0) as world:
            assert isinstance(world.envs, BatchPool) == (not wrappers)
            world.set_policy(RandomPolicy(seed=0))
            world.collect(writer=writer, episodes=7, seed=2, options=options, progress=False)
        written.append(writer.episodes)
    assert len(written[0]) == 7
    for ours, theirs in zip(*written, strict=True):
        assert_same(ours, theirs)
