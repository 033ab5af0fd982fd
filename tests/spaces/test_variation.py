"""The reset of a variation space, and the spaces in Gymnasium's own hands."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector.utils import batch_space
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_spaces import ROOM_NAMES, equal, room

from stable_worldmodel.errors import ContractError
from stable_worldmodel.spaces import Box, Dict, Discrete, RGBBox, reset_variation_space


def is_even(value) -> bool:
    return value % 2 == 0


class TestReset:
    def test_is_a_function_of_the_seed(self):
        space, used = room(), room()
        used.sample()
        for target in (space, used):
            reset_variation_space(target, np.int64(3), {"variation": ["agent", "door"]})
        assert equal(space.value, used.value)
        assert equal(space.value["wall"], room().value["wall"])

    def test_without_seed_continues_the_streams(self):
        space = room(seed=0)
        drawn = []
        for _ in range(4):
            reset_variation_space(space, options={"variation": ("agent.speed",)})
            drawn.append(float(space.value["agent"]["speed"][0]))
        assert len(set(drawn)) == 4

    @pytest.mark.parametrize(
        ("options", "resampled"),
        [(None, True), ({}, True), ({"variation": None}, True), ({"variation": []}, False), ({"state": [0]}, True)],
    )
    def test_default_variations_apply_when_none_are_named(self, options, resampled):
        space = room()
        reset_variation_space(space, 0, options, {"agent.speed"})
        assert equal(space.value["agent"]["speed"], np.float32([5])) != resampled

    def test_explicit_values_win_over_samples(self):
        space = room()
        reset_variation_space(space, 0, {"variation": ["all"], "variation_values": {"wall.color": [9, 8, 7]}})
        assert equal(space.value["wall"]["color"], np.array([9, 8, 7], np.uint8))

    @pytest.mark.parametrize(
        "options",
        [{"variation": "door"}, {"variation": ["dor"]}, {"variation_values": {"dor": 1}}, {"variation_values": [1]}],
    )
    def test_rejects_unknown_names_and_wrong_types(self, options):
        with pytest.raises(ValueError, match=r"'dor'|'door'|\[1\]"):
            reset_variation_space(room(), 0, options)

    def test_reports_defaults_that_have_become_illegal_and_leaves_them_to_be_repaired(self):
        axis = Discrete(2, init_value=1)
        position = Box(0, 9, (2,), init_value=[1, 5], constrain_fn=lambda p: abs(p[1 - axis.value] - 5) > 1)
        space = Dict({"axis": axis, "position": position})
        reset_variation_space(space, 0)
        with pytest.raises(ContractError, match="illegal values of position"):
            reset_variation_space(space, 0, {"variation_values": {"axis": 0}})
        space.update(space.violations())
        assert space.check()
        assert space.value["axis"] == 0
        for seed in range(30):
            reset_variation_space(space, seed, {"variation": ["all"], "variation_values": {"axis": 0}})
            assert space.value["axis"] == 0

    @settings(max_examples=30)
    @given(st.lists(st.tuples(st.integers(0, 99), st.lists(st.sampled_from(ROOM_NAMES), max_size=3)), max_size=5))
    def test_nothing_persists_from_one_episode_to_the_next(self, episodes):
        used = room()
        for seed, names in [*episodes, (7, ["door"])]:
            reset_variation_space(used, seed, {"variation": names})
        fresh = room()
        reset_variation_space(fresh, 7, {"variation": ["door"]})
        assert equal(used.value, fresh.value)


class SpaceEnv(gym.Env):
    """Observes a sample of its own variation space."""

    def __init__(self):
        self.variation_space = room()
        self.observation_space = room()
        self.action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        reset_variation_space(self.variation_space, seed, options, ["all"])
        return self.variation_space.value, {}

    def step(self, action):
        return self.variation_space.value, 0.0, False, False, {}


class TestGymnasium:
    @pytest.mark.filterwarnings("ignore")
    def test_env_checker_accepts_the_spaces(self):
        check_env(SpaceEnv(), skip_render_check=True)

    def test_vector_envs_batch_the_spaces(self):
        env = gym.vector.SyncVectorEnv([SpaceEnv, SpaceEnv])
        observation, _ = env.reset(seed=0)
        assert observation["agent"]["radius"].shape == (2, 1)
        assert observation in env.observation_space
        assert batch_space(room(), 3).spaces.keys() == {"wall", "agent", "door"}
        assert isinstance(batch_space(RGBBox(), 3), gym.spaces.Box)

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda space: pickle.loads(pickle.dumps(space))])
    def test_copies_continue_the_same_streams_on_their_own(self, duplicate):
        space = Dict({"room": room(), "n": Discrete(9, constrain_fn=is_even), "plain": gym.spaces.Discrete(99)}, seed=0)
        space.sample()
        twin = duplicate(space)
        assert equal(twin.value, space.value)
        assert twin.names() == space.names()
        assert equal(twin.sample(), space.sample())
        twin.set_value({"room.door": [0, 0], "plain": 98})
        space.set_value({"room.door": [1, 1], "plain": 97})
        assert twin.value["room"]["door"].tolist() == [0, 0]
        assert twin.value["plain"] == 98

    def test_flattening_and_comparison_work(self):
        space = room()
        assert space == room()
        assert (
            gym.spaces.flatten_space(space).shape == gym.spaces.flatten(space, space.value).shape == (2 + 3 + 2 + 42,)
        )


def test_import_is_light():
    code = "import sys, stable_worldmodel.spaces; print(*{'torch', 'scipy', 'h5py', 'PIL'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_nothing_is_logged_in_ordinary_use(caplog):
    with caplog.at_level(logging.INFO):
        reset_variation_space(room(sampling_order=["door", "wall", "agent"]), 0, {"variation": ["all"]})
    assert not caplog.records
