"""An episode is a function of its number: not of pool size, backend, workers, or what interrupted the run."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stable_worldmodel.envs import WORLDS
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.pool import ProcessPool
from stable_worldmodel.world import World

ENVS = {
    "toy/Walk-v0": [None],
    "toy/Coin-v0": [None],
    "swm/TwoRoom-v1": [None, {"variation": ["all"]}, {"variation_values": {"agent.color": [0, 200, 0]}}],
}


class Interrupted(Exception):
    pass


class InterruptedPolicy(RandomPolicy):
    """Raises before the given calls of `get_action`."""

    def __init__(self, at=(), **kwargs):
        super().__init__(**kwargs)
        self._at = set(at)
        self._calls = 0

    def get_action(self, obs, **kwargs):
        self._calls += 1
        if self._calls in self._at:
            raise Interrupted
        return super().get_action(obs, **kwargs)


def content(path):
    """Everything stored in the file, dataset by dataset, those in groups included."""
    found = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item[()].tobytes())

    with h5py.File(path, "r") as file:
        file.visititems(read)
    return found


def make_world(env, num_envs, **kwargs):
    draws = env != "toy/Coin-v0"
    return World(env, num_envs, (16, 16), max_episode_steps=9, goal_conditioned=False, add_pixels=draws, **kwargs)


def run(folder, env, options, episodes, seed, num_envs, at=(), **kwargs):
    """Collect and evaluate, going on after every interruption; the file and the results."""
    path = Path(folder) / "d.h5"
    policy = InterruptedPolicy(at, seed=1)
    results = None
    with make_world(env, num_envs, **kwargs) as world:
        world.set_policy(policy)
        for _ in range(len(at) + 1):
            try:
                world.collect(path, episodes, seed=seed, options=options, mode="resume", progress=False)
                results = world.evaluate(episodes, seed=seed, options=options, eval_keys=["step_idx"], dump_every=1)
                break
            except Interrupted:
                continue
    return content(path), {key: np.asarray(value).tolist() for key, value in results.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_data_and_results_are_the_same_however_they_are_made(data):
    env = data.draw(st.sampled_from(sorted(ENVS)))
    options = data.draw(st.sampled_from(ENVS[env]))
    episodes, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 2**31))
    num_envs = data.draw(st.integers(1, 9))
    backend = data.draw(st.sampled_from([{"backend": "sync"}, {"backend": "process", "workers": 2}]))
    if backend["backend"] == "process":
        backend["workers"] = data.draw(st.integers(1, 3))
    at = data.draw(st.lists(st.integers(1, 60), max_size=3))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        reference = run(one, env, options, episodes, seed, 1, backend="sync")
        found = run(other, env, options, episodes, seed, num_envs, at, **backend)
    assert found == reference


# Of packages that cannot be installed beside the pinned ones; see docs/environments.
OPTIONAL = {"swm/Craftax": "craftax", "swm/PFRocket": "PyFlyt"}


@pytest.mark.parametrize("env", sorted(WORLDS))
def test_every_registered_env_is_the_same_in_worker_processes(tmp_path, env):
    for prefix, package in OPTIONAL.items():
        if env.startswith(prefix):
            pytest.importorskip(package)
    options = {"variation": ["all"]}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    reference = run(tmp_path / "a", env, options, 5, 3, 1, backend="sync")
    found = run(tmp_path / "b", env, options, 5, 3, 4, backend="process", workers=2)
    assert found == reference


def test_the_same_evaluation_twice_on_one_world_is_the_same():
    with make_world("swm/TwoRoom-v1", 3, backend="process", workers=2) as world:
        world.set_policy(RandomPolicy(seed=1))
        first = world.evaluate(7, seed=0)
        world.evaluate(4, seed=9)
        second = world.evaluate(7, seed=0)
        assert isinstance(world.envs, ProcessPool)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_dataset_driven_evaluation_works_in_worker_processes(tmp_path):
    from stable_worldmodel.data import load_dataset
    from stable_worldmodel.envs.two_room import ExpertPolicy

    with make_world("swm/TwoRoom-v1", 2) as world:
        world.set_policy(ExpertPolicy(seed=0))
        world.collect(tmp_path / "d.h5", 4, seed=0, options={"variation": ["all"]}, progress=False)
    dataset = load_dataset(tmp_path / "d.h5")
    items = {"episodes_idx": [0, 1, 3], "start_steps": [0, 1, 0], "goal_offset": 3, "eval_budget": 6}
    results = []
    for backend in ({"backend": "sync"}, {"backend": "process", "workers": 2}):
        with make_world("swm/TwoRoom-v1", 3, **backend) as world:
            world.set_policy(RandomPolicy(seed=0))
            results.append(world.evaluate(dataset=dataset, video=tmp_path / backend["backend"], **items))
    for key in results[0]:
        np.testing.assert_array_equal(results[0][key], results[1][key])
    for name in ("env_0.mp4", "env_2.mp4"):
        assert (tmp_path / "sync" / name).read_bytes() == (tmp_path / "process" / name).read_bytes()


def test_cartpole_does_not_succeed_by_falling_over():
    with World("CartPole-v1", 4, add_pixels=False, goal_conditioned=False, max_episode_steps=200) as world:
        world.set_policy(RandomPolicy(seed=0))
        results = world.evaluate(20, seed=0)
    assert results["success_rate"] == 0
    assert results.protocol["success"] == "is_success"
