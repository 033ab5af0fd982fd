"""The process pool gives what the in-process pool gives, whatever the envs put into their infos."""

import gc
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_envs import WalkEnv

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool import EnvPool, ProcessPool, make_pool
from stable_worldmodel.pool.choice import step_time

TESTS = Path(__file__).parents[1]


class ChattyEnv(gym.Env):
    """Puts every kind of value into its infos, and changes its mind about some."""

    observation_space = gym.spaces.Dict(
        {"image": gym.spaces.Box(0, 255, (4, 5, 3), np.uint8), "n": gym.spaces.Discrete(9)}
    )
    action_space = gym.spaces.MultiDiscrete([3, 4])

    def __init__(self, slot: int = 0):
        self.slot = slot
        self.gravity = 9.8

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe([0, 0])

    def step(self, action):
        self.t += 1
        return *self._observe(action)[:1], float(self.t), False, False, self._observe(action)[1]

    def _observe(self, action):
        drawn = self.np_random.integers(0, 9)
        info = {
            "count": self.t if self.t < 3 else self.t + 0.5,  # an integer that becomes a float
            "flag": bool(drawn % 2),
            "text": f"step {self.t}" if self.t % 2 else "even",
            "nested": {"a": [1, 2, int(drawn)]},
            "nothing": None,
            "array": np.full((2, 3), drawn, np.float32),
            "action_seen": np.array(action),
        }
        if self.t > 1 and self.slot % 3 == 1:
            info["late"] = np.array([self.t, drawn])  # a key that only some envs have, later
        if self.t == 4:
            del info["flag"]
        return {"image": np.full((4, 5, 3), drawn, np.uint8), "n": drawn}, info

    def distance(self, to, scale=1.0):
        return scale * abs(self.t - to)

    def fail(self):
        raise LookupError("asked for")


class TextEnv(ChattyEnv):
    """Observations and actions that are no arrays."""

    observation_space = gym.spaces.Dict({"say": gym.spaces.Text(8), "n": gym.spaces.Discrete(9)})
    action_space = gym.spaces.Dict({"go": gym.spaces.Discrete(3)})

    def step(self, action):
        return self._observe()[0], 0.0, False, False, {"took": action["go"]}

    def _observe(self, action=None):
        self.t += 1
        return {"say": "x" * self.t, "n": self.t}, {}


def assert_same(left, right):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (tuple, list)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right


def both(make, num_envs, workers):
    fns = [lambda slot=slot: make(slot) for slot in range(num_envs)]
    return EnvPool(fns), ProcessPool(fns, workers=workers)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_both_pools_give_the_same(num_envs, workers, seed, data):
    local, remote = both(ChattyEnv, num_envs, workers)
    with_mask = st.lists(st.booleans(), min_size=num_envs, max_size=num_envs)
    try:
        assert_same(local.reset(seed=seed), remote.reset(seed=seed))
        for _ in range(data.draw(st.integers(0, 8))):
            mask = np.array(data.draw(with_mask))
            verb = data.draw(st.sampled_from(["step", "step", "reset", "full reset"]))
            if verb == "step":
                actions = local.action_space.sample()
                assert_same(local.step(actions, mask), remote.step(actions, mask))
            else:
                mask = None if verb == "full reset" else mask
                seed += 1
                assert_same(local.reset(seed=seed, mask=mask), remote.reset(seed=seed, mask=mask))
            assert_same(local.seeds, remote.seeds)
    finally:
        remote.close()


def test_spaces_that_are_no_arrays_go_through_messages():
    local, remote = both(TextEnv, 3, 2)
    assert_same(local.reset(seed=0), remote.reset(seed=0))
    actions = [{"go": i} for i in range(3)]
    assert_same(local.step(actions), remote.step(actions))
    assert remote.infos["took"].ravel().tolist() == [0, 1, 2]
    remote.close()


