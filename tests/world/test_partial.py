"""An evaluation that was interrupted goes on where it stopped, and ends as if nothing had happened."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_envs import WalkEnv

from stable_worldmodel.data import get_cache_dir
from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import BasePolicy, RandomPolicy
from stable_worldmodel.world import World
from stable_worldmodel.world import partial as partial_module
from stable_worldmodel.world.identity import fingerprint, policy_content
from stable_worldmodel.world.partial import PartialRun

KEYS = ("state", "label")


class Stop(Exception):
    """What breaks off a run."""


class Breaking(RandomPolicy):
    """Random until its last call; counts the episodes it was told of."""

    def __init__(self, calls=None, error=Stop, **kwargs):
        super().__init__(**kwargs)
        self._calls_left = calls
        self._error = error
        self._started = 0

    def reset(self, env_indices, episode_seeds):
        self._started += len(env_indices)
        super().reset(env_indices, episode_seeds)

    def get_action(self, obs, **kwargs):
        if self._calls_left is not None:
            self._calls_left -= 1
            if self._calls_left < 0:
                raise self._error
        return super().get_action(obs, **kwargs)


def evaluate(num_envs, policy, episodes=12, eval_keys=KEYS, seed=0, dump_every=-1, video=None, **kwargs):
    with World("toy/Walk-v0", num_envs, (16, 16), backend="sync", **kwargs) as world:
        world.set_policy(policy)
        return world.evaluate(episodes, eval_keys=eval_keys, seed=seed, dump_every=dump_every, video=video)


def interrupt(num_envs, calls, **kwargs):
    """Run until the policy has had enough; returns the episodes that were finished by then."""
    with pytest.raises(Stop):
        evaluate(num_envs, Breaking(calls, seed=3), **{"dump_every": 1, **kwargs})
    return files()


def files():
    return sorted(get_cache_dir(sub_folder="partial").iterdir())


def stored(path):
    with np.load(path, allow_pickle=False) as data:
        return sorted(data["index"].tolist())


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert first.protocol == second.protocol
    for key in first:
        x, y = np.asarray(first[key]), np.asarray(second[key])
        assert x.dtype == y.dtype, key
        np.testing.assert_array_equal(x, y, err_msg=key)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_envs=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    calls=st.tuples(st.integers(0, 70), st.integers(0, 70)),
    every=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    episodes=st.integers(1, 12),
)
def test_interrupted_anywhere_with_any_num_envs_equals_uninterrupted(num_envs, calls, every, episodes):
    whole = evaluate(num_envs[0], Breaking(seed=3), episodes)
    resumed = None
    for n, limit, dump_every in zip(num_envs, (*calls, None), (*every, every[0]), strict=True):
        try:
            resumed = evaluate(n, Breaking(limit, seed=3), episodes, dump_every=dump_every)
        except Stop:
            continue
        assert files() == []
    assert resumed is not None
    assert_same(resumed, whole)


def test_only_unfinished_episodes_are_run_again():
    (path,) = interrupt(3, 20)
    finished = stored(path)
    assert 0 < len(finished) < 12
    policy = Breaking(seed=3)
    evaluate(2, policy, dump_every=1)
    # The full reset that begins a rollout is announced for both envs; they have an episode each.
    assert policy._started == 12 - len(finished)


def test_an_episode_held_back_behind_a_long_one_is_kept():
    lengths = evaluate(1, Breaking(seed=3), 60)["episode_lengths"]
    first = next(e for e in range(58) if lengths[e] > 8 and max(lengths[e + 1 : e + 3]) < 6)
    with pytest.raises(Stop):
        evaluate(3, Breaking(8, seed=3), 3, seed=first, dump_every=1)
    assert stored(files()[0]) == [1, 2]


def test_the_file_is_written_only_after_so_many_completions():
    assert interrupt(1, 20, dump_every=12) == []
    (path,) = interrupt(1, 30, dump_every=3)
    assert len(stored(path)) % 3 == 0


def test_a_ctrl_c_keeps_what_is_finished():
    with pytest.raises(KeyboardInterrupt):
        evaluate(3, Breaking(15, KeyboardInterrupt, seed=3), dump_every=1)
    assert len(stored(files()[0])) > 1
    assert_same(evaluate(2, Breaking(seed=3), dump_every=1), evaluate(1, Breaking(seed=3)))


def test_an_env_that_raises_is_no_different(monkeypatch):
    whole = evaluate(2, Breaking(seed=3))
    steps = []
    real = WalkEnv.step

    def failing(self, action):
        steps.append(0)
        if len(steps) > 30:
            raise OSError("lost")
        return real(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(WalkEnv, "step", failing)
        with pytest.raises(OSError, match="lost"):
            evaluate(2, Breaking(seed=3), dump_every=1)
    assert len(files()) == 1
    assert_same(evaluate(4, Breaking(seed=3), dump_every=1), whole)


CHILD = """
import os, sys, time
sys.path.insert(0, {tests!r})
import toy_envs
toy_envs.register()
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.world import World

