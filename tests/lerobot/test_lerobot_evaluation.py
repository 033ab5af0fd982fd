"""Suites of tasks, one at a time, with the file LeRobot writes."""

from __future__ import annotations

import functools
import json
import os
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from lerobot_toy_policies import Chunky, OneQueue
from lerobot_toys import ReachEnv, factories

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot import (
    EvalConfig,
    GymEnvConfig,
    LazyVectorEnv,
    LeRobotPolicy,
    SuiteEnvConfig,
    TaskResult,
    auto_batch_size,
    eval_policy_all,
    evaluate,
)
from stable_worldmodel.policy import RandomPolicy


@given(st.integers(1, 500), st.integers(1, 256))
def test_automatic_batch_size_is_seven_tenths_of_the_cores_within_bounds(n_episodes: int, cores: int) -> None:
    size = auto_batch_size(n_episodes, cores)
    assert size == min(max(1, 7 * cores // 10), n_episodes, 64)


def test_eval_config_lowers_and_chooses_the_batch() -> None:
    assert EvalConfig().n_episodes == 50
    assert EvalConfig(10, 32).batch_size == 10
    assert EvalConfig(10, 3).batch_size == 3
    assert EvalConfig(7).batch_size == auto_batch_size(7)
    for bad in ({"n_episodes": 0}, {"batch_size": -1}, {"batch_size": 1.5}):
        with pytest.raises(ContractError, match=next(iter(bad))):
            EvalConfig(**bad)


def suites(count: int = 2, **kwargs) -> dict:
    return {
        "near": {0: SyncVectorEnv(factories(count, **kwargs)), 4: SyncVectorEnv(factories(count, task="other"))},
        "far": {0: SyncVectorEnv(factories(count, max_length=2))},
    }


def test_file_has_the_documented_layout(tmp_path) -> None:
    seen: list[TaskResult] = []
    info = eval_policy_all(suites(), Chunky(3), 5, output_dir=tmp_path, seed=0, max_videos=2, on_task=seen.append)
    stored = json.loads((tmp_path / "eval_info.json").read_text())
    assert stored["per_task"] == info["per_task"]
    assert [(task["task_group"], task["task_id"]) for task in info["per_task"]] == [
        ("near", 0),
        ("near", 4),
        ("far", 0),
    ]
    assert [(task.suite, task.task) for task in seen] == [("near", 0), ("near", 4), ("far", 0)]
    for task in info["per_task"]:
        metrics = task["metrics"]
        assert [len(metrics[name]) for name in ("sum_rewards", "max_rewards", "successes")] == [5, 5, 5]
        assert len(metrics["video_paths"]) == 2
        assert all(Path(path).stat().st_size > 0 for path in metrics["video_paths"])
    assert (tmp_path / "videos" / "near_4" / "eval_episode_1.mp4").exists()
    assert sorted(path.name for path in (tmp_path / "videos" / "near_0").iterdir()) == [
        "eval_episode_0.mp4",
        "eval_episode_1.mp4",
    ]
    near, far, overall = info["per_group"]["near"], info["per_group"]["far"], info["overall"]
    assert (near["pc_success"], near["n_episodes"], overall["n_episodes"]) == (100.0, 10, 15)
    successes = [flag for task in info["per_task"] for flag in task["metrics"]["successes"]]
    assert overall["pc_success"] == pytest.approx(100 * np.mean(successes))
    assert far["pc_success"] < 100
    rewards = [value for task in info["per_task"] for value in task["metrics"]["sum_rewards"]]
    assert overall["avg_sum_reward"] == pytest.approx(np.mean(rewards))
    assert overall["eval_ep_s"] == pytest.approx(overall["eval_s"] / 15)
    assert info["protocol"] == {"n_episodes": 5, "seed": 0, "policy": info["protocol"]["policy"]}
    assert stored["provenance"]["versions"]["gymnasium"]


def test_rewards_and_successes_are_those_of_the_episodes() -> None:
    info = eval_policy_all({"s": {0: SyncVectorEnv(factories(3))}}, Chunky(1), 4, seed=11)
    metrics = info["per_task"][0]["metrics"]
    for k in range(4):
        env = ReachEnv()
        observation, _ = env.reset(seed=11 + k)
        rewards, done = [], False
        while not done:
            action = np.clip(observation["environment_state"] - observation["agent_pos"], -1, 1)
            observation, reward, terminated, truncated, step = env.step(action)
            rewards.append(reward)
            done = terminated or truncated
        assert metrics["sum_rewards"][k] == pytest.approx(sum(rewards))
        assert metrics["max_rewards"][k] == pytest.approx(max(rewards))
        assert metrics["successes"][k] == step["is_success"]
        assert metrics["lengths"][k] == len(rewards)


@pytest.mark.parametrize("policy", [Chunky(3), OneQueue(3), RandomPolicy(seed=0)], ids=["chunks", "queue", "ours"])
def test_any_kind_of_policy_is_evaluated(policy) -> None:
    one, four = (
        eval_policy_all({"s": {0: SyncVectorEnv(factories(count))}}, policy, 6, seed=3)["per_task"] for count in (1, 4)
    )
    assert one[0]["metrics"] == four[0]["metrics"]


def test_failing_task_is_reported_and_the_rest_run(tmp_path, caplog) -> None:
    envs = {"s": {0: SyncVectorEnv(factories(2, fails_at=0)), 1: SyncVectorEnv(factories(2))}}
    info = eval_policy_all(envs, Chunky(1), 3, seed=0, output_dir=tmp_path)
    first, second = info["per_task"]
    assert first["error"] == "ArithmeticError: the simulator exploded"
    assert first["metrics"]["successes"] == []
    assert "error" not in second
    assert (info["overall"]["n_episodes"], info["overall"]["n_failed_tasks"]) == (3, 1)
    assert "task s 0 failed" in caplog.text


def test_file_is_strict_json_when_every_task_failed(tmp_path) -> None:
    info = eval_policy_all({"s": {0: SyncVectorEnv(factories(1, fails_at=0))}}, Chunky(1), 2, output_dir=tmp_path)
    assert np.isnan(info["overall"]["pc_success"])
    text = (tmp_path / "eval_info.json").read_text()
    assert json.loads(text)["overall"]["pc_success"] is None
    assert "NaN" not in text


class _Watched(ReachEnv):
    """Counts how many envs are open, by the task they belong to."""

    open: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, task, fails_at=None):
        super().__init__(task, fails_at=fails_at)
        self.open[task] = self.open.get(task, 0) + 1

    def close(self):
        if self.task in self.open:
            self.open[self.task] -= 1


def watched(count: int, task: str, **kwargs) -> LazyVectorEnv:
    env = ReachEnv()
    fns = [functools.partial(_Watched, task, **kwargs)] * count
    return LazyVectorEnv(fns, env.observation_space, env.action_space, use_async=False)


def test_envs_of_one_task_exist_at_a_time() -> None:
    _Watched.open.clear()
    most = []

    class Looking(Chunky):
        def predict_action_chunk(self, batch):
            most.append(sum(count > 0 for count in _Watched.open.values()))
            return super().predict_action_chunk(batch)

    tasks = {i: watched(2, f"task {i}", fails_at=1 if i == 1 else None) for i in range(4)}
    eval_policy_all({"s": tasks}, Looking(2), 3)
    assert set(most) == {1}
    assert set(_Watched.open.values()) == {0}


def test_interrupted_evaluation_closes_everything() -> None:
    _Watched.open.clear()

    class Impatient(Chunky):
        def predict_action_chunk(self, batch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        eval_policy_all({"s": {0: watched(2, "a"), 1: watched(2, "b")}}, Impatient(1), 3)
    assert set(_Watched.open.values()) == {0}
    assert threading.active_count() < 20


def children() -> set[int]:
    """Processes of this one that run pool workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_text()
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == os.getpid() and "pool.worker" in command:
                found.add(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_next_workers_start_after_the_previous_ones_ended() -> None:
    env = ReachEnv()
    spaces = env.observation_space, env.action_space
    tasks = {i: LazyVectorEnv(factories(3, task=f"task {i}"), *spaces) for i in range(3)}
    counts, pids = [], []

    class Looking(Chunky):
        def predict_action_chunk(self, batch):
            counts.append(len(children()))
            pids.append(frozenset(children()))
            return super().predict_action_chunk(batch)

    info = eval_policy_all({"s": tasks}, Looking(3), 3, workers=2)
    assert max(counts) == 2
    assert len(set(pids)) == 3
    assert children() == set()
    assert info["overall"]["n_failed_tasks"] == 0
    assert not any(env.started for env in tasks.values())


class _Broken(ReachEnv):
    """Works in the process it is told to, and nowhere else."""

    def __init__(self, process: int):
        if os.getpid() != process:
            raise OSError("no display")
        super().__init__()


def test_task_whose_workers_do_not_start_is_reported_and_the_rest_run(tmp_path) -> None:
    env = ReachEnv()
    spaces = env.observation_space, env.action_space
    broken = LazyVectorEnv([functools.partial(_Broken, os.getpid())] * 2, *spaces)
    tasks = {0: LazyVectorEnv(factories(2), *spaces), 1: broken, 2: LazyVectorEnv(factories(2), *spaces)}
    info = eval_policy_all({"s": tasks}, Chunky(3), 3, seed=0, output_dir=tmp_path)
    assert ["error" in task for task in info["per_task"]] == [False, True, False]
    assert "no display" in info["per_task"][1]["error"]
    assert info["per_task"][0]["metrics"]["sum_rewards"] == info["per_task"][2]["metrics"]["sum_rewards"]
    assert (info["overall"]["n_episodes"], info["per_group"]["s"]["n_failed_tasks"]) == (6, 1)
    assert json.loads((tmp_path / "eval_info.json").read_text())["per_task"] == info["per_task"]
    assert children() == set()


def test_nothing_to_evaluate_is_refused() -> None:
    for envs in ({}, {"s": {}}):
        with pytest.raises(ContractError, match="no task"):
            eval_policy_all(envs, Chunky(1))


def test_configs_are_built_and_evaluated() -> None:
    if "toy/Reach-v0" not in gym.registry:
        gym.register("toy/Reach-v0", entry_point=ReachEnv)
    reach = GymEnvConfig(
        task="toy/Reach-v0",
        obs_type="pixels_environment_state_agent_pos",
        observation_height=12,
        observation_width=14,
        episode_length=30,
    )
    suite = SuiteEnvConfig(name="toys", tasks=[reach, reach])
    policy = LeRobotPolicy(Chunky(2))
    info = evaluate(suite, policy, EvalConfig(n_episodes=3, batch_size=2, use_async_envs=False), seed=0)
    assert list(info["per_group"]) == ["toys"]
    assert info["overall"]["pc_success"] == 100
    assert info["overall"]["n_episodes"] == 6
    assert policy.policy.batches[-1]["observation.image"].shape[1:] == (3, 12, 14)


def test_frames_are_rendered_where_observations_hold_none(tmp_path) -> None:
    def room():
        return gym.make("swm/TwoRoom-v1", max_episode_steps=3)

    for shape, filmed in ((None, 0), ((32, 32), 2)):
        info = eval_policy_all(
            {"s": {0: SyncVectorEnv([room] * 2)}}, RandomPolicy(seed=0), 2, output_dir=tmp_path, image_shape=shape
        )
        assert len(info["overall"]["video_paths"]) == filmed


def test_our_own_envs_and_experts_are_evaluated(tmp_path) -> None:
    from stable_worldmodel.envs.two_room import ExpertPolicy

    config = swm.lerobot.make_env_config("two_room", observation_height=32, observation_width=32)
    info = evaluate(config, ExpertPolicy(seed=0), EvalConfig(4, 2, use_async_envs=False), output_dir=tmp_path)
    assert info["overall"]["pc_success"] == 100
    assert (tmp_path / "videos" / "two_room_0" / "eval_episode_0.mp4").exists()
