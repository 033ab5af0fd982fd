"""Lance writers: what is written comes back, and is laid out as public tools expect it."""

import io
import json
import logging

import lance
import numpy as np
import pyarrow as pa
import pytest
from directory_episodes import make_views
from episode_factory import make_episode, make_goal_episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stable_worldmodel.data import load_dataset, open_writer, verify
from stable_worldmodel.data.lock import DatasetLockedError
from stable_worldmodel.errors import ContractError

FORMATS = ("lance", "lance_video")


def table_of(path, side=""):
    """One of the tables of the dataset that was written to `path`, through pylance alone."""
    folder, stem = (path, path.name) if path.is_dir() else (path.parent, path.name)
    return lance.dataset(str(folder / f"{stem}{side}.lance"))


def write(path, format, episodes, **options):
    with open_writer(path, format, **options) as writer:
        writer.write_episodes(episodes)
    return load_dataset(path)


def assert_read(ds, episodes, bound=4):
    """Equal dtypes, shapes and values; images within `bound` grey levels on average."""
    assert ds.lengths.tolist() == [len(episode["reward"]) for episode in episodes]
    for k, episode in enumerate(episodes):
        found = ds.read_rows(k, 0, int(ds.lengths[k]))
        assert set(found) == {name for name in episode if not name.startswith("_")}
        for name, values in found.items():
            expected = np.asarray(episode[name], dtype=object if isinstance(episode[name], list) else None)
            assert (values.dtype, values.shape) == (expected.dtype, expected.shape), name
            if expected.dtype == np.uint8 and expected.ndim == 4:
                assert np.abs(values.astype(int) - expected).mean() <= bound, name
            else:
                np.testing.assert_array_equal(values, expected, err_msg=name)


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


def test_episodes_come_back_with_their_types_and_all_bits(tmp_path, format):
    episodes = [make_views(k) for k in range(3)]
    for k, episode in enumerate(episodes):
        rows = len(episode["reward"])
        episode |= {
            "float64": np.random.default_rng(k).normal(size=(rows, 2)) * 1e100,
            "int64": np.full(rows, 2**62 + k),
            "complex": np.full((rows, 2), 1 + k * 1j),
            "flags": np.zeros((rows, 3), bool),
            "depth": np.random.default_rng(k).normal(size=(rows, 40, 40)).astype(np.float32),
            "alpha": np.full((rows, 9, 7, 4), 50 + k, np.uint8),
            "gray": np.full((rows, 16, 16, 1), 50 + k, np.uint8),
            "agent.pos": np.full((rows, 2), k, np.float32),
            "instruction": ["Würfel", *["x"] * (rows - 1)],
        }
    ds = write(tmp_path / "data", format, episodes)
    assert_read(ds, episodes)
    assert np.array_equal(ds.get_row_data(5)["alpha"], episodes[0]["alpha"][5])  # PNG
    assert ds.get_row_data([9, 2, 9])["depth"].shape == (3, 40, 40)
    assert verify(tmp_path / "data", deep=True).checked == 3


def test_layout_is_the_public_one(tmp_path):
    episodes = [make_views(k) | {"_episode_data": {"scene": "a", "weight": 1.5, "id": k}} for k in range(2)]
    write(tmp_path / "data", "lance", episodes, unique_columns=())
    frames, side = table_of(tmp_path / "data"), table_of(tmp_path / "data", "_episodes")
    assert frames.data_storage_version == "2.1"
    rows = frames.to_table().to_pydict()
    lengths = [len(episode["reward"]) for episode in episodes]
    assert rows["episode_idx"] == np.repeat([0, 1], lengths).tolist()
    assert rows["step_idx"] == [t for length in lengths for t in range(length)]
    types = {field.name: field.type for field in frames.schema}
    assert {types["episode_idx"], types["step_idx"]} == {pa.int32()}
    assert {types["pixels"], types["goal"]} == {pa.binary()}
    assert types["action"] == pa.list_(pa.float32(), 2)
    assert types["grid"] == pa.list_(pa.float32(), 6)
    assert types["seed"] == types["reward"] == pa.list_(pa.float32(), 1)
    assert rows["seed"][0] == [np.float32(1000)]
    image = Image.open(io.BytesIO(rows["pixels"][3]))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert np.abs(np.asarray(image).astype(int) - episodes[0]["pixels"][3]).mean() < 2
    data = side.to_table().to_pydict()
    assert (data["scene"], data["weight"], data["id"]) == (["a", "a"], [1.5, 1.5], [0, 1])
    assert {field.name: field.type for field in side.schema}["id"] == pa.int64()


