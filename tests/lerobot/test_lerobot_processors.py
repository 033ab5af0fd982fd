"""LeRobot's processor pipelines: files, overrides, and the arithmetic of every mode."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError
from stable_worldmodel.lerobot import NormalizationMode, load_pipeline, load_processors, normalize

STATS = {
    "mean": [1.0, -2.0], "std": [0.5, 3.0], "min": [-1.0, 0.0], "max": [4.0, 0.0],
    "q01": [-0.5, 0.0], "q99": [3.0, 1.0], "q10": [0.0, 0.2], "q90": [2.0, 0.4],
}  # fmt: skip


def reference(x: np.ndarray, mode: str) -> np.ndarray:
    s = {name: np.array(value) for name, value in STATS.items()}
    if mode == "IDENTITY":
        return x
    if mode == "MEAN_STD":
        return (x - s["mean"]) / (s["std"] + 1e-8)
    low, high = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}[mode]
    extent = np.where(s[high] == s[low], 1e-8, s[high] - s[low])
    return 2 * (x - s[low]) / extent - 1


@pytest.mark.parametrize("mode", list(NormalizationMode))
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=2))
@settings(max_examples=20, deadline=None)
def test_every_mode_is_numpys_arithmetic_and_its_own_inverse(mode: NormalizationMode, values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    scaled = normalize(x, {name: torch.tensor(v, dtype=torch.float64) for name, v in STATS.items()}, mode)
    np.testing.assert_allclose(scaled.numpy(), reference(np.array(values), mode.value), rtol=1e-9, atol=1e-9)
    back = normalize(scaled, STATS, mode, inverse=True)
    np.testing.assert_allclose(back.numpy(), values, rtol=1e-6, atol=1e-6)


def test_missing_statistic_is_an_error_and_missing_statistics_are_not() -> None:
    x = torch.ones(2)
    assert normalize(x, {}, NormalizationMode.MEAN_STD) is x
    with pytest.raises(ValueError, match=r"MIN_MAX needs.*'min', 'max'.*'mean'"):
        normalize(x, {"mean": [0.0, 0.0]}, NormalizationMode.MIN_MAX)


FEATURES = {"observation.state": {"type": "STATE", "shape": [2]}, "action": {"type": "ACTION", "shape": [2]}}
MAP = {"STATE": "MEAN_STD", "ACTION": "MIN_MAX"}


def write(folder, extra=()) -> None:
    tensors = {f"{key}.{stat}": torch.tensor(value) for key in FEATURES for stat, value in STATS.items()}
    save_file(tensors, folder / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    save_file(tensors, folder / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    config = {"features": FEATURES, "norm_map": MAP, "eps": 1e-8}
    pre = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
        {
            "registry_name": "normalizer_processor",
            "config": config,
            "state_file": "policy_preprocessor_step_3_normalizer_processor.safetensors",
        },
        *extra,
    ]
    post = [
        {
            "registry_name": "unnormalizer_processor",
            "config": config,
            "state_file": "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        }
    ]
    for name, steps in {"policy_preprocessor": pre, "policy_postprocessor": post}.items():
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "steps": steps}))


def test_files_give_the_pipelines(tmp_path) -> None:
    write(tmp_path)
    pre, post = load_processors(tmp_path, rename_observations_processor={"rename_map": {"s": "observation.state"}})
    batch = pre({"s": torch.tensor([1.5, 1.0]), "task": "go", "observation.image": torch.zeros(3, 4, 4)})
    np.testing.assert_allclose(batch["observation.state"].numpy(), [[1.0, 1.0]], rtol=1e-6)
    assert batch["task"] == ["go"]
    assert batch["observation.image"].shape == (1, 3, 4, 4)
    np.testing.assert_allclose(post(torch.tensor([[-1.0, -1.0]])).numpy(), [[-1.0, 0.0]], atol=1e-6)


def test_explicit_statistics_win_over_the_file(tmp_path) -> None:
    write(tmp_path)
    stats = {"observation.state": {"mean": torch.zeros(2), "std": torch.ones(2)}}
    pre = load_pipeline(tmp_path / "policy_preprocessor.json", {"normalizer_processor": {"stats": stats}})
    np.testing.assert_allclose(pre({"observation.state": torch.ones(1, 2)})["observation.state"].numpy(), [[1.0, 1.0]])


def test_faulty_files_and_overrides_are_named(tmp_path) -> None:
    with pytest.raises(NotFoundError, match="migration script"):
        load_processors(tmp_path)
    write(tmp_path)
    with pytest.raises(MissingKeyError, match="tokenizer"):
        load_pipeline(tmp_path / "policy_preprocessor.json", {"tokenizer": {}})
    (tmp_path / "policy_preprocessor_step_3_normalizer_processor.safetensors").unlink()
    with pytest.raises(NotFoundError, match="statistics of a normaliser"):
        load_pipeline(tmp_path / "policy_preprocessor.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ContractError, match="no processor pipeline"):
        load_pipeline(tmp_path / "x.json")


@pytest.mark.parametrize("step", [{"class": "os.system"}, {"registry_name": "tokenizer_processor"}])
def test_steps_of_other_code_are_not_run(tmp_path, step: dict) -> None:
    write(tmp_path, [step])
    with pytest.raises(ContractError, match="run it with the package lerobot"):
        load_pipeline(tmp_path / "policy_preprocessor.json")


def test_statistics_outside_the_folder_are_not_read(tmp_path) -> None:
    (tmp_path / "p").mkdir()
    write(tmp_path / "p")
    file = tmp_path / "p" / "policy_postprocessor.json"
    document = json.loads(file.read_text())
    (tmp_path / "s.safetensors").write_bytes((tmp_path / "p" / document["steps"][0]["state_file"]).read_bytes())
    document["steps"][0]["state_file"] = "../s.safetensors"
    file.write_text(json.dumps(document))
    with pytest.raises(ContractError, match="expected a file beside it"):
        load_pipeline(file)
