"""World over vector envs gives what World over the same envs gives, whatever steps them."""

from __future__ import annotations

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from lerobot_toys import ReachEnv, factories

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError
from stable_worldmodel.lerobot import LazyVectorEnv
from stable_worldmodel.policy import RandomPolicy
from stable_worldmodel.pool import EnvPool, ProcessPool, VectorPool
from stable_worldmodel.pool.vector_infos import final_transition, split_infos

MODES = gym.vector.AutoresetMode
SHAPE = (224, 224)


def make_room(**kwargs):
    import stable_worldmodel.envs  # noqa: F401 - registers it in the worker

    return gym.make("swm/TwoRoom-v1", disable_env_checker=True, max_episode_steps=8, render_mode="rgb_array", **kwargs)


class Plain(gym.vector.VectorEnv):
    """A vector env of somebody's own, without reset_mask and call."""

    def __init__(self, count):
        self._env = SyncVectorEnv([make_room] * count)
        for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
            setattr(self, name, getattr(self._env, name))
        self.num_envs = count
        self.resets = []

    def reset(self, *, seed=None, options=None):
        assert options is None
        self.resets.append(seed)
        return self._env.reset(seed=seed)

    def step(self, actions):
        return self._env.step(actions)

    def render(self):
        return self._env.render()


class Record(gym.vector.VectorWrapper):
    """Any wrapper around a vector env keeps World from looking inside."""


VECTORS = {
    "sync": lambda n: SyncVectorEnv([make_room] * n),
    "wrapped sync": lambda n: Record(SyncVectorEnv([make_room] * n)),
    "wrapped lazy": lambda n: Record(LazyVectorEnv([make_room] * n)),
    "async": lambda n: AsyncVectorEnv([make_room] * n, context="forkserver"),
    "async, same step": lambda n: AsyncVectorEnv([make_room] * n, context="forkserver", autoreset_mode=MODES.SAME_STEP),
    "async, disabled": lambda n: AsyncVectorEnv([make_room] * n, context="forkserver", autoreset_mode=MODES.DISABLED),
    "lazy": lambda n: LazyVectorEnv([make_room] * n),
    "vectorised": lambda n: gym.make_vec(
        "swm/TwoRoom-v1", n, vectorization_mode="vector_entry_point", max_episode_steps=8, render_mode="rgb_array"
    ),
    "plain": Plain,
}


class Memory:
    def __init__(self):
        self.episodes = []

    def write_episode(self, episode):
        self.episodes.append(episode)

    def write_episodes(self, episodes):
        self.episodes.extend(episodes)


def collected(world: swm.World, episodes: int) -> list[dict]:
    memory = Memory()
    with world:
        world.set_policy(RandomPolicy(seed=0))
        world.collect(writer=memory, episodes=episodes, seed=5, progress=False)
    return memory.episodes


@functools.cache
def expected(episodes: int) -> list[dict]:
    return collected(swm.World("swm/TwoRoom-v1", 2, SHAPE, max_episode_steps=8, verbose=0), episodes)