def test_tensors_and_histories_are_shared():
    torch = pytest.importorskip("torch")
    from stable_worldmodel.wrappers import MegaWrapper

    class TensorEnv(WalkEnv):
        def _observe(self):
            observation, info = super()._observe()
            return observation, {**info, "latent": torch.full((2,), float(self.t))}

    def make(slot):
        return MegaWrapper(TensorEnv(render_mode="rgb_array"), (8, 8), history_size=slot // 100 + 2)

    local, remote = both(make, 3, 2)
    local.reset(seed=0)
    remote.reset(seed=0)
    actions = np.full((3, 1), 0.5, np.float32)
    mine, theirs = local.step(actions)[-1], remote.step(actions)[-1]
    assert isinstance(theirs["pixels"], np.ndarray)
    assert theirs["pixels"].shape == (3, 2, 8, 8, 3)
    for info in (mine, theirs):
        info.pop("render_time")
    assert mine["latent"].shape == (3, 2, 2)
    assert torch.equal(mine.pop("latent"), theirs.pop("latent"))
    assert_same(mine, theirs)
    remote.close()


def test_methods_and_attributes_of_the_envs_are_reached():
    local, remote = both(ChattyEnv, 5, 2)
    for pool in (local, remote):
        pool.reset(seed=0)
        assert pool.call("distance", 3, scale=2.0) == [6.0] * 5
        assert pool.call("slot") == [0, 1, 2, 3, 4]
        assert pool.call_each("distance", [{"to": i} if i % 2 else None for i in range(5)]) == [None, 1, None, 3, None]
        assert pool.has("distance")
        assert not pool.has("fly")
        pool.set_attr("gravity", [1.0, 2.0, 3.0, 4.0, 5.0])
        assert pool.get_attr("gravity") == [1.0, 2.0, 3.0, 4.0, 5.0]
        with pytest.raises(LookupError, match="asked for"):
            pool.call("fail")
        with pytest.raises(AttributeError):
            pool.call("fly")
        with pytest.raises(ContractError, match="one per env"):
            pool.set_attr("gravity", [1.0])
        assert pool.call("distance", 1) == [1, 1, 1, 1, 1]
    remote.close()


def test_nothing_starts_before_it_is_needed_and_everything_ends_at_close():
    pool = ProcessPool([WalkEnv] * 3, workers=2)
    assert pool.pids == []
    assert pool.num_envs == 3
    pids = (pool.reset(seed=0), pool.pids)[1]
    assert len(pids) == 2
    pool.close()
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        pool.reset()


def test_closing_leaks_neither_descriptors_nor_memory():
    def count():
        maps = Path("/proc/self/maps").read_text().splitlines()
        return len(list(Path("/proc/self/fd").iterdir())), sum("memfd:" in line for line in maps)

    pool = ProcessPool([WalkEnv] * 2, workers=2)
    pool.reset(seed=0)
    pool.close()
    del pool
    gc.collect()  # pools of other tests that failed to start
    before = count()
    for _ in range(3):
        pool = ProcessPool([WalkEnv] * 2, workers=2)
        for seed in range(3):
            pool.reset(seed=seed)
        pool.close()
    del pool
    assert count() == before


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"workers": 0}, "workers=0"), ({"timeout": 0}, "timeout=0"), ({"env_fns": []}, "env_fns is empty")],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ContractError, match=message):
        ProcessPool(**{"env_fns": [WalkEnv], **kwargs})


def test_what_cannot_be_sent_is_said_before_anything_starts():
    lock = threading.Lock()
    with pytest.raises(ContractError, match="cannot be sent"):
        ProcessPool([lambda: WalkEnv(max_length=lock)])


def test_an_env_that_cannot_be_built_raises_its_own_error():
    pool = ProcessPool([lambda: WalkEnv(no_such_argument=1)] * 2, workers=2)
    with pytest.raises(TypeError, match="no_such_argument"):
        pool.reset()


