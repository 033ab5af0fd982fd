"""Collection into files: identical for any num_envs, resumable after any interruption."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest

from stable_worldmodel.data import load_dataset
from stable_worldmodel.errors import ContractError, PolicyNotSetError
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World


def collect(path, episodes, num_envs=3, seed=0, policy_seed=1, mode="resume", **kwargs):
    with World("toy/Walk-v0", num_envs, (8, 8)) as world:
        world.set_policy(RandomPolicy(seed=policy_seed))
        world.collect(path, episodes, seed=seed, mode=mode, progress=False, **kwargs)


def content(path):
    """Everything stored in the file, dataset by dataset, those in groups included."""
    found = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(read)
    return found


def assert_same_file(first, second):
    a, b = content(first), content(second)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("num_envs", [3, 8])
def test_the_file_is_bit_identical_for_any_num_envs(tmp_path, num_envs):
    collect(tmp_path / "one.h5", 12, num_envs=1)
    collect(tmp_path / "many.h5", 12, num_envs=num_envs)
    assert_same_file(tmp_path / "one.h5", tmp_path / "many.h5")


def test_two_room_expert_data_is_bit_identical_for_any_num_envs(tmp_path):
    from stable_worldmodel.envs.two_room import ExpertPolicy

    for num_envs in (1, 3, 8):
        with World("swm/TwoRoom-v1", num_envs, (32, 32), max_episode_steps=30) as world:
            world.set_policy(ExpertPolicy(action_noise=2.0, action_repeat_prob=0.05, seed=4))
            world.collect(tmp_path / f"{num_envs}.h5", 10, seed=7, progress=False)
            results = world.evaluate(episodes=10, seed=7)
        assert_same_file(tmp_path / "1.h5", tmp_path / f"{num_envs}.h5")
        if num_envs == 1:
            reference = results
        np.testing.assert_array_equal(results["episode_successes"], reference["episode_successes"])
        np.testing.assert_array_equal(results["episode_lengths"], reference["episode_lengths"])


def test_the_goal_image_of_an_episode_is_stored_once(tmp_path):
    with World("swm/TwoRoom-v1", 2, (32, 32), max_episode_steps=9) as world:
        world.set_policy(RandomPolicy(seed=1))
        world.collect(tmp_path / "d.h5", 5, seed=0, progress=False)
    stored, dataset = content(tmp_path / "d.h5"), load_dataset(tmp_path / "d.h5")
    assert len(stored["goal/frames"]) == 5
    for k in range(5):
        goal = dataset.read_rows(k, 0, dataset.lengths[k], ["goal"])["goal"]
        np.testing.assert_array_equal(goal, np.broadcast_to(stored["goal/frames"][k], goal.shape))


def test_options_of_the_format_reach_its_writer(tmp_path):
    with World("swm/TwoRoom-v1", 2, (32, 32), max_episode_steps=9) as world:
        world.set_policy(RandomPolicy(seed=1))
        world.collect(tmp_path / "d.h5", 2, seed=0, progress=False, unique_columns=())
        assert "goal" in content(tmp_path / "d.h5")
        with pytest.raises(TypeError, match="unique_columns"):
            world.collect(writer=object(), episodes=1, unique_columns=())


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    collect(tmp_path / "whole.h5", 9)
    collect(tmp_path / "parts.h5", 4, num_envs=2)
    collect(tmp_path / "parts.h5", 9, num_envs=5)
    collect(tmp_path / "parts.h5", 9)  # nothing left to do
    assert_same_file(tmp_path / "whole.h5", tmp_path / "parts.h5")


def test_append_adds_episodes_that_go_on_counting(tmp_path):
    collect(tmp_path / "whole.h5", 9)
    collect(tmp_path / "parts.h5", 4, mode="append")
    collect(tmp_path / "parts.h5", 5, mode="append")
    assert_same_file(tmp_path / "whole.h5", tmp_path / "parts.h5")


def test_what_collect_wrote_load_dataset_finds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collect("data/walk", 3)
    dataset = load_dataset("data/walk")
    assert len(dataset.lengths) == 3
    assert dataset.metadata["env"]["id"] == "toy/Walk-v0"
    assert dataset.metadata["seed"] == 0


@pytest.mark.parametrize("backend", ["sync", "process"])
def test_frame_rate_of_the_envs_is_noted_and_used(tmp_path, backend):
    with World("CartPole-v1", 2, (32, 32), verbose=0, max_episode_steps=5, backend=backend) as world:
        world.set_policy(RandomPolicy(seed=1))
        for name, options in {"noted": {}, "given": {"fps": 7}}.items():
            world.collect(tmp_path / name, 1, seed=0, format="lerobot", progress=False, **options)
    assert load_dataset(tmp_path / "noted").metadata["render_fps"] == 50  # as Gymnasium says
    assert [load_dataset(tmp_path / name).fps for name in ("noted", "given")] == [50, 7]


class Announcing(gym.Wrapper):
    """Tells the length of an episode at its reset, and never again."""

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return observation, {**info, "lengths": (self.env.unwrapped.length, 7)}


def test_what_only_a_reset_tells_counts_for_the_episode(tmp_path):
    with World("toy/Walk-v0", 2, (8, 8), verbose=0, pre_wrappers=[Announcing]) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(tmp_path / "walks.h5", 4, seed=0, progress=False)
    dataset = load_dataset(tmp_path / "walks.h5")
    told = dataset.get_col_data("lengths")
    expected = np.repeat(dataset.lengths - 1, dataset.lengths)
    np.testing.assert_array_equal(told, np.stack([expected, np.full_like(expected, 7)], axis=1))


def test_another_run_cannot_be_resumed_by_mistake(tmp_path):
    collect(tmp_path / "d.h5", 3)
    before = content(tmp_path / "d.h5")
    with pytest.raises(ContractError, match="seed 0 instead of 5"):
        collect(tmp_path / "d.h5", 6, seed=5)
    with pytest.raises(ContractError, match="policy"):
        collect(tmp_path / "d.h5", 6, policy_seed=2)
    assert content(tmp_path / "d.h5").keys() == before.keys()
    assert len(load_dataset(tmp_path / "d.h5").lengths) == 3


def test_error_mode_refuses_and_overwrite_replaces(tmp_path):
    collect(tmp_path / "d.h5", 3)
    with pytest.raises(FileExistsError):
        collect(tmp_path / "d.h5", 3, mode="error")
    collect(tmp_path / "d.h5", 2, mode="overwrite")
    assert len(load_dataset(tmp_path / "d.h5").lengths) == 2


def test_bad_calls_are_refused_before_a_file_appears(tmp_path):
    target = tmp_path / "d.h5"
    with World("toy/Walk-v0", 2, (8, 8)) as world:
        with pytest.raises(PolicyNotSetError):
            world.collect(target, 2)
        world.set_policy(RandomPolicy(seed=0))
        with pytest.raises(ValueError, match="exactly one"):
            world.collect()
        with pytest.raises(ContractError, match="episodes=0"):
            world.collect(target, 0)
        with pytest.raises(ContractError, match="mode"):
            world.collect(target, 2, mode="sometimes")
        with pytest.raises(ContractError):
            world.collect(target, 2, format="lance")
    assert not target.exists()


def test_a_failing_env_leaves_the_complete_episodes(tmp_path):
    class Failing(RandomPolicy):
        calls = 0

        def get_action(self, obs, **kwargs):
            self.calls += 1
            if self.calls == 40:
                raise OSError("the robot fell over")
            return super().get_action(obs, **kwargs)

    with World("toy/Walk-v0", 2, (8, 8)) as world:
        world.set_policy(Failing(seed=1))
        with pytest.raises(OSError, match="fell over"):
            world.collect(tmp_path / "d.h5", 50, seed=0, progress=False)
    stored = len(load_dataset(tmp_path / "d.h5").lengths)
    assert 1 <= stored < 50
    collect(tmp_path / "whole.h5", stored)
    assert_same_file(tmp_path / "whole.h5", tmp_path / "d.h5")


@pytest.mark.slow
def test_ctrl_c_keeps_complete_episodes_and_the_next_run_continues(tmp_path):
    script = textwrap.dedent(
        f"""
        import signal, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with it ignored
        import toy_envs; toy_envs.register()
        from stable_worldmodel.policy import RandomPolicy
        from stable_worldmodel.world import World
        with World("toy/Walk-v0", 2, (8, 8)) as world:
            world.set_policy(RandomPolicy(seed=1))
            world.collect({str(tmp_path / "d.h5")!r}, 100_000, seed=0, mode="resume", progress=False)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "d.h5").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert b"KeyboardInterrupt" in error
    stored = len(load_dataset(tmp_path / "d.h5").lengths)
    assert stored > 0
    collect(tmp_path / "d.h5", stored + 3)
    collect(tmp_path / "whole.h5", stored + 3)
    assert_same_file(tmp_path / "whole.h5", tmp_path / "d.h5")
