"""The `hf_arrow` format beyond what all directory formats share: what `datasets` expects, and early recordings."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from directory_episodes import assert_close, make_views
from PIL import Image

from stable_worldmodel.data import detect_format, load_dataset, open_writer, verify
from stable_worldmodel.data.formats.folder import VideoDataset
from stable_worldmodel.data.formats.shared.mp4 import encode_video
from stable_worldmodel.errors import ContractError

STATE_KEYS = {
    "_data_files", "_fingerprint", "_format_columns", "_format_kwargs", "_format_type", "_output_all_columns", "_split",
}  # fmt: skip
INFO_KEYS = {"citation", "description", "features", "homepage", "license"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def write(path, episodes, **columns):
    with open_writer(path, "hf_arrow") as writer:
        writer.write_episodes({"x": np.arange(4) + 10 * k, **columns} for k in episodes)


def load_from_disk(path):
    """What `datasets.load_from_disk` does with the files: the features, and the rows of all shards."""
    state, info = (json.loads((path / name).read_text()) for name in ("state.json", "dataset_info.json"))
    assert set(state) == STATE_KEYS
    assert set(info) == INFO_KEYS
    shards = [pa.ipc.open_stream(pa.memory_map(str(path / entry["filename"]))) for entry in state["_data_files"]]
    tables = [shard.read_all() for shard in shards]
    for table in tables:
        described = json.loads(table.schema.metadata[b"huggingface"])
        assert described["info"]["features"] == info["features"]
    table = pa.concat_tables(tables)
    assert table.column_names == list(info["features"])
    for name, feature in info["features"].items():
        assert arrow_type(feature) == table.schema.field(name).type, name
    return table


def arrow_type(feature):
    """The Arrow type that `datasets` derives from a feature."""
    if feature["_type"] == "Sequence":
        return pa.list_(arrow_type(feature["feature"]), feature["length"])
    assert feature["_type"] == "Value"
    names = {"float32": "float", "float64": "double", "float16": "halffloat"}
    return pa.type_for_alias(names.get(feature["dtype"], feature["dtype"]))


@pytest.mark.parametrize("episodes", [1, 49, 50, 101, 150])
def test_files_are_what_datasets_opens(path, episodes):
    write(path, range(episodes), flag=np.ones((4, 2), bool), text=["a", "b", "c", "d"])
    table = load_from_disk(path)
    assert table["episode_idx"].to_pylist() == np.repeat(np.arange(episodes), 4).tolist()
    assert table["step_idx"].to_pylist() == [0, 1, 2, 3] * episodes
    assert set(table["episode_len"].to_pylist()) == {4}
    assert {table.schema.field(name).type for name in ("episode_idx", "step_idx", "episode_len")} == {pa.int32()}
    assert table["x"].to_pylist() == [10 * k + i for k in range(episodes) for i in range(4)]
    assert table["text"].to_pylist() == ["a", "b", "c", "d"] * episodes
    shards = sorted(file.name for file in path.glob("data-*"))
    n = max(1, episodes // 50)
    assert shards == [f"data-{k:05d}-of-{n:05d}.arrow" for k in range(n)]


def test_images_are_relative_paths_of_jpeg_files(path):
    episode = make_views(0)
    with open_writer(path, "hf_arrow") as writer:
        writer.write_episodes([{"pixels.top": episode["pixels"], "goal": episode["goal"]}] * 2)
    table = load_from_disk(path)
    rows = len(episode["pixels"])
    assert table["pixels.top"].to_pylist() == [f"img/{k}/{i}_pixels_top.jpeg" for k in range(2) for i in range(rows)]
    assert table["goal"].to_pylist() == [f"img/{k}/0_goal.jpeg" for k in range(2) for _ in range(rows)]  # once
    image = Image.open(path / table["pixels.top"][rows + 1].as_py())
    assert (image.format, image.size) == ("JPEG", (32, 32))
    assert np.abs(np.asarray(image).astype(int) - episode["pixels"][1]).max() < 30


def test_other_programs_see_a_prefix_while_it_is_written(path):
    with open_writer(path, "hf_arrow") as writer:
        for k in range(60):
            writer.write_episode({"x": np.arange(4) + 10 * k})
            seen = load_from_disk(path)["x"].to_pylist()
            assert seen == [10 * e + i for e in range(len(seen) // 4) for i in range(4)]


def test_the_fingerprint_changes_with_the_content(path):
    found = []
    for k in range(3):
        write(path, [k])
        found.append(json.loads((path / "state.json").read_text())["_fingerprint"])
    assert len(set(found)) == 3


@pytest.mark.parametrize("damage", ["missing", "identity", "number"])
def test_a_damaged_state_is_an_error(path, damage):
    write(path, range(3))
    state = json.loads((path / "state.json").read_text())
    at = {"identity": 3, "number": 39}.get(damage)
    if at is None:
        (path / "state.json").unlink()
    else:
        letters = state["_fingerprint"]
        letters = letters[:at] + ("0" if letters[at] != "0" else "1") + letters[at + 1 :]
        (path / "state.json").write_text(json.dumps({**state, "_fingerprint": letters}))
    with pytest.raises(ContractError, match=r"state\.json: damaged or missing"):
        load_dataset(path)
    assert not verify(path).ok


def test_a_damaged_description_is_repaired(path):
    write(path, range(3))
    before = (path / "dataset_info.json").read_bytes()
    (path / "dataset_info.json").write_bytes(before.replace(b"int64", b"int32"))
    assert load_dataset(path).num_episodes == 3
    assert "dataset_info.json: damaged" in verify(path).faults[0]
    assert verify(path, repair=True).repaired_to == 3
    assert (path / "dataset_info.json").read_bytes() == before
    assert verify(path).ok


# -- early recordings, and those of other programs -------------------------------------------------------------------


def foreign(folder, episodes=(0, 1), rows=3, level=0, suffix="jpeg", shuffled=False, images_in=None, **columns):
    """The early layout, by Arrow and Pillow alone."""
    folder.mkdir(parents=True)
    table = {
        "episode_idx": np.repeat(np.int32(episodes), rows),
        "step_idx": np.tile(np.arange(rows, dtype=np.int32), len(episodes)),
        "episode_len": np.full(rows * len(episodes), rows, np.int32),
        "x": np.arange(rows * len(episodes), dtype=np.float32) + level,
        "pixels": [f"img/{e}/{i}_pixels.{suffix}" for e in episodes for i in range(rows)],
        **columns,
    }
    order = np.random.default_rng(0).permutation(rows * len(episodes)) if shuffled else np.arange(rows * len(episodes))
    arrays = {name: pa.array(values).take(pa.array(order)) for name, values in table.items()}
    table = pa.table(arrays)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    for name in ("state.json", "dataset_info.json"):
        files = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "0123456789abcdef"}
        (folder / name).write_text(json.dumps(files))
    images = images_in or folder
    for k, e in enumerate(episodes):
        (images / "img" / str(e)).mkdir(parents=True, exist_ok=True)
        for i in range(rows):
            Image.new("L", (8, 6), level + 40 * k + 10 * i).save(images / f"img/{e}/{i}_pixels.{suffix}")


def levels(ds):
    return ds.get_row_data(range(ds.num_rows))["pixels"][:, 0, 0, 0].tolist()


def test_rows_in_any_order_are_sorted(path):
    foreign(path, shuffled=True)
    ds = load_dataset(path)
    assert detect_format(path).name == "hf_arrow"
    assert ds.get_col_data("x").tolist() == [0, 1, 2, 3, 4, 5]
    assert levels(ds) == [0, 10, 20, 40, 50, 60]
    assert ds.get_col_data("step_idx").dtype == np.int64


def test_the_oldest_sets_have_their_tables_in_a_folder_of_their_own(path):
    foreign(path / "records", images_in=path)
    assert levels(load_dataset(path)) == [0, 10, 20, 40, 50, 60]


def test_parts_of_nested_sets_are_numbered_on(path):
    foreign(path / "a" / "shard", episodes=(0, 1))
    foreign(path / "b", episodes=(5, 6, 7), level=100)
    ds = load_dataset(path)
    assert ds.lengths.tolist() == [3] * 5
    assert ds.get_col_data("x").tolist() == [*range(6), *range(100, 109)]
    assert levels(ds) == [0, 10, 20, 40, 50, 60, 100, 110, 120, 140, 150, 160, 180, 190, 200]


def test_videos(path):
    frames = np.stack([np.full((16, 16, 3), 20 * i, np.uint8) for i in range(3)])
    foreign(path, pixels=["videos/0_pixels.mp4"] * 3 + ["videos/1_pixels.mp4"] * 3)
    (path / "videos").mkdir()
    for e in range(2):
        (path / f"videos/{e}_pixels.mp4").write_bytes(encode_video(frames + 50 * e))
    for ds in (load_dataset(path), VideoDataset(path=path)):
        assert np.abs(np.array(levels(ds)) - [0, 20, 40, 50, 70, 90]).max() <= 3
    with pytest.raises(ContractError, match="are videos; copy its episodes into a new dataset"):
        open_writer(path, "hf_arrow")


def test_a_set_of_another_program_is_continued(path):
    foreign(path, suffix="png")
    with open_writer(path, "hf_arrow") as writer:
        pixels = np.full((2, 6, 8, 1), 9, np.uint8)
        writer.write_episode({"x": np.float32([7, 8]), "pixels": pixels, "step_idx": np.arange(2)})
    ds = load_dataset(path)
    assert levels(ds) == [0, 10, 20, 40, 50, 60, 9, 9]
    assert ds.get_col_data("x").tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert load_from_disk(path)["episode_idx"].to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert verify(path, deep=True).checked == 1


def test_only_own_images_must_have_a_seal(path):
    foreign(path)
    with open_writer(path, "hf_arrow") as writer:
        writer.write_episode({**load_dataset(path).read_rows(0, 0, 3)})
    assert len(levels(load_dataset(path))) == 9
    file = path / "img/2/1_pixels.jpeg"
    file.write_bytes(file.read_bytes()[:-8])
    ds = load_dataset(path, cache="none")
    assert ds[5]["pixels"].max() == 60
    with pytest.raises(ContractError, match=r"1_pixels.jpeg \(episode 2, row 1\): its checksum is missing"):
        ds[7]


@pytest.mark.parametrize("name", ["/etc/passwd.jpeg", "../outside.jpeg", "img/../../outside.jpeg", ""])
def test_paths_that_lead_out_are_refused(path, name):
    foreign(path, pixels=["img/0/0_pixels.jpeg", name, *["img/0/0_pixels.jpeg"] * 4])
    with pytest.raises(ContractError, match="leads out of the dataset"):
        levels(load_dataset(path))


def test_a_copied_folder_is_the_same_dataset(path, tmp_path):
    with open_writer(path, "hf_arrow") as writer:
        writer.write_episodes(make_views(k) for k in range(3))
    shutil.copytree(path, tmp_path / "copy")
    for k, episode in enumerate(load_dataset(tmp_path / "copy").iter_episodes()):
        assert_close(episode, make_views(k), "hf_arrow")
