"""LeRobot datasets written by LeRobot itself, and what older, newer and damaged ones give."""

import json
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_resolution import Hub, episodes_file, home, hub  # noqa: F401  fixtures

from stable_worldmodel.data import convert, detect_format, load_dataset, open_writer, verify
from stable_worldmodel.data.formats.lerobot.info import Info
from stable_worldmodel.data.formats.lerobot.repair import recompute_statistics
from stable_worldmodel.data.formats.lerobot.statistics import read_stats
from stable_worldmodel.errors import ContractError, NotFoundError

GOLDEN = Path(__file__).parent.parent / "data" / "lerobot"
COLUMNS = {
    "observation.state": "proprio",
    "observation.environment_state": "state",
    "observation.images.top": "pixels_top",
    "observation.images.side": "pixels_side",
}
PICTURE_ERROR = {"top": 5, "side": 0.01}


@pytest.fixture(params=["v30", "v21"])
def version(request):
    return request.param


@pytest.fixture
def path(tmp_path, version):
    with zipfile.ZipFile(GOLDEN / f"{version}.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "tiny"


@pytest.fixture
def expected(version):
    return json.loads((GOLDEN / f"expected_{version}.json").read_text())


def test_golden_index_and_columns(path, expected):
    ds = load_dataset(path, num_steps=expected["num_steps"], frameskip=expected["frameskip"])
    assert detect_format(path).name == "lerobot"
    assert ds.lengths.tolist() == expected["lengths"]
    assert len(ds) == expected["n_items"]
    assert (ds.fps, ds.robot_type, ds.has_terminal_row) == (10, None, False)
    assert ds.metadata["codebase_version"] == expected["codebase_version"]
    assert [ds.read_rows(k, 0, 1)["task"][0] for k in range(3)] == expected["tasks"]
    assert verify(path, deep=True).ok


def test_golden_numbers(path, expected):
    ds = load_dataset(path)
    for feature, column in expected["native_columns"].items():
        if "first_frame_sum" in column:
            continue
        values = ds.get_col_data(COLUMNS.get(feature, feature))
        assert (values.dtype, values.shape[1:]) == (np.dtype(column["dtype"]), tuple(column["shape"])), feature
        np.testing.assert_allclose(values.sum(dtype=np.float64), column["sum"], rtol=1e-12)
        for row, value in ((0, column["first"]), (-1, column["last"])):
            np.testing.assert_array_equal(values[row].astype(float), np.array(value, dtype=float))


def test_golden_pictures(path):
    ds = load_dataset(path, cache="none")
    with np.load(GOLDEN / "frames.npz") as stored:
        frames = {name.partition("_")[0]: stored[name].astype(float) for name in stored}
    for view, error in PICTURE_ERROR.items():
        found = np.concatenate(list(ds.iter_frames(f"pixels_{view}")))
        side = found.shape[1] // 8
        blocks = found.reshape(len(found), 8, side, 8, side, 3).mean(axis=(2, 4))
        assert np.abs(blocks - frames[view]).mean() < error
        for first, n in zip(ds.offsets, ds.lengths, strict=True):
            rows = np.arange(n) + first
            distance = np.abs(blocks[rows][:, None] - frames[view][rows]).sum(axis=(2, 3, 4))
            assert (np.diag(distance) == distance.min(axis=1)).all()  # each resembles its own row most


def test_golden_window(path, expected):
    ds = load_dataset(path, num_steps=expected["num_steps"], frameskip=expected["frameskip"])
    for feature, value in expected["item_0"].items():
        found = ds[0][COLUMNS.get(feature, feature)]
        assert list(found.shape) == value["shape"]
        if "mean" in value:
            assert abs(found.double().mean() - value["mean"]) < 5
        else:
            torch.testing.assert_close(found.double(), torch.tensor(value["values"], dtype=torch.float64))


def test_rewards_and_flags_are_told_on_arrival(path):
    ds = load_dataset(path)
    for episode, n in enumerate(ds.lengths):
        rows = ds.read_rows(episode, 0, n)
        assert np.isnan(rows["reward"][0])
        np.testing.assert_array_equal(rows["reward"][1:], rows["next.reward"][:-1])
        assert rows["next.done"].tolist() == [False] * (n - 1) + [True]  # the last step's flag has no row of its own
        assert not rows["terminated"].any()
        assert rows["step_idx"].tolist() == [*range(n)]


def test_a_camera_can_be_the_pixels(path):
    for name in ("side", "observation.images.side"):
        ds = load_dataset(path, primary_camera=name)
        assert (ds.columns["pixels"].shape, ds.columns["pixels_top"].shape) == ((32, 32, 3), (64, 64, 3))
    with pytest.raises(ContractError, match=r"primary_camera='front': expected one of .*observation\.images\.top"):
        load_dataset(path, primary_camera="front")


def test_sets_of_others_are_not_continued_but_copied(path, tmp_path):
    with pytest.raises(ContractError, match="can be read but not continued"):
        open_writer(path, format="lerobot")
    before = load_dataset(path)
    for name, options in (("whole", {}), ("again", {"fps": 5})):
        convert(path, tmp_path / name, dest_format="lerobot", progress=False, **options)
        copy = load_dataset(tmp_path / name)
        assert copy.column_names == before.column_names
        for found, expected in zip(copy.iter_episodes(), before.iter_episodes(), strict=True):
            for column, values in expected.items():
                if not column.startswith("pixels"):
                    np.testing.assert_array_equal(found[column], values, err_msg=column)


@pytest.mark.parametrize("version", ["v30"], indirect=True)
def test_wrong_image_statistics_are_told_and_can_be_mended(path, caplog):
    with caplog.at_level(logging.WARNING):
        ds = load_dataset(path, cache="none")
    assert "observation.images.side" in caplog.text
    assert "recompute_statistics" in caplog.text
    recompute_statistics(path)
    caplog.clear()
    load_dataset(path)
    assert not caplog.records
    stats = read_stats(Info.read(path))
    frames = np.concatenate(list(ds.iter_frames("pixels_side"))) / 255
    np.testing.assert_allclose(np.ravel(stats["observation.images.side"]["std"]), frames.std(axis=(0, 1, 2)), rtol=1e-9)
    state = ds.get_col_data("proprio").astype(float)
    np.testing.assert_allclose(stats["observation.state"]["mean"], state.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats["observation.state"]["q90"], np.quantile(state, 0.9, axis=0), rtol=1e-12)


def change(path, **entries):
    info = path / "meta" / "info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"codebase_version": "v4.0"}, "v4.0 is newer than v3"),
        ({"codebase_version": "v1.6"}, r"v1\.6 cannot be read.*convert_dataset_v1_to_v2"),
        ({"codebase_version": "three"}, "codebase_version 'three'"),
        ({"storage_format": "lance"}, "storage format is 'lance', only Parquet and MP4"),
        ({"features": []}, "'features' does not describe features"),
        ({"fps": 0}, "expected counts"),
        ({"total_episodes": 4}, "4 episodes are announced, 3 are described"),
        ({"total_episodes": 0}, "no episode is complete yet"),
        ({"data_path": "../x.parquet"}, "out of the dataset"),
        ({"data_path": "{nothing}"}, "data_path: KeyError"),
    ],
)
def test_what_cannot_be_read_is_refused(path, entries, message):
    change(path, **entries)
    with pytest.raises(ContractError, match=message):
        load_dataset(path)