def test_layout_of_videos_is_the_public_one(tmp_path):
    write(tmp_path / "data", "lance_video", [make_views(k) for k in range(2)])
    videos = table_of(tmp_path / "data", "_videos")
    assert videos.to_table(columns=["episode_idx", "video_key"]).to_pydict() == {
        "episode_idx": [0, 1],
        "video_key": ["pixels", "pixels"],
    }
    assert videos.schema.field("video_bytes").metadata[b"lance-encoding:blob"] == b"true"
    ((_, video), *_) = videos.read_blobs("video_bytes", indices=[1])
    assert video[4:8] == b"ftyp"
    assert "pixels" not in table_of(tmp_path / "data").schema.names


def test_constant_images_are_stored_once(tmp_path, format):
    episodes = [make_goal_episode(k, side=32) for k in range(6)]  # constant, changing, going back and forth
    ds = write(tmp_path / "data", format, episodes)
    assert "goal" not in table_of(tmp_path / "data").schema.names
    sizes = [len(value) for value in table_of(tmp_path / "data", "_episodes").to_table()["goal"].to_pylist()]
    assert sizes[0] * 3 < sizes[1]
    for k, episode in enumerate(episodes):
        goal = ds.read_rows(k, 0, int(ds.lengths[k]), ["goal"])["goal"]
        for t in range(len(goal)):  # of noise JPEG keeps little, but nothing else is nearer
            errors = np.abs(episode["goal"].astype(int) - goal[t]).mean((1, 2, 3))
            assert errors[t] == errors.min()


def test_repeated_images_of_a_row_column_are_encoded_once_and_equal(tmp_path):
    episode = make_views(0, rows=20)
    ds = write(tmp_path / "data", "lance", [episode], unique_columns=())
    stored = table_of(tmp_path / "data").to_table()["goal"].to_pylist()
    assert len({*stored}) == 1
    assert_read(ds, [episode])
    assert (ds.get_row_data([3, 3, 0])["goal"] == ds.get_row_data([7])["goal"]).all()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    steps=st.integers(1, 3),
    skip=st.integers(1, 3),
    every=st.sampled_from([None, 1, 2]),
    format=st.sampled_from(FORMATS),
)
def test_windows_obey_their_laws(tmp_path_factory, lengths, steps, skip, every, format):
    path = tmp_path_factory.mktemp("laws") / "data"
    episodes = [make_views(k, rows=rows) for k, rows in enumerate(lengths)]
    if max(lengths) < steps * skip:
        return
    with open_writer(path, format, commit_every=every) as writer:
        writer.write_episodes(episodes)
        live = load_dataset(path, num_steps=steps, frameskip=skip, cache="none")
    ds = load_dataset(path, num_steps=steps, frameskip=skip, cache="none")
    assert len(ds) == len(live) == sum(max(0, rows - steps * skip + 1) for rows in lengths)
    picked = np.random.default_rng(0).integers(0, len(ds), 5)
    batch, before = ds.get_batch(picked), live.get_batch(picked)
    for j, window in enumerate(picked.tolist()):
        episode, start = ds.clip_indices[window]
        whole = ds.load_episode(episode, stride=1)
        for name, values in batch.items():
            span = slice(start, start + steps * skip)
            if name == "action":
                expected = whole[name][span].reshape(steps, -1)
            else:
                expected = whole[name][start : start + steps * skip : skip]
            np.testing.assert_array_equal(values[j], expected, err_msg=name)
            np.testing.assert_array_equal(before[name][j], expected, err_msg=name)


