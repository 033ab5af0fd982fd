"""Lance tables made by the public tools read as their own reader reads them."""

import json
import zipfile
from pathlib import Path

import lance
import numpy as np
import pytest
import torch

from stable_worldmodel.data import detect_format, load_dataset, open_writer, verify
from stable_worldmodel.data.formats.lance.format import LanceDataset
from stable_worldmodel.errors import ContractError, MissingKeyError, NotFoundError

GOLDEN = Path(__file__).parent.parent / "data"
SETS = {  # zip file -> path in it, mean error of a picture
    "lance/tiny.zip": ("tiny.lance", 1.5),
    "lance/tiny_v21.zip": ("tiny.lance", 1.5),
    "lance/tiny_v20.zip": ("tiny.lance", 1.5),
    "lance_video/tiny.zip": ("tiny", 6),
}


def unpack(name, folder):
    with zipfile.ZipFile(GOLDEN / name) as archive:
        archive.extractall(folder)
    return folder / SETS[name][0]


def expected_of(name):
    return json.loads((GOLDEN / name).with_name("expected.json").read_text())


@pytest.fixture(params=SETS)
def name(request):
    return request.param


@pytest.fixture
def path(name, tmp_path):
    return unpack(name, tmp_path)


@pytest.fixture
def golden(name, path):
    expected = expected_of(name)
    return load_dataset(path, num_steps=expected["num_steps"], frameskip=expected["frameskip"]), expected


def test_golden_index_and_columns(golden, name, path):
    ds, expected = golden
    assert detect_format(path).name == name.partition("/")[0]
    assert ds.lengths.tolist() == expected["lengths"]
    assert len(ds) == expected["n_items"]
    assert sorted(ds.column_names) == expected["reader_columns"]
    assert ds.read_rows(1, 0, 3, ["step_idx"])["step_idx"].tolist() == [0, 1, 2]


def test_golden_numbers(golden):
    ds, expected = golden
    for column, about in expected["columns"].items():
        if column.startswith("pixels"):
            continue
        values = ds.get_col_data(column)  # vectors of float32
        assert (values.dtype, values.shape[1:]) == (np.float32, (np.prod(about["shape"], dtype=int),)), column
        assert np.count_nonzero(np.isnan(values)) == about["nan_count"], column
        np.testing.assert_allclose(np.nansum(values, dtype=np.float64), about["sum"], rtol=1e-6, err_msg=column)
        for row, which in ((0, "first"), (-1, "last")):
            value = np.array(about[which], dtype=np.float64).reshape(-1)  # None becomes NaN
            np.testing.assert_allclose(values[row], value, rtol=1e-6, err_msg=column)


def test_golden_pictures(golden, name):
    ds, _ = golden
    blocks = np.load(GOLDEN / "folder" / "frames.npz")
    for column in ("pixels", "pixels_side"):
        pictures = np.concatenate(list(ds.iter_frames(column)))
        assert pictures.shape == (44, 32, 32, 3)
        means = pictures.reshape(44, 8, 4, 8, 4, 3).mean((2, 4))
        error = np.abs(means[:, None] - blocks[column].astype(float)).mean((2, 3, 4))
        assert error.argmin(1).tolist() == list(range(44))
        assert error.diagonal().max() < SETS[name][1]


@pytest.mark.parametrize("which", ["item_0", "item_last"])
def test_golden_windows(golden, name, which):
    ds, expected = golden
    item = ds[0 if which == "item_0" else expected["item_last_index"]]
    for column, value in expected[which].items():
        assert list(item[column].shape) == value["shape"], column
        assert item[column].dtype == getattr(torch, value["dtype"]), column
        if "mean" in value:
            assert abs(item[column].double().mean().item() - value["mean"]) < 0.5, column
        else:
            values = np.array(value["values"], dtype=np.float64)
            np.testing.assert_allclose(item[column].double().numpy(), values, rtol=1e-6, err_msg=column)


def test_golden_per_episode_data(golden):
    ds, expected = golden
    assert sorted(ds.episode_column_names) == sorted(expected["episode_data"])
    found = ds.get_episode_data([2, 0, 2])
    for key, values in expected["episode_data"].items():
        for value, i in zip(found[key], (2, 0, 2), strict=True):
            np.testing.assert_array_equal(np.asarray(value), np.asarray(values[i], np.asarray(value).dtype))


