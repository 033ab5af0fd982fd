import numpy as np
import pytest
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy.prepare import prepare_info


class Halve:
    def transform(self, x):
        self.seen = x.shape
        return x / 2

    def inverse_transform(self, x):
        return x * 2


def frames(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("key", ["pixels", "pixels.front", "goal", "goal_pixels.front"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_become_channel_first(key, channels):
    image = frames(2, 1, 8, 6, channels)
    prepared = prepare_info({key: image}, {}, {})[key]
    assert prepared.shape == (2, 1, channels, 8, 6)
    assert prepared.dtype == torch.uint8
    np.testing.assert_array_equal(prepared.numpy(), np.moveaxis(image, -1, -3))


def test_other_values_keep_their_layout():
    info = {
        "pixels": torch.zeros(2, 1, 3, 8, 8),  # already a model input
        "goal_state": np.zeros((2, 1, 3), np.uint8),
        "depth": frames(2, 1, 8, 8, 3),
        "label": ["a", "b"],
    }
    prepared = prepare_info(info, {}, {})
    assert prepared["pixels"] is info["pixels"]
    assert prepared["goal_state"].shape == (2, 1, 3)
    assert prepared["depth"].shape == (2, 1, 8, 8, 3)
    assert prepared["label"] == ["a", "b"]
    assert isinstance(info["depth"], np.ndarray)


def test_columns_are_scaled_as_rows_and_goals_share_the_scaler():
    scaler = Halve()
    info = {"state": np.full((2, 1, 3), 4.0), "goal_state": np.full((2, 1, 3), 6.0)}
    prepared = prepare_info(info, {"state": scaler}, {})
    assert scaler.seen == (2, 3)
    assert (prepared["state"] == 2).all()
    assert (prepared["goal_state"] == 3).all()
    assert (info["state"] == 4).all()


def test_transforms_see_one_channel_first_item_at_a_time():
    seen = []

    def shrink(item):
        seen.append(tuple(item.shape))
        return item[:, ::2, ::2].float()

    prepared = prepare_info({"pixels": frames(2, 3, 8, 8, 3)}, {}, {"pixels": shrink})
    assert seen == [(3, 8, 8)] * 6
    assert prepared["pixels"].shape == (2, 3, 3, 4, 4)


def test_wrong_types_are_refused():
    with pytest.raises(ContractError, match="NumPy array"):
        prepare_info({"state": ["a"]}, {"state": Halve()}, {})
    with pytest.raises(ContractError, match="tensor"):
        prepare_info({"pixels": ["a"]}, {}, {"pixels": torch.neg})
