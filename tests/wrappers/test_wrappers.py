"""Each wrapper does its one thing to info, and leaves the env's own info alone."""

import gymnasium as gym
import numpy as np
import pytest
from toy_envs import CoinEnv, WalkEnv

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wrappers import (
    AddPixelsWrapper,
    EnsureGoalInfoWrapper,
    EnsureImageShape,
    EnsureInfoKeysWrapper,
    EverythingToInfoWrapper,
    MapKeysWrapper,
    MegaWrapper,
    ResizeGoalWrapper,
    StackedWrapper,
)


class Scene(gym.Env):
    """Gives whatever info and frames a test hands it; the same dict object every time."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, info=None, frame=None, render_mode="rgb_array"):
        self.info = info or {}
        self.frame = frame
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), self.info

    def step(self, action):
        return np.ones(2, np.float32), 1.0, False, False, self.info

    def render(self):
        return self.frame


def test_pixels_are_drawn_at_the_size_asked_for_when_the_env_can():
    env = AddPixelsWrapper(WalkEnv("rgb_array"), (20, 30))
    _, info = env.reset(seed=0)
    assert env.unwrapped.render_shape == (20, 30)
    assert info["pixels"].shape == (20, 30, 3)
    assert info["pixels"].dtype == np.uint8
    assert info["render_time"] >= 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_of_another_size_are_resized_and_given_the_channels_asked_for(channels):
    frame = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    _, info = AddPixelsWrapper(Scene(frame=frame), (10, 12, channels)).reset()
    assert info["pixels"].shape == (10, 12, channels)


def test_several_views_get_one_key_each():
    env = Scene()
    env.render_multiview = lambda: {"top": np.zeros((4, 4, 3), np.uint8), "side": np.ones((4, 4, 3), np.uint8)}
    _, info = AddPixelsWrapper(env, (4, 4)).reset()
    assert info["pixels.top"].max() == 0
    assert info["pixels.side"].max() == 1
    env = Scene(frame=[np.zeros((4, 4, 3), np.uint8)] * 2)
    assert {"pixels.0", "pixels.1"} <= AddPixelsWrapper(env, (4, 4)).reset()[1].keys()


def test_an_env_that_renders_nothing_is_an_error_that_names_the_render_mode():
    with pytest.raises(RuntimeError, match="render_mode=None"):
        AddPixelsWrapper(Scene(render_mode=None), (4, 4)).reset()


def test_a_transform_sees_the_pil_image_after_resizing():
    env = AddPixelsWrapper(Scene(frame=np.zeros((8, 8, 3), np.uint8)), (4, 6), lambda image: np.full(image.size, 7))
    assert env.reset()[1]["pixels"].shape == (6, 4, 1)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4, 4, 2), (4.5, 4)])
def test_bad_image_shapes_are_refused(shape):
    with pytest.raises(ContractError):
        AddPixelsWrapper(Scene(), shape)


def test_unknown_resampling_filters_are_refused():
    with pytest.raises(ValueError, match="bilinear"):
        AddPixelsWrapper(Scene(), (4, 4), None, "sharp")


def test_everything_reaches_info_and_fillers_mark_what_did_not_happen():
    env = EverythingToInfoWrapper(WalkEnv("rgb_array"))
    _, info = env.reset(seed=3)
    assert np.isnan(info["action"]).all()
    assert info["action"].shape == (1,)
    assert np.isnan(info["reward"])
    assert (info["terminated"], info["truncated"], info["step_idx"]) == (False, False, 0)
    action = np.array([0.5], np.float32)
    _, _, _, _, info = env.step(action)
    action[:] = 9  # a caller may reuse its buffer
    assert info["action"] == np.float32(0.5)
    assert info["step_idx"] == 1


def test_integer_actions_use_the_int64_minimum_as_filler():
    _, info = EverythingToInfoWrapper(CoinEnv()).reset(seed=0)
    assert info["action"] == np.iinfo(np.int64).min
    assert info["action"].dtype == np.int64


def test_the_episode_id_is_a_function_of_the_seed():
    ids = [EverythingToInfoWrapper(CoinEnv()).reset(seed=s)[1]["id"] for s in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    assert min(ids) >= 0


def test_a_key_that_env_and_wrapper_both_set_is_an_error():
    with pytest.raises(ContractError, match="reward"):
        EverythingToInfoWrapper(Scene({"reward": 1})).reset()
    with pytest.raises(ContractError, match="observation"):
        EverythingToInfoWrapper(Scene({"observation": 1})).reset()


def test_required_keys_are_regular_expressions():
    EnsureInfoKeysWrapper(Scene({"pixels.top": 1}), [r"pixels(\..*)?"]).reset()
    with pytest.raises(RuntimeError, match="proprio"):
        EnsureInfoKeysWrapper(Scene({"pixels": 1}), ["proprio"]).reset()


def test_a_missing_goal_is_an_error_where_it_is_checked():
    EnsureGoalInfoWrapper(Scene(), check_reset=False).reset()
    with pytest.raises(RuntimeError, match="goal"):
        EnsureGoalInfoWrapper(Scene(), check_reset=True).reset()
    with pytest.raises(RuntimeError, match="goal"):
        EnsureGoalInfoWrapper(Scene(), check_reset=False, check_step=True).step(None)


def test_image_shape_is_checked():
    frame = np.zeros((4, 6, 3), np.uint8)
    EnsureImageShape(Scene({"pixels": frame}), "pixels", (4, 6)).reset()
    with pytest.raises(RuntimeError, match="expected height and width"):
        EnsureImageShape(Scene({"pixels": frame}), "pixels", (6, 4)).reset()
    with pytest.raises(RuntimeError, match="no image"):
        EnsureImageShape(Scene(), "pixels", (6, 4)).reset()


def test_image_goals_are_resized_and_vector_goals_are_not():
    _, info = ResizeGoalWrapper(Scene({"goal": np.zeros((9, 9, 3), np.uint8)}), (4, 4)).reset()
    assert info["goal"].shape == (4, 4, 3)
    _, info = ResizeGoalWrapper(Scene({"goal": np.zeros(9)}), (4, 4)).reset()
    assert info["goal"].shape == (9,)


def test_keys_are_renamed():
    _, info = MapKeysWrapper(Scene({"a": 1, "b": 2}), {"a": "c"}).reset()
    assert info == {"c": 1, "b": 2}
    with pytest.raises(KeyError):
        MapKeysWrapper(Scene({"b": 2}), {"a": "c"}).reset()
    with pytest.raises(ContractError):
        MapKeysWrapper(Scene({"a": 1, "b": 2}), {"a": "b"}).reset()


def test_history_holds_every_frameskip_th_value_newest_last():
    env = StackedWrapper(EverythingToInfoWrapper(WalkEnv("rgb_array", max_length=50)), None, 3, frameskip=2)
    _, info = env.reset(seed=0)
    assert info["step_idx"].tolist() == [0, 0, 0]
    for _ in range(5):
        info = env.step(np.zeros(1, np.float32))[4]
    assert info["step_idx"].tolist() == [1, 3, 5]
    assert info["state"].shape == (3, 1)
    assert len(info["label"]) == 3


def test_mega_wrapper_leaves_the_callers_list_and_the_envs_info_alone():
    own, required = {"goal": np.zeros((9, 9, 3), np.uint8)}, ["goal"]
    env = MegaWrapper(Scene(own, np.zeros((9, 9, 3), np.uint8)), (4, 4), required_keys=required)
    _, info = env.reset()
    assert info["pixels"].shape == info["goal"].shape == (4, 4, 3)
    assert list(own) == ["goal"]
    assert required == ["goal"]


def test_a_goal_that_disappears_is_an_error_but_an_env_without_goals_is_not():
    env = Scene({"goal": np.zeros((4, 4, 3), np.uint8)}, np.zeros((4, 4, 3), np.uint8))
    wrapped = MegaWrapper(env, (4, 4))
    wrapped.reset()
    env.info = {}
    with pytest.raises(RuntimeError, match="goal"):
        wrapped.reset()
    MegaWrapper(env, (4, 4)).reset()
