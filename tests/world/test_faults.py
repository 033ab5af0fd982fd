"""Envs that raise, hang or die change nothing about what is recorded, until they do so every time."""

import numpy as np
import pytest
from toy_envs import WalkEnv

from stable_worldmodel.data import load_dataset
from stable_worldmodel.errors import ContractError, EnvFault
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

EPISODES = 100


def make_world(faults, kind, num_envs=6, **kwargs):
    return World(
        "toy/Faulty-v0",
        num_envs,
        (8, 8),
        backend="process",
        workers=2,
        faults=str(faults),
        kind=kind,
        **{"timeout": 0.5 if kind == "hang" else 60, **kwargs},
    )


def reference():
    with World("toy/Walk-v0", 3, (8, 8)) as world:
        world.set_policy(RandomPolicy(seed=1))
        return world.evaluate(EPISODES, seed=0, eval_keys=["state", "label"])


def assert_same_results(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raise", "hang", "kill"])
def test_a_hundred_faults_change_nothing(tmp_path, kind):
    expected = reference()
    rng = np.random.default_rng(0)
    for seed, length in enumerate(expected["episode_lengths"]):
        (tmp_path / f"{seed}_{rng.integers(0, length + 1)}").touch()
    assert len(list(tmp_path.iterdir())) == EPISODES
    with make_world(tmp_path, kind) as world:
        world.set_policy(RandomPolicy(seed=1))
        found = world.evaluate(EPISODES, seed=0, eval_keys=["state", "label"])
    assert list(tmp_path.iterdir()) == []
    assert_same_results(expected, found)


@pytest.mark.parametrize("kind", ["raise", "hang", "kill"])
def test_a_few_faults_leave_the_same_dataset(tmp_path, kind):
    faults = tmp_path / "faults"
    faults.mkdir()
    for name in ("0_0", "2_1", "4_1"):
        (faults / name).touch()
    with make_world(faults, kind, num_envs=3) as world:
        world.set_policy(RandomPolicy(seed=1))
        world.collect(tmp_path / "faulty.h5", 6, seed=0, progress=False)
    with World("toy/Walk-v0", 1, (8, 8)) as world:
        world.set_policy(RandomPolicy(seed=1))
        world.collect(tmp_path / "plain.h5", 6, seed=0, progress=False)
    plain, faulty = load_dataset(tmp_path / "plain.h5"), load_dataset(tmp_path / "faulty.h5")
    np.testing.assert_array_equal(plain.lengths, faulty.lengths)
    for episode, length in enumerate(plain.lengths):
        rows, others = plain.read_rows(episode, 0, length), faulty.read_rows(episode, 0, length)
        assert rows.keys() == others.keys()
        for key in rows:
            np.testing.assert_array_equal(rows[key], others[key], err_msg=key)


def test_an_env_that_always_fails_is_named_and_what_was_recorded_is_kept(tmp_path):
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "5_1").touch()
    with make_world(faults, "raise", num_envs=2, always=True) as world:
        world.set_policy(RandomPolicy(seed=1))
        with pytest.raises(EnvFault, match="diverged") as caught:
            world.collect(tmp_path / "d.h5", 10, seed=0, progress=False)
        fault = caught.value
        assert (fault.episode, fault.seed, fault.step) == (5, 5, 0)
        assert "FloatingPointError: the simulation of seed 5 diverged" in str(fault)
        assert isinstance(fault.__cause__, FloatingPointError)
        (faults / "5_1").unlink()
        world.collect(tmp_path / "d.h5", 10, seed=0, progress=False, mode="resume")  # the pool is still usable
    assert load_dataset(tmp_path / "d.h5").num_episodes == 10


def test_an_episode_without_seed_cannot_be_repeated(tmp_path):
    (tmp_path / "None_1").touch()
    with make_world(tmp_path, "kill", num_envs=1) as world:
        world.set_policy(RandomPolicy())
        world.reset()
        with pytest.raises(EnvFault, match="has no seed, so it cannot be repeated"):
            world.step()
        world.reset()
        world.step()


def test_a_broken_contract_is_not_tried_again():
    class Changing(WalkEnv):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, {**info, "state": np.zeros(2)}

    import gymnasium as gym

    gym.register("toy/Changing-v0", entry_point=Changing)
    with World("toy/Changing-v0", 2, (8, 8), backend="process", workers=1) as world:
        world.set_policy(RandomPolicy(seed=0))
        world.reset(seed=0)
        pids = world.envs.pids
        with pytest.raises(ContractError, match="'state'"):
            world.step()
        assert world.envs.pids == pids
    gym.registry.pop("toy/Changing-v0")