def test_per_episode_data_comes_back(tmp_path, format):
    data = [
        {"scene": "ä", "raw": b"\0\1", "on": True, "n": 2**60, "x": np.float64(0.1), "map": np.arange(6).reshape(2, 3)},
        {"scene": "", "raw": b"", "on": False, "n": -1, "x": 1, "map": np.ones((2, 3), int)},
    ]
    ds = write(tmp_path / "data", format, [make_views(k) | {"_episode_data": data[k]} for k in range(2)])
    assert sorted(ds.episode_column_names) == sorted(data[0])
    found = ds.get_episode_data([1, 0, 1])
    assert found["scene"] == ["", "ä", ""]
    assert (found["raw"][1], found["on"], found["n"][1], found["x"]) == (b"\0\1", [0, 1, 0], 2**60, [1.0, 0.1, 1.0])
    assert (found["map"][1].dtype, found["map"][1].tolist()) == (np.int64, [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ContractError, match=r"episodes 0\.\.1"):
        ds.get_episode_data([2])
    with open_writer(tmp_path / "data", format) as writer:
        for change, message in [
            ({"scene": 3}, "scene: expected string, found int64"),
            ({"map": np.ones(3)}, r"map: expected an array of shape \[2, 3\], found an array of shape \[3\]"),
            ({"new": 1}, "new: not in the dataset"),
            ({"x": object()}, "'x': expected text, bytes, numbers"),
            ({"n": 2**63}, "does not fit into int64"),
        ]:
            with pytest.raises(ContractError, match=message):
                writer.write_episode(make_views(2) | {"_episode_data": data[0] | change})
    assert load_dataset(tmp_path / "data").num_episodes == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": np.zeros((3, 2), np.float32)}, "equal lengths"),
        ({"extra": np.zeros(8)}, "extra: not in the dataset"),
        ({"reward": None}, "reward: missing"),
        ({"pixels": np.zeros((8, 16, 16, 3), np.uint8)}, r"pixels: expected shape \(32, 32, 3\)"),
        ({"seed": np.zeros(8)}, "seed: expected int64, found float64"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_trace(tmp_path, format, change, message):
    episode = {name: value for name, value in {**make_views(1, rows=8), **change}.items() if value is not None}
    with open_writer(tmp_path / "data", format) as writer:
        writer.write_episode(make_views(0, rows=8))
        with pytest.raises(ContractError, match=message):
            writer.write_episode(episode)
        writer.write_episode(make_views(1, rows=8))
    assert_read(load_dataset(tmp_path / "data"), [make_views(k, rows=8) for k in range(2)])


def test_clashing_names_are_refused(tmp_path):
    rows = {"reward": np.zeros(3), "a.b": np.zeros(3), "a_b": np.zeros(3)}
    with (
        open_writer(tmp_path / "data", "lance") as writer,
        pytest.raises(ContractError, match=r"'a\.b' and 'a_b' both become 'a_b'"),
    ):
        writer.write_episode(rows)
    episode = {"reward": np.zeros(3), "policy": ["a"] * 3, "_episode_data": {"policy": "a"}}
    with (
        open_writer(tmp_path / "data", "lance") as writer,
        pytest.raises(ContractError, match=r"\['policy'\] are taken"),
    ):
        writer.write_episode(episode)
    assert not (tmp_path / "data.lance").exists()


def test_names_of_side_tables_are_guarded(tmp_path):
    write(tmp_path / "x_episodes", "lance", [make_episode(0)])
    with pytest.raises(ContractError, match="would belong to"):
        open_writer(tmp_path / "x.lance")
    write(tmp_path / "y", "lance", [make_episode(0)])
    with pytest.raises(ContractError, match="belongs to another dataset"):
        open_writer(tmp_path / "y_episodes.lance")
    assert load_dataset(tmp_path / "x_episodes.lance").num_episodes == 1


def test_what_is_no_table_is_left_alone(tmp_path):
    (tmp_path / "data.lance").mkdir()
    (tmp_path / "data.lance" / "notes.txt").write_text("mine")
    with pytest.raises(ContractError, match="exists and is no Lance table"):
        open_writer(tmp_path / "data", "lance")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ContractError, match="is no dataset of format 'lance_video'"):
        open_writer(tmp_path / "other", "lance_video")
    write(tmp_path / "full", "lance_video", [make_episode(0)])
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ContractError, match=r"also holds \['notes.txt'\], which would be lost"):
        open_writer(tmp_path / "full", "lance_video", "overwrite")
    assert len(list(tmp_path.rglob("notes.txt"))) == 3