def test_version_1_is_named(tmp_path):
    (tmp_path / "old" / "meta_data").mkdir(parents=True)
    (tmp_path / "old" / "meta_data" / "info.json").write_text("{}")
    with pytest.raises(ContractError, match="convert_dataset_v1_to_v2"):
        load_dataset(tmp_path / "old")


def test_damaged_and_missing_files_are_named(path, version):
    info = path / "meta" / "info.json"
    good = info.read_bytes()
    info.write_bytes(good[:100])
    with pytest.raises(ContractError, match=r"info\.json: damaged"):
        load_dataset(path)
    info.write_bytes(good)
    data = sorted((path / "data").rglob("*.parquet"))[-1]
    data.write_bytes(data.read_bytes()[:-50])
    with pytest.raises(ContractError, match=data.name):
        load_dataset(path).read_rows(2, 0, 1)
    data.unlink()
    with pytest.raises(ContractError, match=rf"{data.name}.* is missing"):
        load_dataset(path).read_rows(2, 0, 1)


def test_version_2_0_made_by_hand(tmp_path):
    root = tmp_path / "hand"
    for folder in ("meta", "data/chunk-000", "data/chunk-001"):
        (root / folder).mkdir(parents=True)
    features = {"observation.state": ("float32", [1]), "action": ("float32", [1]), "next.success": ("bool", [1])}
    info = {
        "codebase_version": "v2.0", "fps": 5, "robot_type": "arm", "total_episodes": 3, "total_frames": 6,
        "chunks_size": 2, "video_path": None,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": {name: {"dtype": d, "shape": s, "names": None} for name, (d, s) in features.items()},
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "go"}\n{"task_index": 1, "task": "stop"}\n')
    lines = [{"episode_index": i, "tasks": ["go"], "length": i + 1} for i in range(3)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    for i in range(3):
        steps = np.arange(i + 1)
        table = pa.table({
            "observation.state": pa.array(steps + 10.0 * i, pa.float32()),
            "action": pa.array([[float(t)] for t in steps], pa.list_(pa.float32())),
            "next.success": steps == i,
            "frame_index": steps,
            "episode_index": np.full(i + 1, i),
            "task_index": steps % 2,
        })  # fmt: skip
        pq.write_table(table, root / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet")
    ds = load_dataset(root)
    assert ds.lengths.tolist() == [1, 2, 3]
    assert ds.robot_type == "arm"
    rows = ds.read_rows(2, 0, 3)
    assert rows["proprio"].tolist() == [[20], [21], [22]]
    assert rows["action"].tolist() == [[0], [1], [2]]
    assert rows["task"].tolist() == ["go", "stop", "go"]
    assert rows["success"].tolist() == [False, False, False]
    assert rows["next.success"].tolist() == [False, False, True]
    shutil.copy(root / "data/chunk-000/episode_000001.parquet", root / "data/chunk-001/episode_000002.parquet")
    with pytest.raises(ContractError, match=r"episode_000002\.parquet"):
        load_dataset(root)


def test_names_that_ask_for_lerobot(path, tmp_path, monkeypatch):
    monkeypatch.setenv("STABLEWM_HOME", str(tmp_path / "root"))
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "recorded"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(path, tmp_path / "recorded" / "someone" / "tiny")
    for name in ("lerobot:tiny", f"lerobot:{path}", "lerobot:someone/tiny", "lerobot://someone/tiny"):
        assert load_dataset(name).num_episodes == 3
    convert("lerobot://someone/tiny", "copy.h5", progress=False)
    assert load_dataset("copy").lengths.tolist() == [9, 12, 8]
    with pytest.raises(ContractError, match="is not a LeRobot dataset"):
        load_dataset("lerobot:copy.h5")
    with pytest.raises(NotFoundError, match="absent"):
        load_dataset("lerobot:absent")
    with pytest.raises(ContractError, match="expected 'lerobot://owner/repo'"):
        load_dataset("lerobot://absent")
    with pytest.raises(ContractError, match="format='lerobot'"):
        open_writer("lerobot:new")


@pytest.mark.parametrize("version", ["v30"], indirect=True)
def test_a_repository_is_downloaded_once(path, hub, home):  # noqa: F811  fixtures
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    Hub.repositories = {"owner/robot": {**files, "README.md": b"#"}, "owner/other": {"x.h5": b""}}
    for name in ("lerobot://owner/robot", "lerobot:owner/robot"):
        ds = load_dataset(name)
        assert ds.lengths.tolist() == [9, 12, 8]
        assert ds.metadata["hub"]["commit"] == Hub.COMMIT
    assert sorted(entry.name for entry in (home / "datasets" / "owner--robot").iterdir()) == ["data", "meta", "videos"]
    asked = len(Hub.requests)
    assert load_dataset("lerobot:owner--robot").num_episodes == 3
    assert len(Hub.requests) == asked
    with pytest.raises(ContractError, match="holds no LeRobot dataset"):
        load_dataset("lerobot://owner/other")
