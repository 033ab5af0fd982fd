"""Vector envs with a batched variation space, and with seeds and options per env."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from toy_envs import CoinEnv, WalkEnv

from stable_worldmodel import spaces
from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers import SyncWorld, VariationWrapper


class Varied(WalkEnv):
    """A walk with two factors of variation; `high` and `more` make its space another one."""

    def __init__(self, high=1.0, more=False):
        super().__init__("rgb_array")
        factors = {"speed": spaces.Box(0.0, high, (1,), np.float32), "size": spaces.Discrete(3)}
        self.variation_space = spaces.Dict({**factors, **({"mass": spaces.Discrete(2)} if more else {})})


class Diary(CoinEnv):
    """Remembers how it was reset; ends after `length` steps and adds to the options it was given."""

    def __init__(self, length=3):
        super().__init__()
        self.length = length
        self.resets = []

    def reset(self, *, seed=None, options=None):
        self.resets.append((seed, None if options is None else dict(options)))
        if options is not None:
            options["seen"] = True
        self.t = 0
        return np.zeros(1, np.float32), {"seed": -1 if seed is None else seed}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t / 9, np.float32), float(action), self.t >= self.length, False, {"t": self.t}


def vector(*envs):
    return SyncVectorEnv([lambda env=env: env for env in envs])


class TestVariationWrapper:
    def test_same_batches_the_space_of_the_first_env(self):
        env = VariationWrapper(vector(Varied(), Varied(), Varied()))
        assert env.single_variation_space is env.envs[0].variation_space
        assert env.variation_space["speed"].shape == (3, 1)
        assert env.variation_space["size"].shape == (3,)
        assert len(env.envs) == 3

    def test_different_keeps_the_bounds_of_every_env(self):
        env = VariationWrapper(vector(Varied(1.0), Varied(2.0)), "different")
        assert env.variation_space["speed"].high.ravel().tolist() == [1, 2]
        assert list(env.variation_space.spaces) == ["speed", "size"]
        assert env.variation_space["size"].nvec.tolist() == [3, 3]

    def test_different_batches_tuples_too(self):
        envs = [Varied(), Varied()]
        for i, env in enumerate(envs):
            env.variation_space = gym.spaces.Tuple([spaces.Box(0.0, 1.0 + i), gym.spaces.Discrete(2 + i)])
        batched = VariationWrapper(vector(*envs), "different").variation_space
        assert batched[0].high.ravel().tolist() == [1, 2]
        assert batched[1].nvec.tolist() == [2, 3]

    def test_a_space_is_taken_as_it_is(self):
        space = gym.spaces.Box(0, 1, (2, 7))
        env = VariationWrapper(vector(Varied(), Varied(more=True)), space)
        assert env.variation_space is space

    @pytest.mark.parametrize("mode", ["same", "different"])
    def test_spaces_of_another_structure_are_refused(self, mode):
        with pytest.raises(ValueError, match="env 1"):
            VariationWrapper(vector(Varied(), Varied(more=True)), mode)

    @pytest.mark.parametrize("envs", [(WalkEnv(), WalkEnv()), (Varied(), WalkEnv()), (WalkEnv(), Varied())])
    def test_without_a_space_on_every_env_there_is_none(self, envs):
        env = VariationWrapper(vector(*envs))
        assert env.variation_space is None
        assert env.single_variation_space is None

    @pytest.mark.parametrize("mode", ["equal", None, 3])
    def test_unknown_modes_are_refused(self, mode):
        with pytest.raises(ValueError, match="variation_mode"):
            VariationWrapper(vector(WalkEnv()), mode)

    def test_envs_in_other_processes_are_refused(self):
        remote = AsyncVectorEnv([WalkEnv])
        with pytest.raises(ContractError, match="envs"):
            VariationWrapper(remote)
        remote.close()

    def test_it_is_a_vector_env_and_finds_spaces_below_wrappers(self):
        env = VariationWrapper(SyncWorld([lambda: gym.wrappers.TimeLimit(Varied(), 5)] * 2))
        observations, _ = env.reset(seed=[3, 4])
        assert observations.shape == (2, 1)
        assert env.variation_space["size"].shape == (2,)


class TestSyncWorld:
    def test_seeds_may_be_a_number_a_list_or_nothing(self):
        for seed, expected in ((5, [5, 6]), (np.int64(5), [5, 6]), ([7, None], [7, None]), (None, [None, None])):
            env = SyncWorld([Diary, Diary])
            env.reset(seed=seed)
            assert [sub.resets[0][0] for sub in env.envs] == expected
        assert SyncWorld([Diary, Diary]).reset(seed=(2, 9))[1]["seed"].tolist() == [2, 9]

    def test_every_env_gets_its_own_copy_of_its_options(self):
        env, shared = SyncWorld([Diary, Diary]), {"a": 1}
        env.reset(options=shared)
        env.reset(options=[shared, None])
        assert shared == {"a": 1}
        assert [options for _, options in env.envs[0].resets] == [{"a": 1}, {"a": 1}]
        assert [options for _, options in env.envs[1].resets] == [{"a": 1}, None]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"seed": [1]},
            {"seed": [1, -2]},
            {"seed": [1, 2.0]},
            {"seed": True},
            {"seed": -1},
            {"seed": "ab"},
            {"options": [{}]},
            {"options": [{}, 3]},
            {"options": "ab"},
            {"options": {"reset_mask": [1, 0]}},
            {"options": {"reset_mask": np.array([True, False])}},
        ],
    )
    def test_bad_seeds_and_options_are_refused_before_any_env_is_reset(self, arguments):
        env = SyncWorld([Diary, Diary])
        with pytest.raises(ContractError):
            env.reset(**arguments)
        assert env.envs[0].resets == []

    def test_an_ended_env_is_not_reset_on_its_own(self):
        env = SyncWorld([lambda: Diary(2), lambda: Diary(3)])
        with pytest.raises(RuntimeError, match="before the first reset"):
            env.step([0, 1])
        env.reset()
        observations, rewards, terminated, truncated, infos = env.step([0, 1])
        assert rewards.tolist() == [0, 1]
        assert infos["t"].tolist() == [1, 1]
        assert terminated.tolist() == truncated.tolist() == [False, False]
        observations, _, terminated, _, _ = env.step([0, 1])
        assert terminated.tolist() == [True, False]
        np.testing.assert_allclose(observations, np.full((2, 1), 2 / 9), rtol=1e-6)
        with pytest.raises(RuntimeError, match=r"\[0\] have ended"):
            env.step([0, 1])
        assert len(env.envs[0].resets) == 1

    def test_a_mask_resets_only_its_envs(self):
        env = SyncWorld([lambda: Diary(1), lambda: Diary(3)])
        env.reset(seed=0)
        env.step([0, 0])
        observations, _ = env.reset(seed=8, options={"reset_mask": np.array([True, False])})
        assert [len(sub.resets) for sub in env.envs] == [2, 1]
        np.testing.assert_allclose(observations.ravel(), [0, 1 / 9], rtol=1e-6)
        assert env.step([0, 0])[4]["t"].tolist() == [1, 2]

    def test_an_ended_env_outside_the_mask_stays_ended(self):
        env = SyncWorld([lambda: Diary(1), lambda: Diary(1)])
        env.reset()
        env.step([0, 0])
        env.reset(options={"reset_mask": np.array([True, False])})
        with pytest.raises(RuntimeError, match=r"\[1\] have ended"):
            env.step([0, 0])

    def test_returned_arrays_are_not_overwritten_by_the_next_step(self):
        env = SyncWorld([Diary])
        first, _ = env.reset()
        second = env.step([0])[0]
        assert first[0] == 0 != second[0]

    def test_an_empty_list_is_refused(self):
        with pytest.raises(ContractError, match="env_fns"):
            SyncWorld([])
