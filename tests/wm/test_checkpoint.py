"""Checkpoints return what was saved, and anything else is refused with a reason."""

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stable_worldmodel.data.normalization import get_scaler
from stable_worldmodel.errors import ContractError, NotFoundError
from stable_worldmodel.wm import LeWM, LeWMConfig, load_checkpoint, load_pretrained, save_pretrained

CONFIG = LeWMConfig.preset("tiny", image_size=32, action_dim=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LeWM(CONFIG)


@pytest.fixture
def folder(model, tmp_path):
    return save_pretrained(model, tmp_path / "checkpoint")


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_loaded_model_has_the_saved_weights_and_config(model, folder):
    loaded = load_pretrained(folder)
    assert loaded.config == CONFIG
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_loaded_model_is_in_eval_mode(folder):
    assert not load_pretrained(folder).training


def test_saving_keeps_the_mode_of_the_model(model, tmp_path):
    save_pretrained(model, tmp_path)
    assert model.training


def test_loaded_model_predicts_what_the_saved_one_does(model, folder):
    info = {"pixels": torch.randint(0, 256, (1, 1, 3, 32, 32), dtype=torch.uint8)}
    candidates = torch.randn(1, 2, 3, 4)
    expected = model.eval().rollout(info, candidates)["predicted_emb"]
    assert torch.equal(load_pretrained(str(folder)).rollout(info, candidates)["predicted_emb"], expected)


def test_scalers_and_extra_values_come_back(model, tmp_path):
    scaler = get_scaler("zscore").fit(np.random.default_rng(0).normal(size=(20, 2)))
    save_pretrained(model, tmp_path, scalers={"action": scaler}, extra={"frameskip": 5})
    loaded = load_checkpoint(tmp_path)
    assert loaded.extra == {"frameskip": 5}
    assert loaded.scalers["action"].to_dict() == scaler.to_dict()


def test_a_checkpoint_can_be_replaced(folder):
    other = LeWM(dataclasses.replace(CONFIG, latent_dim=5))
    save_pretrained(other, folder)
    assert load_pretrained(folder).config.latent_dim == 5
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "weights.safetensors"]


def test_values_that_are_not_json_fail_before_anything_is_replaced(model, folder):
    before = (folder / "weights.safetensors").read_bytes()
    with pytest.raises(TypeError):
        save_pretrained(LeWM(CONFIG), folder, extra={"array": np.zeros(2)})
    assert (folder / "weights.safetensors").read_bytes() == before


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"no checkpoint folder .*nowhere"):
        load_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(NotFoundError, match=f"has no {name}"):
        load_pretrained(folder)


def test_pickle_is_refused_with_the_remedy(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(ContractError, match=r"weights_only=True.*save_pretrained"):
        load_pretrained(tmp_path / "weights.pt")


def test_pickle_in_a_folder_is_refused(folder):
    (folder / "weights.safetensors").unlink()
    torch.save({}, folder / "weights.pt")
    with pytest.raises(NotFoundError, match=r"weights\.pt is a PyTorch pickle, which is never loaded"):
        load_pretrained(folder)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickle_under_a_safe_name_is_not_executed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), folder / "weights.safetensors")
    with pytest.raises(ContractError, match="hash differs"):
        load_pretrained(folder)
    assert not (tmp_path / "exploded").exists()


def test_damaged_weights_are_found(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContractError, match="hash differs"):
        load_pretrained(folder)


@pytest.mark.parametrize("text", ["not json", "[]", '{"architectures": ["ViT"]}'])
def test_foreign_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ContractError, match=r"config\.json is not"):
        load_pretrained(folder)


def test_unregistered_model_is_refused(folder):
    edit_config(folder, type="os.system")
    with pytest.raises(ContractError, match=r"unknown model 'os\.system': expected one of \['lewm'\]"):
        load_pretrained(folder)


def test_unknown_config_field_is_refused(folder):
    edit_config(folder, config={"colour": "red"})
    with pytest.raises(ContractError, match="colour"):
        load_pretrained(folder)


def test_weights_of_another_shape_are_named(folder):
    edit_config(folder, config={**dataclasses.asdict(CONFIG), "latent_dim": 5})
    with pytest.raises(ContractError, match=r"lift\.weight: expected \(64, 5\), found \(64, \d+\)"):
        load_pretrained(folder)


def test_missing_tensors_are_named(model, folder, tmp_path):
    tensors = model.state_dict()
    del tensors["encoder.cls"]
    save_file(tensors, folder / "weights.safetensors")
    edit_config(folder, weights_sha256=hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest())
    with pytest.raises(ContractError, match=r"encoder\.cls: expected \(1, 1, 64\), found None"):
        load_pretrained(folder)
