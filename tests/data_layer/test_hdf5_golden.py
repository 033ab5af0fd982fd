"""Files written by the public releases read as their own readers read them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stable_worldmodel.data import load_dataset

GOLDEN = Path(__file__).parent.parent / "data"


@pytest.fixture(params=["hdf5", "hdf5_middle"])
def golden(request):
    folder = GOLDEN / request.param
    expected = json.loads((folder / "expected.json").read_text())
    ds = load_dataset(folder / "tiny.h5", num_steps=expected["num_steps"], frameskip=expected["frameskip"])
    return ds, expected


def test_golden_index_and_columns(golden):
    ds, expected = golden
    assert ds.lengths.tolist() == expected["lengths"]
    assert len(ds) == expected["n_items"]
    assert sorted(ds.column_names) == expected["reader_columns"]


def test_golden_column_values(golden):
    ds, expected = golden
    for name, column in expected["columns"].items():
        values = np.concatenate(list(ds.iter_frames(name)))
        if column["dtype"] == "text":
            assert (values[0], values[-1]) == (column["first"], column["last"])
            continue
        assert (values.dtype, values.shape[1:]) == (np.dtype(column["dtype"]), tuple(column["shape"])), name
        assert np.count_nonzero(np.isnan(values)) == column["nan_count"], name
        np.testing.assert_allclose(np.nansum(values, dtype=np.float64), column["sum"], rtol=1e-12, err_msg=name)
        if "first_frame_sum" in column:
            assert values[0].sum() == column["first_frame_sum"]
            assert values[-1].sum() == column["last_frame_sum"]


@pytest.mark.parametrize("which", ["item_0", "item_last"])
def test_golden_windows(golden, which):
    ds, expected = golden
    item = ds[0 if which == "item_0" else expected["item_last_index"]]
    for name, value in expected[which].items():
        if value.get("kind") == "text":
            assert item[name] == [value["value"]] * ds.num_steps
            continue
        assert list(item[name].shape) == value["shape"], name
        assert item[name].dtype == getattr(torch, value["dtype"]), name
        if "mean" in value:
            np.testing.assert_allclose(item[name].double().mean(), value["mean"], err_msg=name)
        else:
            values = np.array(value["values"], dtype=np.float64)  # None becomes NaN
            np.testing.assert_array_equal(item[name].double().numpy(), values, err_msg=name)


def test_missing_filter_is_named():
    # In a process of its own, since a filter stays registered once any test has imported it.
    script = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from stable_worldmodel.data import load_dataset\n"
        f"load_dataset({str(GOLDEN / 'hdf5_middle' / 'tiny.h5')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "MissingDependencyError" in done.stderr
    assert "blosc" in done.stderr
    assert "pip install hdf5plugin" in done.stderr


def test_columns_without_the_missing_filter_are_readable():
    ds = load_dataset(GOLDEN / "hdf5_middle" / "tiny.h5", keys_to_load=["action", "ep_idx"])
    assert ds[0]["action"].shape == (1, 2)