def test_channels_first_images_are_turned(tmp_path):
    episode = make_views(0)
    turned = {**episode, "pixels": np.moveaxis(episode["pixels"], -1, 1)}
    assert_read(write(tmp_path / "data", "lance", [turned]), [episode])


# -- modes -------------------------------------------------------------------------------------------------------------


def test_append_continues_and_error_refuses(tmp_path, format):
    path = tmp_path / "data"
    write(path, format, [make_views(0)], metadata={"env": "a"})
    ds = write(path, format, [make_views(1), make_views(2)])
    assert_read(ds, [make_views(k) for k in range(3)])
    assert ds.metadata == {"env": "a"}
    with pytest.raises(FileExistsError):
        open_writer(path, format, "error")
    assert load_dataset(path).num_episodes == 3


def test_overwrite_leaves_the_old_until_it_is_closed(tmp_path, format):
    path = tmp_path / "data"
    with_data = [make_views(k) | {"_episode_data": {"k": k}} for k in range(3)]
    write(path, format, with_data, commit_every=1)
    new = [{name: values for name, values in make_views(7).items() if name not in ("goal", "policy")}]
    old = load_dataset(path, cache="none")
    with pytest.raises(ZeroDivisionError), open_writer(path, format, "overwrite") as writer:
        writer.write_episodes(new[k] if k < 1 else 1 / 0 for k in range(2))
    assert load_dataset(path).num_episodes == 3
    with open_writer(path, format, "overwrite", metadata={"second": 2}) as writer:
        writer.write_episodes(new)
        assert load_dataset(path).get_episode_data()["k"] == [0, 1, 2]
    ds = load_dataset(path)
    assert_read(ds, new)
    assert ds.metadata == {"second": 2}
    assert ds.episode_column_names == ()
    assert verify(path, deep=True).checked == 1
    assert np.abs(old.get_row_data(0)["pixels"].astype(int) - with_data[0]["pixels"][0]).mean() < 4  # still mapped
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")) == []
    write(path, format, [{name: values for name, values in make_views(8).items() if name in new[0]}])
    assert load_dataset(path).num_episodes == 2


def test_second_writer_is_refused(tmp_path, format):
    with open_writer(tmp_path / "data", format) as writer:
        writer.write_episode(make_views(0))
        with pytest.raises(DatasetLockedError):
            open_writer(tmp_path / "data", format)
    open_writer(tmp_path / "data", format).close()


def test_exception_in_the_block_keeps_complete_episodes(tmp_path, format):
    with pytest.raises(ZeroDivisionError), open_writer(tmp_path / "data", format) as writer:
        writer.write_episodes(make_views(k) if k < 2 else 1 / 0 for k in range(3))
    assert load_dataset(tmp_path / "data").num_episodes == 2
    assert table_of(tmp_path / "data").count_rows() == load_dataset(tmp_path / "data").num_rows


