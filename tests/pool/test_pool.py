"""The pool stacks infos in place, freezes what is masked and says precisely what does not fit."""

import gymnasium as gym
import numpy as np
import pytest
from toy_envs import WalkEnv

from stable_worldmodel.errors import ContractError
from stable_worldmodel.pool import EnvPool
from stable_worldmodel.pool.arguments import options_per_env, seeds_per_env
from stable_worldmodel.pool.buffers import InfoBuffer


def walk_pool(n=3):
    return EnvPool([WalkEnv] * n)


def test_values_are_stacked_with_a_time_axis_and_their_own_dtype():
    buffer = InfoBuffer(2)
    info = {"flag": True, "count": 3, "x": 0.5, "v": np.zeros(4, np.float32), "name": "a", "none": None}
    buffer.start([info, info])
    kinds = {key: (value.dtype, value.shape) for key, value in buffer.data.items() if isinstance(value, np.ndarray)}
    assert kinds == {
        "flag": (np.bool_, (2, 1)),
        "count": (np.int64, (2, 1)),
        "x": (np.float64, (2, 1)),
        "v": (np.float32, (2, 1, 4)),
    }
    assert buffer.data["name"] == ["a", "a"]
    assert buffer.data["none"] == [None, None]


def test_keys_are_the_union_over_envs_with_fill_values():
    buffer = InfoBuffer(2)
    buffer.start([{"x": 1.0, "n": 2, "s": "a"}, {"flag": True, "late": np.ones(2)}])
    assert np.isnan(buffer.data["x"][1, 0])
    assert buffer.data["n"][1, 0] == 0
    assert buffer.data["s"] == ["a", None]
    assert buffer.data["flag"].ravel().tolist() == [False, True]
    assert np.isnan(buffer.data["late"][0]).all()


def test_a_key_that_appears_later_is_added_and_one_that_vanishes_is_filled():
    buffer = InfoBuffer(2)
    buffer.start([{"x": 1.0}, {"x": 2.0}])
    buffer.write(1, {"x": 3.0, "new": 7})
    assert buffer.data["new"].ravel().tolist() == [0, 7]
    buffer.write(1, {"new": 8})
    assert np.isnan(buffer.data["x"][1, 0])


def test_integers_become_floats_when_a_float_comes():
    buffer = InfoBuffer(1)
    buffer.start([{"x": 1}])
    buffer.write(0, {"x": 0.5})
    assert buffer.data["x"].dtype == np.float64
    assert buffer.data["x"][0, 0] == 0.5


@pytest.mark.parametrize(
    ("first", "second"), [(np.zeros(2), np.zeros(3)), (np.zeros(2), 1.0), (True, 1.0), (1.0, "text")]
)
def test_a_changed_shape_or_kind_names_key_and_env(first, second):
    buffer = InfoBuffer(2)
    buffer.start([{"thing": first}, {"thing": first}])
    with pytest.raises(ContractError, match=r"'thing' of env 1"):
        buffer.write(1, {"thing": second})


def test_tensors_stay_tensors():
    torch = pytest.importorskip("torch")
    buffer = InfoBuffer(2)
    buffer.start([{"z": torch.ones(3)}, {"z": torch.zeros(3)}])
    assert buffer.data["z"].shape == (2, 1, 3)
    buffer.write(1, {"z": torch.full((3,), 5.0)})
    assert buffer.data["z"][1, 0].tolist() == [5, 5, 5]


def test_buffers_are_written_in_place_until_the_next_full_reset():
    pool = walk_pool()
    _, infos = pool.reset(seed=0)
    state = infos["state"]
    pool.step(np.zeros((3, 1), np.float32))
    assert pool.infos["state"] is state
    pool.reset(seed=0)
    assert pool.infos["state"] is not state


def test_masked_envs_are_frozen():
    pool = walk_pool()
    pool.reset(seed=0)
    before = pool.infos["state"].copy()
    _, rewards, terminateds, truncateds, infos = pool.step(np.ones((3, 1), np.float32), mask=np.array([1, 0, 1], bool))
    assert infos["state"][1] == before[1]
    assert (infos["state"][[0, 2]] != before[[0, 2]]).all()
    assert (rewards[1], terminateds[1], truncateds[1]) == (0, False, False)


def test_a_masked_reset_touches_only_its_envs():
    pool = walk_pool()
    pool.reset(seed=0)
    before = pool.infos["state"].copy()
    pool.reset(seed=10, mask=np.array([0, 1, 0], bool))
    assert (pool.infos["state"][[0, 2]] == before[[0, 2]]).all()
    assert pool.seeds.tolist() == [0, 11, 2]


def test_order_of_calls_and_lengths_are_checked():
    pool = walk_pool()
    with pytest.raises(RuntimeError, match="before the first reset"):
        pool.step(np.zeros((3, 1)))
    with pytest.raises(RuntimeError, match="must be full"):
        pool.reset(mask=np.array([True, False, False]))
    pool.reset(seed=0)
    with pytest.raises(ContractError, match="length 2"):
        pool.step(np.zeros((2, 1)))
    for mask in (np.ones(2, bool), np.ones(3)):
        with pytest.raises(ContractError, match="mask"):
            pool.step(np.zeros((3, 1)), mask=mask)


def test_envs_built_before_a_failure_are_closed():
    closed = []

    class Env(WalkEnv):
        def close(self):
            closed.append(self)

    def broken():
        raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        EnvPool([Env, Env, broken])
    assert len(closed) == 2


def test_envs_must_agree_on_their_spaces():
    class Wide(WalkEnv):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    with pytest.raises(ContractError, match="action_space: env 0"):
        EnvPool([WalkEnv, Wide])
    with pytest.raises(ContractError, match="empty"):
        EnvPool([])


def test_close_closes_every_env_and_raises_the_first_error_once():
    closed = []

    class Env(WalkEnv):
        def close(self):
            closed.append(self)
            raise OSError(f"env {len(closed)}")

    pool = EnvPool([Env, Env])
    with pytest.raises(OSError, match="env 1"):
        pool.close()
    pool.close()
    assert len(closed) == 2


def test_seeds_are_spread_over_envs():
    assert seeds_per_env(5, 3) == [5, 6, 7]
    assert seeds_per_env(np.int64(5), 2) == [5, 6]
    assert seeds_per_env((1, None, 7), 3) == [1, None, 7]
    assert seeds_per_env(None, 2) == [None, None]
    for bad in (True, -1, 1.5, "7", [1], [1, -2]):
        with pytest.raises(ContractError):
            seeds_per_env(bad, 2)


def test_every_env_gets_its_own_copy_of_the_options():
    shared = {"variation": ["a"], "state": np.zeros(2)}
    first, second = options_per_env(shared, 2)
    first["state"][0] = 1
    assert second["state"][0] == shared["state"][0] == 0
    for bad in ({"variation": "a"}, [None], "text", [1, 2]):
        with pytest.raises(ContractError):
            options_per_env(bad, 2)