class Slow(RandomPolicy):
    def get_action(self, obs, **kwargs):
        time.sleep({pause})
        return super().get_action(obs, **kwargs)

with World("toy/Walk-v0", {num_envs}, (16, 16), backend="sync") as world:
    world.set_policy(Slow(seed=3))
    results = world.evaluate(12, eval_keys={keys!r}, seed=0, dump_every=1, video={video!r})
    results.save({out!r})
    print(results["state"].tobytes().hex(), results["label"].tolist(), results["episode_lengths"].tolist())
"""


def child(num_envs, pause, video, out):
    tests = str(Path(__file__).parent.parent)
    code = CHILD.format(tests=tests, num_envs=num_envs, pause=pause, keys=KEYS, video=str(video), out=str(out))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ})


def test_a_killed_process_is_resumed_by_the_next(tmp_path):
    av = pytest.importorskip("av")
    victim = child(3, 0.03, tmp_path / "videos", tmp_path / "none.json")
    deadline = time.monotonic() + 60
    while not (files() and len(stored(files()[0])) >= 4):
        assert time.monotonic() < deadline
        assert victim.poll() is None
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    finished = stored(files()[0])
    before = {e: (tmp_path / "videos" / f"episode_{e}.mp4").stat().st_mtime_ns for e in finished}
    resumed, _ = child(2, 0, tmp_path / "videos", tmp_path / "r.json").communicate(timeout=120)
    whole, _ = child(4, 0, tmp_path / "others", tmp_path / "w.json").communicate(timeout=120)
    assert resumed == whole
    assert resumed
    assert files() == []
    assert before == {e: (tmp_path / "videos" / f"episode_{e}.mp4").stat().st_mtime_ns for e in finished}
    assert {p.name for p in (tmp_path / "videos").iterdir()} == {f"episode_{e}.mp4" for e in range(12)}
    for e in range(12):
        frames = []
        for folder in ("videos", "others"):
            with av.open(str(tmp_path / folder / f"episode_{e}.mp4")) as container:
                frames.append([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        np.testing.assert_array_equal(*frames)


def test_a_missing_video_of_a_finished_episode_is_made_again(tmp_path):
    pytest.importorskip("av")
    (path,) = interrupt(2, 20, video=tmp_path)
    lost = tmp_path / f"episode_{stored(path)[0]}.mp4"
    lost.unlink()
    evaluate(2, Breaking(seed=3), dump_every=1, video=tmp_path)
    assert {p.name for p in tmp_path.glob("*.mp4")} == {f"episode_{e}.mp4" for e in range(12)}


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "other arrays", "pickled"])
def test_a_damaged_file_is_ignored_with_a_warning(damage, caplog):
    (path,) = interrupt(2, 20)
    data = path.read_bytes()
    other = io.BytesIO()
    np.savez(other, index=np.arange(3))
    pickled = io.BytesIO()
    np.savez(pickled, format=np.array([{"a": 1}], object))
    path.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "text": b"no results",
            "empty": b"",
            "other arrays": other.getvalue(),
            "pickled": pickled.getvalue(),
        }[damage]
    )
    policy = Breaking(seed=3)
    results = evaluate(2, policy, dump_every=1)
    assert policy._started == 12
    assert "starts over" in caplog.text
    assert_same(results, evaluate(1, Breaking(seed=3)))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"episodes": 11},
        {"eval_keys": ["state"]},
        {"max_length": 20},
        {"max_episode_steps": 7},
        {"policy": Breaking(seed=4)},
        {"policy": RandomPolicy(seed=3)},
        {"policy": Breaking(seed=3, noise=0.1)},
    ],
    ids=lambda change: ", ".join(change),
)
def test_another_run_has_another_file(change):
    (path,) = interrupt(2, 20)
    arguments = {"policy": Breaking(seed=3), **change}
    results = evaluate(2, arguments.pop("policy"), dump_every=1, **arguments)
    assert files() == [path]
    assert results["episode_count"] == change.get("episodes", 12)


def test_without_a_seed_nothing_is_kept(caplog):
    with pytest.raises(Stop):
        evaluate(2, Breaking(20, seed=3), seed=None, dump_every=1)
    assert "without a seed" in caplog.text
    assert files() == []


@pytest.mark.parametrize("dump_every", ["2", 1.5, True])
def test_the_interval_is_an_integer(dump_every):
    with pytest.raises(ContractError, match="dump_every"):
        evaluate(1, Breaking(seed=0), dump_every=dump_every)


def test_a_dataset_run_refuses_it():
    with World("toy/Walk-v0", 1, (16, 16)) as world:
        world.set_policy(RandomPolicy(seed=0))
        with pytest.raises(ContractError, match="dump_every"):
            world.evaluate(dataset="x", episodes_idx=[0], start_steps=[0], goal_offset=1, eval_budget=1, dump_every=2)


def test_a_full_disk_does_not_end_the_run(monkeypatch, caplog):
    def full(path, data):
        raise OSError(28, "No space left on device")

    whole = evaluate(2, Breaking(seed=3))
    monkeypatch.setattr(partial_module, "write_atomically", full)
    assert_same(evaluate(2, Breaking(seed=3), dump_every=1), whole)
    assert caplog.text.count("No space left") == 1


# ---------------------------------------------------------------------- values
def episode(index, **final):
    from stable_worldmodel.world import Episode

    return Episode(index, 10 + index, 5, 1.5 * index, index % 2 == 0, True, False, {}, final)


VALUES = [
    [np.float32(1), np.float32(np.nan)],
    [np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8)],
    ["a", "longer"],
    [True, False],
    [3, 4],
    [None, "text"],
    [[1, 2], [1, 2, 3]],
    [{"a": [1, None]}, {"b": "c"}],
    [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")],
    [1 + 2j, 3j],
    [b"bytes", b"x"],
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_values_of_any_type_survive(tmp_path, values):
    run = PartialRun(["key"], 10, tmp_path / "run.npz", 1)
    run.keep([episode(4, key=values[0], success=True), episode(1, key=values[1])])
    read = PartialRun(["key"], 10, tmp_path / "run.npz", 1)
    assert sorted(read.episodes) == [1, 4]
    for index, value in zip((4, 1), values, strict=True):
        found = read.episodes[index].final["key"]
        assert np.asarray(found).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(value))
    assert read.episodes[4].final["success"]
    assert "success" not in read.episodes[1].final
    assert (read.episodes[1].total_reward, read.episodes[1].seed) == (1.5, 11)


def test_values_that_cannot_be_kept_end_the_keeping_not_the_run(tmp_path, caplog):
    run = PartialRun(["key"], 10, tmp_path / "run.npz", 1)
    run.keep([episode(0, key=object())])
    run.keep([episode(1, key=object())])
    assert sorted(run.episodes) == [0, 1]
    assert caplog.text.count("no more partial results") == 1
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- fingerprints
class Nested:
    def __init__(self, **members):
        vars(self).update(members)


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


DIFFERENT = [
    None,
    1,
    True,
    "1",
    1.0,
    [1],
    [[1]],
    {"a": 1},
    {"a": 2},
    {"b": 1},
    {1},
    np.zeros(3),
    np.zeros(3, np.float32),
    np.zeros((3, 1)),
    np.array([0, 0, 1e-9]),
    np.arange(2000),
    np.r_[np.arange(1000), 7, np.arange(1001, 2000)],  # the printed form is the same as above
    Nested(a=1),
    Nested(a=2),
    Nested(a=Nested(b=np.zeros(2))),
    Nested(a=Nested(b=np.ones(2))),
    double,
    triple,
    Nested,
    Nested(a=1).__init__,
]


def test_different_settings_have_different_fingerprints():
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_equal_settings_have_equal_fingerprints():
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint(Nested(a=1, _cache=3, env=4)) == fingerprint(Nested(a=1, _cache=5, env=None))
    assert fingerprint(Nested(call=Nested(rng=np.random.default_rng(0)))) == fingerprint(
        Nested(call=Nested(rng=np.random.default_rng(1)))
    )
    loop = Nested()
    loop.me = loop
    assert fingerprint(loop) == fingerprint(loop)


def test_a_fingerprint_is_the_same_in_another_process():
    code = "from stable_worldmodel.world.partial import fingerprint; import numpy as np; "
    code += "print(fingerprint([{'a', 'b', 'c'}, {'x': np.arange(3)}, np.mean, 1.5]))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == fingerprint([{"c", "b", "a"}, {"x": np.arange(3)}, np.mean, 1.5])


def test_a_policy_counts_the_same_in_pools_of_any_size_and_after_use():
    seen = set()
    for num_envs in (1, 3):
        policy = RandomPolicy(seed=1)
        seen.add(fingerprint(policy_content(policy)))
        evaluate(num_envs, policy, 2)
        seen.add(fingerprint(policy_content(policy)))
    assert len(seen) == 1


def test_weights_and_planner_settings_count():
    torch = pytest.importorskip("torch")

    class Net(BasePolicy):
        def __init__(self, net):
            super().__init__()
            self._net = net

    def net(seed, dtype=torch.float32):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).to(dtype)

    def mark(module):
        return fingerprint(policy_content(Net(module)))

    assert mark(net(0)) == mark(net(0).eval())
    assert len({mark(net(0)), mark(net(1)), mark(net(0, torch.bfloat16))}) == 3
    moved = net(0)
    with torch.no_grad():
        moved[0].bias[0] += 1e-6
    assert mark(moved) != mark(net(0))


def test_planner_settings_count_and_the_size_of_the_pool_does_not():
    pytest.importorskip("torch")
    from stable_worldmodel.data import ZScoreScaler
    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
    from stable_worldmodel.solver import CEMSolver

    class Cost:
        def get_cost(self, info, candidates):
            return (candidates**2).sum((-1, -2))

    def planner(num_samples=8, horizon=3, mean=0.0):
        solver = CEMSolver(cost=Cost(), num_samples=num_samples, n_steps=1, topk=3)
        scaler = ZScoreScaler(np.full(1, mean), np.ones(1))
        return WorldModelPolicy(solver, PlanConfig(horizon, 1), {"action": scaler})

    def mark(policy):
        return fingerprint(policy_content(policy))

    assert len({mark(p) for p in (planner(), planner(9), planner(horizon=4), planner(mean=0.1))}) == 4
    for num_envs in (1, 3):
        policy = planner()
        evaluate(num_envs, policy, 2)
        assert mark(policy) == mark(planner())


def test_a_run_in_worker_processes_is_resumed_in_this_one():
    def room(num_envs, backend, policy, dump_every=1):
        with World("swm/TwoRoom-v1", num_envs, (32, 32), max_episode_steps=15, backend=backend) as world:
            world.set_policy(policy)
            return world.evaluate(6, seed=0, eval_keys=["state"], dump_every=dump_every)

    with pytest.raises(Stop):
        room(2, "process", Breaking(20, seed=3))
    assert len(stored(files()[0])) > 0
    policy = Breaking(seed=3)
    resumed = room(3, "sync", policy)
    assert policy._started < 6
    assert_same(resumed, room(1, "sync", Breaking(seed=3), dump_every=-1))


def test_a_policy_may_say_itself_what_it_is():
    class Own(BasePolicy):
        def __init__(self, name, noise):
            super().__init__()
            self.noise = noise
            self._name = name

        def fingerprint(self):
            return self._name

    marks = [fingerprint(policy_content(Own(name, noise))) for name, noise in (("a", 1), ("a", 2), ("b", 1))]
    assert marks[0] == marks[1] != marks[2]