def test_error_after_the_first_episode_was_published_loses_nothing(tmp_path, monkeypatch):
    from stable_worldmodel.data.formats.lance import writer as module

    opened = module._recovered
    with open_writer(tmp_path / "data", "lance") as writer:
        monkeypatch.setattr(module, "_recovered", lambda location: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.write_episode(make_views(0))
        monkeypatch.setattr(module, "_recovered", opened)
        writer.write_episode(make_views(1))
    assert_read(load_dataset(tmp_path / "data"), [make_views(0), make_views(1)])


def test_a_table_that_cannot_be_written_leaves_episodes_in_the_log(tmp_path, format, monkeypatch, caplog):
    from stable_worldmodel.data.formats.lance import tables

    append, calls = tables.append, []

    def failing(path, schema, batches):
        calls.append(path.name)
        if len(calls) in (2, 5):
            raise ContractError("No space left")
        append(path, schema, batches)

    path = tmp_path / "data"
    with open_writer(path, format, commit_every=2) as writer:
        writer.write_episode(make_views(0))
        monkeypatch.setattr(tables, "append", failing)
        with caplog.at_level(logging.WARNING):
            for k in range(1, 8):
                writer.write_episode(make_views(k))
                assert load_dataset(path).num_episodes == k + 1
        assert "stay in the log for now: No space left" in caplog.text
        monkeypatch.setattr(tables, "append", append)
    assert_read(load_dataset(path), [make_views(k) for k in range(8)])
    assert table_of(path, "_episodes").count_rows() == 8
    assert verify(path, deep=True).ok


def test_file_that_the_disk_cuts_off_is_noticed(tmp_path, monkeypatch):
    """pylance ignores that the end of a small file cannot be written."""
    write_fragments = lance.fragment.write_fragments

    def cut(rows, target, **options):
        fragments = write_fragments(rows, target, **options)
        file = max(tmp_path.rglob("*.lance"), key=lambda path: path.stat().st_mtime_ns * path.is_file())
        file.write_bytes(file.read_bytes()[:-100])
        return fragments

    with open_writer(tmp_path / "data", "lance") as writer:
        monkeypatch.setattr(lance.fragment, "write_fragments", cut)
        with pytest.raises(OSError, match=r"\d+ of \d+ bytes could be written"):
            writer.write_episode(make_views(0))
        assert not (tmp_path / "data.lance").exists()
        monkeypatch.undo()
        writer.write_episode(make_views(0))
    assert_read(load_dataset(tmp_path / "data"), [make_views(0)])


def test_many_small_commits_are_joined(tmp_path, format):
    path = tmp_path / "data"
    ds = write(path, format, [make_views(k, rows=5) for k in range(18)], commit_every=1)
    assert len(table_of(path).get_fragments()) == 1
    assert_read(ds, [make_views(k, rows=5) for k in range(18)])
    first = write(tmp_path / "whole", format, [make_views(k, rows=5) for k in range(18)])
    for name in ds.column_names:
        np.testing.assert_array_equal(
            np.concatenate(list(ds.iter_frames(name))), np.concatenate(list(first.iter_frames(name))), err_msg=name
        )


def test_long_and_wide_episodes_are_cut_into_small_batches(tmp_path):
    """Large batches of wide rows once made readers of tables with a short episode first hang."""
    episodes = [
        {"reward": np.zeros(rows, np.float32), "field": np.full((rows, 30_000), rows, np.float32)}
        for rows in (2, 300, 150)
    ]
    ds = write(tmp_path / "data", "lance", episodes)
    sizes = [batch.num_rows for batch in table_of(tmp_path / "data").to_batches()]
    assert sum(sizes) == 452
    assert ds.get_row_data(451)["field"].tolist() == [150.0] * 30_000
    assert [ds.get_row_data(row)["field"][7] for row in (0, 2, 301, 302)] == [2, 300, 300, 150]


def test_options_are_checked(tmp_path):
    for options, message in [
        ({"quality": 0}, "quality=0"),
        ({"commit_every": 0}, "commit_every=0"),
        ({"unique_columns": "goal"}, "expected names or patterns"),
    ]:
        with pytest.raises(ContractError, match=message):
            open_writer(tmp_path / "data", "lance", **options)
    with pytest.raises(ContractError, match="fps and gop >= 1"):
        open_writer(tmp_path / "data", "lance_video", gop=0)
    assert not list(tmp_path.iterdir())


def test_journal_describes_every_episode(tmp_path, format):
    write(tmp_path / "data", format, [make_views(k) for k in range(3)], metadata={"env": "x"})
    name = "data.lance.journal" if format == "lance" else "data.journal"
    lines = [json.loads(line.rpartition("\t")[0]) for line in (tmp_path / name).read_text().splitlines()]
    assert lines[0]["metadata"] == {"env": "x"}
    assert [(line["i"], line["len"], line["seed"]) for line in lines[1:]] == [
        (k, len(make_views(k)["reward"]), 1000 + k) for k in range(3)
    ]
    assert set(lines[1]["crc32"]) == set(make_views(0))