@pytest.mark.parametrize("kind", VECTORS)
def test_episodes_are_those_of_the_envs_themselves(kind: str) -> None:
    found = collected(swm.World(VECTORS[kind](3), image_shape=SHAPE, verbose=0), 4)
    assert len(found) == 4
    for mine, theirs in zip(found, expected(4), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            if key == "pixels" and "async, same step" in kind:
                continue  # the last frame is that of the row before
            np.testing.assert_array_equal(np.asarray(mine[key]), np.asarray(value), err_msg=key)


def test_last_frame_under_same_step_reset_is_still_of_the_episode() -> None:
    found = collected(swm.World(VECTORS["async, same step"](3), image_shape=SHAPE, verbose=0), 3)
    for mine, theirs in zip(found, expected(4), strict=False):
        np.testing.assert_array_equal(mine["pixels"][:-1], theirs["pixels"][:-1])
        np.testing.assert_array_equal(mine["pixels"][-1], theirs["pixels"][-2])


@pytest.mark.parametrize(
    ("kind", "pool"), [("sync", EnvPool), ("lazy", ProcessPool), ("wrapped sync", VectorPool), ("plain", VectorPool)]
)
def test_envs_are_stepped_as_freely_as_they_can_be(kind: str, pool: type) -> None:
    with swm.World(VECTORS[kind](2), image_shape=SHAPE, verbose=0) as world:
        assert isinstance(world.envs, pool)


def test_vector_env_without_reset_mask_runs_in_batches() -> None:
    env = Plain(3)
    with swm.World(env, add_pixels=False, verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        assert world.evaluate(episodes=7, seed=10)["seeds"].tolist() == list(range(10, 17))
        assert env.resets[:2] == [10, 13]
        with pytest.raises(ContractError, match="resets all its envs at once"):
            world.envs.reset(mask=np.array([True, False, False]))


def test_batches_can_be_asked_for() -> None:
    with swm.World("toy/Walk-v0", 3, add_pixels=False, verbose=0) as world:
        world.set_policy(RandomPolicy(seed=0))
        batched = world.evaluate(episodes=8, seed=0, reset_mode="batches")
        singly = world.evaluate(episodes=8, seed=0)
    np.testing.assert_array_equal(batched["episode_returns"], singly["episode_returns"])


@pytest.mark.parametrize(
    "make", [SyncVectorEnv, LazyVectorEnv, functools.partial(AsyncVectorEnv, context="forkserver")]
)
def test_frames_in_the_observation_are_the_pixels(make) -> None:
    with swm.World(make(factories(2)), goal_conditioned=False, verbose=0) as world:
        world.reset(seed=0)
        assert world.infos["pixels"].shape == (2, 1, 8, 10, 3)
        assert world.infos["agent_pos"].shape == (2, 1, 1)
        assert "pixels" not in world.single_observation_space.spaces
        world.set_policy(RandomPolicy(seed=0))
        world.step()
        assert set(world.infos["pixels"].ravel().tolist()) == {15}


def test_cameras_in_the_observation_are_views() -> None:
    with swm.World(SyncVectorEnv(factories(2, cameras=True)), goal_conditioned=False, verbose=0) as world:
        world.reset(seed=0)
        assert {key for key in world.infos if key.startswith("pixels")} == {"pixels.top", "pixels.side"}


def test_frames_in_the_observation_work_for_registered_ids_too() -> None:
    if "toy/Reach-v0" not in gym.registry:
        gym.register("toy/Reach-v0", entry_point=ReachEnv)
    with swm.World("toy/Reach-v0", 2, (4, 4), goal_conditioned=False, verbose=0) as world:
        world.reset(seed=0)
        assert world.infos["pixels"].shape == (2, 1, 4, 4, 3)


def test_own_time_limit_stays_unless_another_is_given() -> None:
    lengths = {}
    for limit in (100, 5):
        for make in (SyncVectorEnv, lambda fns: Record(SyncVectorEnv(fns))):
            env = make(factories(1, max_length=12))
            with swm.World(env, goal_conditioned=False, verbose=0, max_episode_steps=limit) as world:
                world.set_policy(RandomPolicy(seed=3))
                lengths.setdefault(limit, set()).add(int(world.evaluate(episodes=3, seed=1)["episode_lengths"].max()))
    assert lengths == {100: {12}, 5: {5}}


def test_world_closes_the_vector_env() -> None:
    closed = []

    class Watched(ReachEnv):
        def close(self):
            closed.append(self)

    for env in (SyncVectorEnv([Watched] * 2), Record(SyncVectorEnv([Watched] * 2))):
        closed.clear()
        world = swm.World(env, goal_conditioned=False, verbose=0)
        world.close()
        env.close()
        assert len(closed) == 2


def test_number_of_envs_must_be_the_vector_envs() -> None:
    env = SyncVectorEnv(factories(2))
    with pytest.raises(ContractError, match="num_envs=3: the vector env has 2"):
        swm.World(env, 3)
    with swm.World(env, 2, goal_conditioned=False, verbose=0) as world:
        assert world.num_envs == 2


def test_size_is_needed_where_observations_hold_no_frames() -> None:
    env = SyncVectorEnv([make_room])
    with pytest.raises(ContractError, match="image_shape is missing"):
        swm.World(env)


def test_num_envs_is_still_needed_for_an_id() -> None:
    with pytest.raises(ContractError, match="num_envs=None"):
        swm.World("swm/TwoRoom-v1", image_shape=(8, 8))


def pool_of_rooms(count: int = 2) -> VectorPool:
    return VectorPool(Record(SyncVectorEnv(factories(count))))


def test_env_that_was_stepped_over_must_be_reset() -> None:
    pool = pool_of_rooms()
    pool.reset(seed=0)
    actions = np.zeros((2, 1), np.float32)
    pool.step(actions, mask=np.array([True, False]))
    with pytest.raises(ContractError, match=r"envs \[1\] were frozen"):
        pool.step(actions)
    pool.reset(seed=0, mask=np.array([False, True]))
    pool.step(actions)
    pool.close()


def test_wrapper_that_changes_actions_is_refused() -> None:
    class Half(gym.ActionWrapper):
        def action(self, action):
            return action / 2

    pool = VectorPool(Record(SyncVectorEnv(factories(1))), Half)
    pool.reset(seed=0)
    with pytest.raises(ContractError, match="changed the action"):
        pool.step(np.ones((1, 1), np.float32))
    pool.close()


class Compound(ReachEnv):
    """Takes its action as a dict of two numbers, which are added."""

    def __init__(self):
        super().__init__()
        self.action_space = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (1,)), "b": gym.spaces.Box(-1, 1, (2,))})

    def step(self, action):
        return super().step(action["a"] + action["b"].sum())


