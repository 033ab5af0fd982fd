"""Features on disk equal those computed, and an interrupted computation goes on."""

import numpy as np
import pytest
import torch

from stable_worldmodel.errors import ContractError
from stable_worldmodel.wm.backbones import create_backbone
from stable_worldmodel.wm.features import backbone_fingerprint, open_features, write_features

OPTIONS = {"patch_size": 8, "width": 8, "depth": 1, "heads": 2, "mlp_width": 16}
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 3, 16, 16), dtype=np.uint8)


def backbone(seed=0):
    torch.manual_seed(seed)
    return create_backbone("vit", image_size=16, pretrained=False, options=OPTIONS)


def read(start, stop):
    return PIXELS[start:stop]


def test_features_are_those_of_the_backbone(tmp_path):
    features = write_features(tmp_path, backbone(), read, 10, block=4)
    expected = backbone()(torch.from_numpy(PIXELS)[None])[0].numpy()
    assert (features.shape, features.dtype) == ((10, 4, 8), np.float16)
    np.testing.assert_allclose(features, expected, atol=2e-3, rtol=1e-2)
    np.testing.assert_array_equal(open_features(tmp_path), features)


def test_an_interrupted_computation_continues_after_its_last_block(tmp_path):
    asked = []

    def failing(start, stop):
        asked.append((start, stop))
        if start >= 8:
            raise KeyboardInterrupt
        return PIXELS[start:stop]

    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path, backbone(), failing, 10, block=4)
    with pytest.raises(ContractError, match="no finished features"):
        open_features(tmp_path)
    asked.clear()
    whole = write_features(tmp_path, backbone(), lambda a, b: asked.append((a, b)) or PIXELS[a:b], 10, block=4)
    assert asked == [(8, 10)]
    np.testing.assert_allclose(whole, write_features(tmp_path / "other", backbone(), read, 10), atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(("values", "named"), [({"seed": 1}, "backbone"), ({"source": "other"}, "source")])
def test_features_of_something_else_are_refused(tmp_path, values, named):
    write_features(tmp_path, backbone(), read, 10, source="this")
    seed, source = values.get("seed", 0), values.get("source", "this")
    with pytest.raises(ContractError, match=f"other {named}"):
        write_features(tmp_path, backbone(seed), read, 10, source=source)


def test_fingerprints_tell_backbones_apart():
    assert backbone_fingerprint(backbone()) == backbone_fingerprint(backbone())
    assert backbone_fingerprint(backbone()) != backbone_fingerprint(backbone(1))


def test_nothing_there_is_named(tmp_path):
    with pytest.raises(ContractError, match="write_features"):
        open_features(tmp_path)
