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
from stable_worldmodel.wm import (
    LeWM,
    LeWMConfig,
    attach_probe,
    fit_probe,
    get_probe,
    load_checkpoint,
    load_pretrained,
    save_pretrained,
)

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
    torch.save({}, folder / "model.pt")
    with pytest.raises(NotFoundError, match=r"model\.pt is a PyTorch pickle, which is never loaded"):
        load_pretrained(folder)


def test_run_names_and_run_folders_lead_to_the_checkpoint(model, tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path))
    save_pretrained(model, tmp_path / "checkpoints" / "mine")
    save_pretrained(model, tmp_path / "checkpoints" / "run" / "checkpoint")
    for name in ("mine", "run"):
        assert load_pretrained(name).config == CONFIG
    with pytest.raises(NotFoundError, match=r"looked for:\n.*nothing"):
        load_pretrained("nothing")


def test_split_protocol_and_code_come_back(model, tmp_path):
    protocol = {"goal_offset": 25, "budget": 50}
    save_pretrained(model, tmp_path, split={"train": np.arange(3), "val": [4]}, protocol=protocol)
    loaded = load_checkpoint(tmp_path)
    assert loaded.split == {"train": [0, 1, 2], "val": [4]}
    assert loaded.protocol == protocol
    assert loaded.code["versions"]["torch"] == torch.__version__


def test_checkpoints_of_earlier_versions_have_no_split(folder):
    path = folder / "config.json"
    config = {
        key: value for key, value in json.loads(path.read_text()).items() if key not in ("split", "protocol", "code")
    }
    path.write_text(json.dumps(config))
    loaded = load_checkpoint(folder)
    assert (loaded.split, loaded.protocol, loaded.code) == ({}, {}, {})


def test_single_config_values_can_be_replaced(folder):
    assert load_pretrained(folder, extra_args={"dropout": 0.5}).config.dropout == 0.5
    with pytest.raises(ContractError, match="colour"):
        load_pretrained(folder, extra_args={"colour": 1})
    with pytest.raises(ContractError, match="tensors differ"):
        load_pretrained(folder, extra_args={"latent_dim": 5})


def test_attached_probes_come_back_with_the_model(model, tmp_path):
    attach_probe(model, "position", fit_probe(torch.randn(20, 16), torch.randn(20, 2), hidden=4, steps=2))
    attach_probe(model, "other", torch.nn.Linear(16, 1))
    loaded = load_pretrained(save_pretrained(model, tmp_path))
    emb = torch.randn(3, 16)
    torch.testing.assert_close(get_probe(loaded, "position")(emb), get_probe(model, "position")(emb))
    assert get_probe(loaded, "other") is None


def test_folders_that_are_no_checkpoints_do_not_hide_a_run(model, tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    save_pretrained(model, tmp_path / "home" / "checkpoints" / "mine")
    assert load_pretrained("mine").config == CONFIG


def test_pickled_modules_are_loaded_only_when_trusted(model, tmp_path):
    path = tmp_path / "old_object.ckpt"
    torch.save(model, path)
    with pytest.raises(ContractError, match=r"trust_pickle=True.*save_pretrained"):
        load_pretrained(path)
    assert type(load_pretrained(path, trust_pickle=True)) is LeWM


def test_a_bomb_among_published_weights_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), tmp_path / "weights.pt")
    with pytest.raises(ContractError, match="holds more than tensors"):
        load_pretrained(tmp_path / "weights.pt")
    assert not (tmp_path / "exploded").exists()


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
    with pytest.raises(ContractError, match=r"unknown model 'os\.system': expected one of .*'lewm'"):
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