def test_compound_actions_are_one_array() -> None:
    rewards = []
    for env in (SyncVectorEnv([Compound] * 2), Record(SyncVectorEnv([Compound] * 2))):
        with swm.World(env, goal_conditioned=False, verbose=0) as world:
            assert world.action_space.shape == (2, 3)
            world.set_policy(RandomPolicy(seed=0))
            rewards.append(world.evaluate(episodes=4, seed=0)["episode_returns"])
    np.testing.assert_array_equal(*rewards)


def test_members_of_the_envs_are_reached() -> None:
    pool = VectorPool(AsyncVectorEnv(factories(2), context="forkserver"))
    assert pool.get_attr("task_description") == ["Please reach."] * 2
    assert pool.has("task")
    assert not pool.has("nonsense")
    with pytest.raises(AttributeError, match="nonsense"):
        pool.get_attr("nonsense")
    assert len(pool.call("render")) == 2 if pool.reset(seed=0) else False
    with pytest.raises(ContractError, match="same arguments"):
        pool.call_each("render", [{}, None])
    pool.close()
    pool.close()


def test_options_differ_per_env_where_envs_can_be_reset_singly() -> None:
    env = Record(SyncVectorEnv([make_room] * 2))
    with swm.World(env, add_pixels=False, verbose=0) as world:
        world.reset(seed=0, options=[{"state": np.array([30.0, 40.0])}, {"state": np.array([50.0, 60.0])}])
        assert world.infos["pos_agent"][:, 0].tolist() == [[30.0, 40.0], [50.0, 60.0]]
        world.reset(seed=0, options={"variation": ["agent.color"]})
        assert world.infos["variation.agent.color"].shape[:2] == (2, 1)


def test_infos_are_split_in_each_of_their_shapes() -> None:
    merged = {
        "is_success": np.array([True, False]), "_is_success": np.array([True, False]),
        "nested": {"a": np.array([1, 2]), "_a": np.array([True, True])}, "_nested": np.array([True, True]),
    }  # fmt: skip
    assert split_infos(merged, 0) == {"is_success": True, "nested": {"a": 1}}
    assert split_infos(merged, 1) == {"nested": {"a": 2}}
    assert split_infos([{"x": 1}, None], 0) == {"x": 1}
    assert split_infos([{"x": 1}, None], 1) == {}


@pytest.mark.parametrize(
    "infos",
    [
        {"final_info": {"is_success": np.array([False, True])}, "_final_info": np.array([False, True])},
        {"final_info": np.array([None, {"is_success": True}], object), "_final_info": np.array([False, True])},
        [{}, {"final_info": {"is_success": True}}],
    ],
)
def test_final_infos_are_found_in_each_of_their_shapes(infos) -> None:
    assert final_transition(infos, 0) is None
    observation, info = final_transition(infos, 1)
    assert (observation, info) == (None, {"is_success": True})
