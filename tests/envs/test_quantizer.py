"""The polar quantizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stable_worldmodel.envs.quantizer import PolarQuantizer, Quantizable
from stable_worldmodel.errors import ContractError

DATA = Path(__file__).parents[1] / "data" / "quantizer"
CASES = json.loads((DATA / "quantizer.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_bins_and_actions_are_the_recorded_ones(case: dict) -> None:
    data = np.load(DATA / "quantizer.npz")
    values = {key: data[f"{case['name']}/{key}"] for key in ("continuous", "bins", "grid", "dequantized")}
    quantizer = PolarQuantizer(case["num_bins_radial"], case["num_bins_angular"], case["max_action_distance"])
    np.testing.assert_array_equal(quantizer.quantize(values["continuous"]), values["bins"])
    np.testing.assert_allclose(quantizer.dequantize(values["grid"]), values["dequantized"], atol=1e-6)


def test_types_and_single_actions() -> None:
    quantizer = PolarQuantizer(16, 16, 1.0)
    assert isinstance(quantizer, Quantizable)
    assert quantizer.action_shape == (16, 16)
    bins = quantizer.quantize(np.array([-0.3, 0.2]))
    assert (bins.tolist(), bins.dtype) == ([5, 6], np.int32)
    action = quantizer.dequantize(bins)
    assert action.dtype == np.float32
    assert action.tolist() == pytest.approx([-0.28582, 0.19098], abs=1e-5)


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.1, 10))
def test_the_middle_of_a_bin_lies_in_it(radial: int, angular: int, distance: float) -> None:
    quantizer = PolarQuantizer(radial, angular, distance)
    bins = np.stack(np.meshgrid(range(radial), range(angular), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(quantizer.quantize(quantizer.dequantize(bins)), bins)


@pytest.mark.parametrize("bins", [[16, 0], [0, 16], [-1, 0], [0.5, 0], [1], [np.nan, 0]])
def test_bins_that_do_not_exist_are_refused(bins) -> None:
    with pytest.raises(ContractError, match="bins"):
        PolarQuantizer(16, 16, 1.0).dequantize(np.array(bins))


@pytest.mark.parametrize("arguments", [(0, 4, 1.0), (4, 0, 1.0), (4, 4, 0.0)])
def test_impossible_sizes_are_refused(arguments) -> None:
    with pytest.raises(ContractError):
        PolarQuantizer(*arguments)
