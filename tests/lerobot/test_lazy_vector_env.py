"""Worker processes that start late, end early, and are never too many."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from lerobot_toys import CountingFactory, ReachEnv, factories

from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot import (
    LazyVectorEnv,
    check_env_attributes_and_types,
    close_envs,
    close_single_env,
    render_frame,
    sub_env_has_attr,
    task_texts,
)


def workers() -> int:
    return sum(process.name.startswith("Worker<") for process in multiprocessing.active_children())


def test_nothing_starts_before_first_use_and_spaces_are_batched() -> None:
    factory = CountingFactory()
    space = ReachEnv().observation_space
    env = LazyVectorEnv([factory] * 3, space, ReachEnv().action_space)
    assert (env.num_envs, env.started, factory.calls, workers()) == (3, False, 0, 0)
    assert env.single_action_space.shape == (1,)
    assert env.action_space.shape == (3, 1)
    assert env.observation_space["agent_pos"].shape == (3, 1)
    assert env.single_observation_space == space
    assert env.unwrapped is env


def test_spaces_that_are_not_given_come_from_one_temporary_env() -> None:
    factory = CountingFactory()
    narrow = gym.spaces.Box(-2, 2, (1,), np.float32)
    env = LazyVectorEnv([factory] * 4, action_space=narrow)
    assert factory.calls == 1
    assert env.single_action_space is narrow
    assert "pixels" in env.single_observation_space.spaces
    assert env.metadata["render_fps"] == 10


def test_no_factory_is_refused() -> None:
    with pytest.raises(ContractError, match="empty"):
        LazyVectorEnv([])


def test_workers_live_from_first_use_to_close_and_no_env_is_built_here() -> None:
    factory = CountingFactory()
    env = LazyVectorEnv([factory] * 2)
    before = factory.calls
    with env:
        observation, info = env.reset(seed=3)
        assert workers() == 2
        assert observation["pixels"].shape == (2, 8, 10, 3)
        assert os.getpid() not in info["pid"].tolist()
        expected, _ = SyncVectorEnv(factories(2)).reset(seed=3)
        np.testing.assert_array_equal(observation["environment_state"], expected["environment_state"])
        assert env.step(np.ones((2, 1), np.float32))[0]["agent_pos"].tolist() == [[1.0], [1.0]]
        assert list(env.call("task_description")) == ["Please reach."] * 2
        assert list(env.get_attr("task")) == ["reach"] * 2
        assert render_frame(env, 1).shape == (1, 8, 10, 3)
    assert workers() == 0
    assert factory.calls == before
    env.close()  # a second time
    env.reset()
    assert workers() == 2
    env.close()
    assert workers() == 0


def test_attribute_probe_starts_no_worker_and_harms_none() -> None:
    lazy = LazyVectorEnv(factories(2))
    assert sub_env_has_attr(lazy, "task")
    assert not sub_env_has_attr(lazy, "nonsense")
    assert not lazy.started
    env = AsyncVectorEnv(factories(2), context="forkserver")
    try:
        assert not sub_env_has_attr(env, "nonsense")
        assert sub_env_has_attr(env, "task")
        env.reset(seed=0)  # still alive
    finally:
        env.close()


@pytest.mark.parametrize("make", [lambda fns: SyncVectorEnv(fns), lambda fns: fns[0](), LazyVectorEnv])
def test_attribute_probe_of_any_env(make) -> None:
    env = make(factories(2))
    assert sub_env_has_attr(env, "task_description")
    assert not sub_env_has_attr(env, "nonsense")
    env.close()


def test_missing_task_texts_give_one_warning_and_never_an_error() -> None:
    with SyncEnvs(["toy/Coin-v0"] * 2) as env, pytest.warns(UserWarning, match="no task_description") as caught:
        check_env_attributes_and_types(env)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env_attributes_and_types(SyncVectorEnv(factories(1)))


def test_task_texts_prefer_the_sentence_and_fall_back_to_nothing() -> None:
    assert task_texts(SyncVectorEnv(factories(2))) == ["Please reach."] * 2
    with SyncEnvs(["toy/Coin-v0"] * 3) as env:
        assert task_texts(env) == [""] * 3


class SyncEnvs:
    """A synchronous vector env in a with block."""

    def __init__(self, ids):
        self._env = SyncVectorEnv([lambda id=id: gym.make(id) for id in ids])

    def __enter__(self):
        return self._env

    def __exit__(self, *exc):
        self._env.close()


class _Closeable:
    def __init__(self, fails=False):
        self.fails, self.closed = fails, 0

    def close(self):
        self.closed += 1
        if self.fails:
            raise OSError("stuck")


def test_close_envs_closes_everything_in_any_nesting(caplog) -> None:
    envs = [_Closeable(), _Closeable(fails=True), _Closeable(), _Closeable()]
    close_envs({"a": {0: envs[0], 1: [envs[1], {"deep": (envs[2],)}]}, "b": envs[3], "name": "text", "data": b"x"})
    assert [env.closed for env in envs] == [1, 1, 1, 1]
    assert "closing _Closeable failed" in caplog.text
    close_single_env(envs[1])
    close_envs("text")
    with pytest.raises(NotImplementedError, match="int"):
        close_envs(3)


def process(pid: int) -> tuple[int, str] | None:
    """Number and start time of a process that has not ended; numbers are used again."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else (pid, fields[19])
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_twenty_tasks_of_eight_envs_never_have_more_than_eight_workers() -> None:
    space, actions = ReachEnv().observation_space, ReachEnv().action_space
    tasks = {i: LazyVectorEnv(factories(8, task=f"task {i}"), space, actions) for i in range(20)}
    seen: set[tuple[int, str]] = set()
    counts = []
    try:
        for env in tasks.values():
            _, info = env.reset(seed=0)
            seen |= {found for pid in info["pid"] if (found := process(int(pid)))}
            counts.append((workers(), sum(process(pid) == (pid, start) for pid, start in seen)))
            env.step(np.zeros((8, 1), np.float32))
            env.close()
            counts.append((workers(), sum(process(pid) == (pid, start) for pid, start in seen)))
            env.close()
    finally:
        close_envs(tasks)
    assert counts == [(8, 8), (0, 0)] * 20
    assert len(seen) == 160
    assert os.getpid() not in {pid for pid, _ in seen}