def test_envs_that_disagree_are_refused():
    def other():
        env = WalkEnv()
        env.action_space = gym.spaces.Discrete(2)
        return env

    with pytest.raises(ContractError, match="action_space"):
        ProcessPool([WalkEnv, other], workers=2).reset()


def test_auto_takes_workers_for_slow_envs_only():
    class SlowEnv(WalkEnv):
        def step(self, action):
            time.sleep(0.003)
            return super().step(action)

    pools = [make_pool([WalkEnv] * 2), make_pool([SlowEnv] * 2, workers=2), make_pool([SlowEnv])]
    assert [type(pool) for pool in pools] == [EnvPool, ProcessPool, EnvPool]
    for pool in pools:
        pool.close()
    with pytest.raises(ContractError, match="backend='threads'"):
        make_pool([WalkEnv], "threads")


def test_timing_an_env_leaves_its_unseeded_episodes_random():
    env = WalkEnv()
    starts = set()
    for _ in range(3):
        step_time(env)
        starts.add(float(env.reset()[0][0]))
    assert len(starts) == 3


# ---------------------------------------------------------------------- what users do to the parent

SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import json, os, signal, time
import gymnasium as gym, numpy as np
from stable_worldmodel.pool import ProcessPool
print("importing main", flush=True)
class MainEnv(gym.Env):
    observation_space = action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {{}}
    def step(self, action):
        {step}
        return np.zeros(1, np.float32), 0.0, False, False, {{}}
pool = ProcessPool([lambda: MainEnv() for _ in range(3)], workers=2)
pool.reset(seed=0)
print(json.dumps(pool.pids), flush=True)
"""


def start_script(step, rest):
    script = textwrap.dedent(SCRIPT).format(tests=str(TESTS), step=step) + textwrap.dedent(rest)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "importing main\n"
    return process, json.loads(process.stdout.readline())


def assert_gone(pids, seconds=5.0):
    deadline = time.monotonic() + seconds
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if _runs(pid)]}"
        time.sleep(0.02)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_without_main_guard_works_with_lambdas_and_its_own_classes():
    process, pids = start_script("pass", "pool.step(np.zeros((3, 1))); print('stepped')")
    out, error = process.stdout.read(), process.stderr.read()  # communicate() would miss what readline has buffered
    assert (out, error, process.wait(60)) == ("stepped\n", "", 0)
    assert_gone(pids)


@pytest.mark.parametrize("step", ["time.sleep(1000)", "__import__('ctypes').PyDLL(None).sleep(1000)"])
def test_killing_the_parent_ends_workers_that_hang_even_in_c_code(step):
    process, pids = start_script(step, "print('go', flush=True); pool.step(np.zeros((3, 1)))")
    process.stdout.readline()
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert_gone(pids)


def test_ctrl_c_twice_leaves_no_process():
    rest = """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print('go', flush=True)
    try:
        pool.step(np.zeros((3, 1)))
    finally:
        pool.close()
    """
    process, pids = start_script("time.sleep(1000)", rest)
    process.stdout.readline()
    for _ in range(2):
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert_gone(pids)


def test_a_pool_that_was_interrupted_goes_on(tmp_path):
    """The interruption comes while a worker is stepping; afterwards nobody knows whether it did."""

    class SlowOnce(WalkEnv):
        def step(self, action):
            marker = tmp_path / "was slow"
            if self.t == 2 and not marker.exists():
                marker.touch()
                time.sleep(1.5)
            return super().step(action)

    local, remote = EnvPool([WalkEnv] * 2), ProcessPool([SlowOnce] * 2, workers=2)
    local.reset(seed=1)
    remote.reset(seed=1)
    actions = np.full((2, 1), 0.25, np.float32)
    for _ in range(2):
        local.step(actions)
        remote.step(actions)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            remote.step(actions)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert_same(local.step(actions), remote.step(actions))
    remote.close()
