"""Directory datasets written by the public implementation read as their own readers read them."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from directory_episodes import FORMATS

from stable_worldmodel.data import detect_format, load_dataset, open_writer, verify

GOLDEN = Path(__file__).parent.parent / "data"
PICTURE_ERROR = {"folder": 4, "hf_arrow": 4, "video": 6}  # mean, of what the recording's own reader sees


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


@pytest.fixture
def path(tmp_path, format):
    with zipfile.ZipFile(GOLDEN / format / "tiny.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "tiny"


@pytest.fixture
def golden(path, format):
    expected = json.loads((GOLDEN / format / "expected.json").read_text())
    return load_dataset(path, num_steps=expected["num_steps"], frameskip=expected["frameskip"]), expected


@pytest.fixture(scope="module")
def pictures():
    """What the pictures were, averaged over 8 x 8 blocks."""
    with np.load(GOLDEN / "folder" / "frames.npz") as stored:
        return dict(stored)


def test_golden_index_and_columns(golden, path, format):
    ds, expected = golden
    assert detect_format(path).name == format
    assert ds.lengths.tolist() == expected["lengths"]
    assert len(ds) == expected["n_items"]
    known = expected.get("reader_columns") or [*expected["columns"], *expected["image_columns"]]
    assert sorted(ds.column_names) == sorted(known)


def test_golden_numbers_and_texts(golden):
    ds, expected = golden
    for name, column in expected["columns"].items():
        if "first_frame_sum" in column:
            continue
        values = ds.get_col_data(name)
        if column["dtype"] == "text":
            assert (values[0], values[-1]) == (column["first"], column["last"])
            continue
        assert (values.dtype, values.shape[1:]) == (np.dtype(column["dtype"]), tuple(column["shape"])), name
        assert np.count_nonzero(np.isnan(values)) == column["nan_count"], name
        np.testing.assert_allclose(np.nansum(values, dtype=np.float64), column["sum"], rtol=1e-12, err_msg=name)
        for row, value in ((0, column["first"]), (-1, column["last"])):
            np.testing.assert_array_equal(values[row].astype(float), np.array(value, dtype=float), err_msg=name)


def test_golden_pictures(golden, pictures, format):
    ds, _ = golden
    last = np.repeat(ds.offsets + ds.lengths - 1, ds.lengths)
    for name in (name for name, column in ds.columns.items() if column.kind == "image"):
        found = np.concatenate(list(ds.iter_frames(name)))
        assert (found.dtype, found.shape) == (np.uint8, (44, 32, 32, 3))
        blocks = found.reshape(44, 8, 4, 8, 4, 3).mean(axis=(2, 4))
        expected = pictures["pixels_side"][last] if name == "goal" else pictures[name].astype(float)
        assert np.abs(blocks - expected).mean() < PICTURE_ERROR[format]
        for rows in (np.arange(n) + first for n, first in zip(ds.lengths, ds.offsets, strict=True)):
            distance = np.abs(blocks[rows][:, None] - expected[rows]).sum(axis=(2, 3, 4))
            assert (np.diag(distance) == distance.min(axis=1)).all()  # each resembles its own row most


@pytest.mark.parametrize("which", ["item_0", "item_last"])
def test_golden_windows(golden, which, format):
    ds, expected = golden
    if which not in expected:
        return
    item = ds[0 if which == "item_0" else expected["item_last_index"]]
    for name, value in expected[which].items():
        if value.get("kind") == "text":
            assert item[name] == [value["value"]] * ds.num_steps
            continue
        assert list(item[name].shape) == value["shape"], name
        assert item[name].dtype == getattr(torch, value["dtype"]), name
        if "mean" in value:
            assert abs(item[name].double().mean() - value["mean"]) < PICTURE_ERROR[format], name
        else:
            values = np.array(value["values"], dtype=np.float64)  # None becomes NaN
            np.testing.assert_array_equal(item[name].double().numpy(), values, err_msg=name)


def test_golden_dataset_is_continued(path, format):
    before = list(load_dataset(path).iter_episodes())
    assert verify(path, deep=True).ok
    for k in range(2):
        with open_writer(path, format) as writer:
            assert writer.num_episodes == len(before) + k
            writer.write_episode(before[1])
    ds = load_dataset(path)
    assert ds.lengths.tolist() == [9, 12, 8, 15, 12, 12]
    assert verify(path, deep=True).checked == 2
    for found, expected in zip(ds.iter_episodes(), [*before, before[1], before[1]], strict=True):
        for name, values in expected.items():
            assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
            if ds.columns[name].kind == "image":
                assert np.abs(found[name].astype(int) - values).mean() < 3, name
            else:
                np.testing.assert_array_equal(found[name], values, err_msg=name)