def test_golden_set_is_continued(golden, name, path):
    ds, _ = golden
    episodes = list(ds.iter_episodes())
    episode = {**episodes[1], "policy": ["text"] * 12, "step_idx": np.arange(12), "terminated": np.zeros(12, bool)}
    episode["grid"] = episode["grid"].reshape(12, 2, 3)
    for _ in range(2):
        with open_writer(path) as writer:
            writer.write_episode(episode)
    again = load_dataset(path)
    assert again.lengths.tolist() == [*ds.lengths, 12, 12]
    for k, expected in enumerate([*episodes, episodes[1], episodes[1]]):
        found = again.read_rows(k, 0, len(expected["action"]))
        for column in expected.keys() - {"pixels", "pixels_side", "_episode_data"}:
            values = np.zeros((12, 1), np.float32) if column == "terminated" and k > 3 else expected[column]
            np.testing.assert_array_equal(found[column], values, err_msg=column)
        for column in ("pixels", "pixels_side"):
            assert np.abs(found[column].astype(int) - expected[column]).mean() < 3  # encoded twice
    assert again.get_episode_data([4])["scene"] == again.get_episode_data([1])["scene"]
    assert verify(path, deep=True).ok


def test_golden_set_refuses_what_does_not_fit(path):
    episode = {**next(iter(load_dataset(path).iter_episodes()))}
    with open_writer(path) as writer:
        with pytest.raises(ContractError, match=r"state: expected shape \(7,\) per row, found \(6,\)"):
            writer.write_episode({**episode, "state": episode["state"][:, :6]})
        data = {**episode["_episode_data"], "weather": "dry"}
        del data["difficulty"]
        with pytest.raises(ContractError, match=r"(?s)difficulty: missing.*weather: not in the dataset"):
            writer.write_episode({**episode, "_episode_data": data})
    assert load_dataset(path).num_episodes == 4


def test_places_are_found_by_every_way_of_naming_them(tmp_path):
    path = unpack("lance/tiny.zip", tmp_path / "db")
    for target in (path, tmp_path / "db", f"{tmp_path}/db/"):
        assert load_dataset(target).num_episodes == 4
    assert LanceDataset(uri=str(tmp_path / "db"), table_name="tiny").num_episodes == 4
    assert LanceDataset(uri=f"file://{path}").num_episodes == 4
    assert LanceDataset(uri=f"file://{tmp_path}/db", table_name="tiny").get_episode_data([1])["difficulty"] == [2]
    assert detect_format(f"s3://bucket/{path.name}").name == "lance"
    assert detect_format(tmp_path / "db" / "tiny_episodes.lance") is None
    path.with_name("tiny_episodes.lance").rename(path.with_name("other.lance"))
    with pytest.raises(ContractError, match=r"\['other', 'tiny'\]; choose one with table_name="):
        load_dataset(tmp_path / "db")
    with pytest.raises(NotFoundError, match="'other', 'tiny'"):
        LanceDataset(uri=str(tmp_path / "db"), table_name="absent")
    with pytest.raises(TypeError, match="`path` or `uri`"):
        LanceDataset()


def test_table_of_frames_with_videos_beside_it_is_a_video_dataset(tmp_path):
    path = unpack("lance_video/tiny.zip", tmp_path)
    assert detect_format(path / "tiny.lance").name == "lance_video"
    assert load_dataset(path / "tiny.lance").columns["pixels"].shape == (32, 32, 3)
    with pytest.raises(ContractError, match="format='lance_video'"):
        open_writer(path / "tiny.lance", format="lance")
    assert "pixels_side" not in load_dataset(path, video_keys=["pixels"]).columns
    with pytest.raises(MissingKeyError, match=r"no videos \['front'\]"):
        load_dataset(path, video_keys=["front"])


def test_tables_of_other_columns_are_read(tmp_path):
    """Text per step, plain numbers, and images that are no JPEG."""
    import pyarrow as pa
    from PIL import Image

    path = tmp_path / "old.lance"
    Image.fromarray(np.full((5, 6, 3), 9, np.uint8)).save(tmp_path / "a.png")
    columns = {
        "episode_idx": pa.array([0, 0, 1], pa.int32()),
        "instruction": ["ä", "b", "c"],
        "speed": pa.array([1.0, None, 3.0]),
        "count": pa.array([1, 2, 3], pa.int64()),
        "pixels": pa.array([(tmp_path / "a.png").read_bytes()] * 3, pa.binary()),
    }
    lance.write_dataset(pa.table(columns), path)
    ds = load_dataset(path)
    assert ds[0]["instruction"] == ["ä"]
    assert ds.get_col_data("count").tolist() == [1, 2, 3]
    assert np.isnan(ds.get_col_data("speed")).tolist() == [False, True, False]
    assert ds.get_row_data(2)["pixels"].tolist() == np.full((5, 6, 3), 9).tolist()
    assert "pixels" not in load_dataset(path, image_columns=[]).columns


def test_rows_out_of_order_are_refused(tmp_path):
    import pyarrow as pa

    table = pa.table({"episode_idx": pa.array([0, 1, 0], pa.int32()), "x": [1.0, 2.0, 3.0]})
    lance.write_dataset(table, tmp_path / "x.lance")
    with pytest.raises(ContractError, match="'episode_idx' decreases at row 2"):
        load_dataset(tmp_path / "x.lance")
    with pytest.raises(ContractError, match="no column 'episode'"):
        load_dataset(tmp_path / "x.lance", episode_index_column="episode")
