"""Scalers: formulas, libraries, widths, serialisation."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stable_worldmodel.data import (
    HDF5Writer,
    IdentityScaler,
    PercentileScaler,
    ZScoreScaler,
    column_normalizer,
    get_scaler,
    load_dataset,
    scaler_from_dict,
)
from stable_worldmodel.errors import ContractError

ROWS = np.random.default_rng(0).normal(3, 2, size=(200, 4)).astype(np.float32)
NAMES = ["zscore", "percentile", "none"]
columns = arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, width=32))


@settings(deadline=None)
@given(columns)
def test_zscore_follows_its_formula_and_inverts(rows):
    scaler = ZScoreScaler()
    y = scaler.fit_transform(rows)
    assert scaler.mean.shape == scaler.std.shape == (1, rows.shape[1])
    np.testing.assert_allclose(y, (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-8), atol=1e-9)
    np.testing.assert_allclose(scaler.inverse_transform(y), rows, atol=1e-6)


@settings(deadline=None)
@given(columns)
def test_percentile_maps_its_quantiles_to_the_unit_range_and_clips(rows):
    scaler = PercentileScaler(low=10, high=90)
    y = scaler.fit_transform(rows)
    assert -1 <= y.min() <= y.max() <= 1
    np.testing.assert_allclose(scaler.q_low[0], np.percentile(rows, 10, axis=0))
    inside = (rows >= scaler.q_low) & (rows <= scaler.q_high)
    np.testing.assert_allclose(scaler.inverse_transform(y)[inside], rows[inside], atol=1e-6)


def test_identity_returns_the_same_object():
    scaler = IdentityScaler().fit(ROWS)
    assert scaler.transform(ROWS) is scaler.inverse_transform(ROWS) is scaler(ROWS) is ROWS


@pytest.mark.parametrize("name", NAMES)
def test_tensor_in_tensor_out_with_the_values_of_numpy(name):
    scaler = get_scaler(name).fit(torch.from_numpy(ROWS))
    for method in (scaler.transform, scaler.inverse_transform):
        found, expected = method(torch.from_numpy(ROWS)), method(ROWS)
        assert (found.dtype, expected.dtype) == (torch.float32, np.float32)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert scaler.transform(torch.from_numpy(ROWS).double()).dtype == torch.float64


def test_call_returns_float32_tensors_and_accepts_integers():
    scaler = get_scaler("zscore").fit(np.arange(10))
    assert scaler(torch.arange(10)).dtype == scaler(torch.arange(10.0).double()).dtype == torch.float32
    assert scaler.transform(np.arange(10)).dtype == np.float32


def test_rows_with_nan_are_left_out_of_the_fit():
    with_nan = np.concatenate([ROWS, np.full((3, 4), np.nan)])
    assert ZScoreScaler().fit(with_nan).to_dict() == ZScoreScaler().fit(ROWS).to_dict()
    with pytest.raises(ContractError, match="no row without NaN"):
        ZScoreScaler().fit(with_nan[-3:])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(columns, st.lists(st.integers(0, 20), max_size=4))
def test_a_fit_in_blocks_is_the_fit_of_all_rows(name, rows, cuts):
    rows = np.concatenate([rows, np.full((1, rows.shape[1]), np.nan)])
    blocks = np.split(rows, sorted(min(cut, len(rows)) for cut in cuts))  # some may be empty or hold only NaN
    whole, streamed = get_scaler(name).fit(rows), get_scaler(name).fit_blocks(iter(blocks))
    for stat in whole.stats:
        np.testing.assert_allclose(getattr(streamed, stat), getattr(whole, stat), rtol=1e-9, atol=1e-9)


def test_images_and_text_are_not_scaled(tmp_path):
    with HDF5Writer(tmp_path / "set.h5") as writer:
        writer.write_episode({"pixels": np.zeros((4, 8, 8, 3), np.uint8), "policy": ["x"] * 4})
    ds = load_dataset(tmp_path / "set.h5")
    for column, kind in (("pixels", "image"), ("policy", "text")):
        with pytest.raises(ContractError, match=f"holds {kind}: expected numbers"):
            column_normalizer(ds, column, column)
    assert column_normalizer(ds, "ep_idx", "ep_idx").scaler.mean.shape == (1, 1)
    with pytest.raises(KeyError, match="no column 'nothing'"):
        column_normalizer(ds, "nothing", "nothing")


def test_macro_actions_are_scaled_block_by_block():
    scaler = ZScoreScaler().fit(ROWS)
    windows = ROWS.reshape(10, 5, 16)  # (B, T, K*A) with K = 4
    np.testing.assert_array_equal(scaler.transform(windows).reshape(200, 4), scaler.transform(ROWS))
    np.testing.assert_array_equal(scaler.inverse_transform(windows).reshape(200, 4), scaler.inverse_transform(ROWS))
    with pytest.raises(ContractError, match="multiple of the fitted width 4"):
        scaler.transform(np.zeros((2, 6)))


def test_scalar_columns_keep_their_shape():
    scaler = ZScoreScaler().fit(ROWS[:, 0])
    assert scaler.transform(ROWS[:, 0]).shape == (200,)
    assert scaler.transform(ROWS[:, :1]).shape == (200, 1)


@pytest.mark.parametrize("name", NAMES)
def test_scaler_survives_json_and_pickle(name):
    scaler = get_scaler(name).fit(ROWS)
    for copied in (scaler_from_dict(json.loads(json.dumps(scaler.to_dict()))), pickle.loads(pickle.dumps(scaler))):
        assert type(copied) is type(scaler)
        np.testing.assert_array_equal(copied.transform(ROWS), scaler.transform(ROWS))


def test_wrong_use_is_explained():
    with pytest.raises(ContractError, match=r"unknown scaler 'minmax': expected one of \['none'"):
        get_scaler("minmax")
    with pytest.raises(ContractError, match="not fitted"):
        ZScoreScaler().transform(ROWS)
    with pytest.raises(ContractError, match="0 <= low < high <= 100"):
        PercentileScaler(low=99, high=1)


def test_column_normalizer_is_fitted_on_the_column_and_works_on_windows(tmp_path):
    action = ROWS[:20].copy()
    action[-1] = np.nan
    with HDF5Writer(tmp_path / "set.h5") as writer:
        writer.write_episode({"action": action})
    normalize = column_normalizer(load_dataset(tmp_path / "set.h5"), "action", "scaled")
    ds = load_dataset(tmp_path / "set.h5", num_steps=2, frameskip=2, transform=normalize, batch_transform=normalize)
    expected = ZScoreScaler().fit(action).transform(action[:4]).reshape(2, 8)
    np.testing.assert_allclose(ds[0]["scaled"], expected, rtol=1e-6)
    np.testing.assert_allclose(ds.get_batch([0])["scaled"][0], expected, rtol=1e-6)
    np.testing.assert_array_equal(ds[0]["action"], action[:4].reshape(2, 8))
