"""Observations and features under LeRobot's names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_worldmodel.errors import ContractError, MissingKeyError
from stable_worldmodel.lerobot import (
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_IMAGES,
    OBS_STATE,
    FeatureType,
    PolicyFeature,
    convert_nested_dict,
    env_to_policy_features,
    get_channel_first_image_shape,
    make_env_config,
    preprocess_observation,
)


def test_image_becomes_channel_first_float_with_a_batch_axis() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    tensor = preprocess_observation({"pixels": image})[OBS_IMAGE]
    assert tensor.shape == (1, 3, 4, 5)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor[0].permute(1, 2, 0).numpy(), image.astype(np.float32) / 255)


def test_cameras_become_one_feature_each() -> None:
    frames = {name: np.full((2, 4, 5, 3), shade, np.uint8) for name, shade in {"top": 0, "side": 255}.items()}
    found = preprocess_observation({"pixels": frames})
    assert {name: value.mean().item() for name, value in found.items()} == {
        f"{OBS_IMAGES}.top": 0.0,
        f"{OBS_IMAGES}.side": 1.0,
    }


@given(st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_vectors_are_float32_with_a_batch_axis(batch: int, size: int) -> None:
    values = np.arange(batch * size, dtype=np.float64).reshape(batch, size)
    found = preprocess_observation({"agent_pos": values, "environment_state": values[0]})
    assert found[OBS_STATE].shape == (batch, size)
    assert found[OBS_ENV_STATE].shape == (1, size)
    assert {value.dtype for value in found.values()} == {torch.float32}
    np.testing.assert_array_equal(found[OBS_STATE].numpy(), values)


def test_no_memory_is_shared_and_the_input_stays() -> None:
    given_ = {
        "agent_pos": np.zeros((1, 2), np.float32),
        "pixels": np.zeros((1, 4, 4, 3), np.uint8),
        "robot_state": {"joints": np.zeros(3)},
    }
    found = preprocess_observation(given_)
    found[OBS_STATE] += 1
    found[OBS_IMAGE] += 1
    found["observation.robot_state"]["joints"] += 1
    assert given_["agent_pos"].sum() == 0
    assert given_["pixels"].sum() == 0
    assert given_["robot_state"]["joints"].sum() == 0
    assert set(given_) == {"agent_pos", "pixels", "robot_state"}


def test_robot_state_keeps_dtype_and_structure() -> None:
    found = convert_nested_dict({"arm": {"q": np.arange(2)}, "name": "left", "flag": None})
    assert found["arm"]["q"].dtype == torch.int64
    assert found["name"] == "left"
    assert found["flag"] is None


def test_policy_and_camera_obs_pass_and_the_rest_is_dropped_unless_asked_for() -> None:
    given_ = {"policy": [1], "camera_obs": "x", "extra": np.ones(2), "text": "t"}
    assert preprocess_observation(given_) == {"observation.policy": [1], "observation.camera_obs": "x"}
    assert preprocess_observation(given_, passthrough=True)["observation.extra"].shape == (1, 2)


@pytest.mark.parametrize("image", [np.zeros((3, 4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8)])
def test_images_of_another_layout_or_dtype_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"pixels.*(found|uint8)"):
        preprocess_observation({"pixels": image})


@pytest.mark.parametrize(("shape", "expected"), [((4, 5, 3), (3, 4, 5)), ((3, 4, 5), (3, 4, 5))])
def test_channel_first_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert get_channel_first_image_shape(shape) == expected


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 4), (5, 3, 3), (3, 5, 3)])
def test_ambiguous_image_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        get_channel_first_image_shape(shape)


class _Config:
    def __init__(self, features, features_map):
        self.features, self.features_map = features, features_map


def test_features_of_an_env_under_the_policy_names() -> None:
    image = PolicyFeature(FeatureType.VISUAL, (4, 5, 3))
    state = PolicyFeature(FeatureType.STATE, (2,))
    found = env_to_policy_features(_Config({"pixels": image, "s": state}, {"pixels": "a", "s": "b"}))
    assert found == {"a": PolicyFeature(FeatureType.VISUAL, (3, 4, 5)), "b": state}


def test_features_without_a_name_or_third_axis_are_refused() -> None:
    flat = PolicyFeature(FeatureType.VISUAL, (4, 5))
    with pytest.raises(MissingKeyError, match="pixels"):
        env_to_policy_features(_Config({"pixels": flat}, {}))
    with pytest.raises(ValueError, match=r"pixels.*\(4, 5\)"):
        env_to_policy_features(_Config({"pixels": flat}, {"pixels": "a"}))


def test_features_of_pusht_are_those_lerobot_policies_expect() -> None:
    assert env_to_policy_features(make_env_config("pusht")) == {
        "action": PolicyFeature(FeatureType.ACTION, (2,)),
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 384, 384)),
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    }
