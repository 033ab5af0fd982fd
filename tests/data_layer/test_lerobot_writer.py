"""What the LeRobot writer puts on disk: rules of the format, statistics, tasks, options; checking and repairing it."""

import itertools
import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from directory_episodes import make_views
from episode_factory import assert_same_episode, make_episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stable_worldmodel.data import convert, load_dataset, lock, merge, open_writer, verify
from stable_worldmodel.data.columns import Column
from stable_worldmodel.data.formats.lerobot.mapping import link_columns
from stable_worldmodel.errors import ContractError

EPISODES = 5


def write(path, episodes, **options):
    with open_writer(path, "lerobot", **options) as writer:
        writer.write_episodes(episodes)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "set", (make_views(k) for k in range(EPISODES)))


def info_of(path):
    return json.loads((path / "meta/info.json").read_text())


def rows_of(path):
    """All rows of the data files in order, by feature."""
    tables = [pq.read_table(file) for file in sorted((path / "data").rglob("*.parquet"))]
    return {name: np.array([v for t in tables for v in t[name].to_pylist()]) for name in tables[0].column_names}


def episodes_of(path):
    files = sorted((path / "meta/episodes").rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def check_format(path):
    """The rules of version 3.0, told from the files alone."""
    info, rows, episodes = info_of(path), rows_of(path), episodes_of(path)
    features, fps = info["features"], info["fps"]
    lengths = [episode["length"] for episode in episodes]
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"]) == (len(episodes), sum(lengths))
    assert info["splits"] == {"train": f"0:{len(episodes)}"}
    for name, feature in features.items():
        assert "/" not in name
        assert (name in rows) == (feature["dtype"] != "video")
        if feature["dtype"] not in ("video", "image", "string") and feature["shape"] != [1]:
            assert list(rows[name].shape[1:]) == feature["shape"]
    steps = np.concatenate([np.arange(n) for n in lengths])
    np.testing.assert_array_equal(rows["frame_index"], steps)
    np.testing.assert_array_equal(rows["timestamp"], (steps / fps).astype(np.float32))
    np.testing.assert_array_equal(rows["episode_index"], np.repeat(np.arange(len(lengths)), lengths))
    np.testing.assert_array_equal(rows["index"], np.arange(sum(lengths)))
    tasks = pq.read_table(path / "meta/tasks.parquet")
    assert tasks["task_index"].to_pylist() == [*range(info["total_tasks"])]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    texts = tasks["task"].to_pylist()
    for i, (episode, start) in enumerate(zip(episodes, np.cumsum([0, *lengths]), strict=False)):
        assert episode["episode_index"] == i
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (start, start + lengths[i])
        numbers = rows["task_index"][start : start + lengths[i]]
        assert set(episode["tasks"]) == {texts[number] for number in numbers}
        place = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        table = pq.read_table(path / info["data_path"].format(**place))
        assert table["index"].to_pylist() == [*range(start, start + lengths[i])]
        assert set(json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]) == set(table.column_names)
        for name in (name for name in features if features[name]["dtype"] == "video"):
            place = {key: episode[f"videos/{name}/{key}"] for key in ("chunk_index", "file_index")}
            assert (path / info["video_path"].format(video_key=name, **place)).is_file()
            assert episode[f"videos/{name}/from_timestamp"] == 0
            assert episode[f"videos/{name}/to_timestamp"] == lengths[i] / fps
            assert features[name]["info"]["video.fps"] == fps
    return info, rows, episodes


def test_written_sets_keep_the_rules_of_the_format(path):
    info, rows, _ = check_format(path)
    assert info["fps"] == 10
    assert {name: info["features"][name]["dtype"] for name in ("observation.image", "observation.goal")} == {
        "observation.image": "video",
        "observation.goal": "video",
    }
    ends = np.cumsum(load_dataset(path).lengths) - 1
    np.testing.assert_array_equal(np.flatnonzero(rows["is_terminal_obs"]), ends)
    assert np.isfinite(rows["action"].astype(float)).all()
    np.testing.assert_array_equal(rows["action"][ends], rows["action"][ends - 1])
    assert np.isfinite(rows["next.reward"]).all()
    np.testing.assert_array_equal(np.flatnonzero(rows["next.done"]), ends - 1)
    np.testing.assert_array_equal(rows["next.reward"][:5], make_views(0)["reward"][1:6])
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["set", "set.journal"]


def test_more_episodes_than_fit_into_one_table(tmp_path):
    path = write(tmp_path / "set", ({"x": np.arange(2.0) + k} for k in range(150)))
    check_format(path)
    assert len([*(path / "meta/episodes").rglob("*.parquet")]) == 3
    write(path, ({"x": np.arange(2.0) + k} for k in range(150, 160)))
    check_format(path)
    assert load_dataset(path).get_col_data("x").tolist() == [float(k + i) for k in range(160) for i in range(2)]
    assert verify(path, deep=True).checked == 160


def test_statistics_are_those_of_numpy_in_float64(path):
    _, rows, episodes = check_format(path)
    stats = json.loads((path / "meta/stats.json").read_text())
    numeric = [name for name in rows if rows[name].dtype.kind in "biuf" and name in stats]
    assert {"action", "next.reward", "observation.grid", "index"} <= set(numeric)
    for name in numeric:
        parts = [rows[name][e["dataset_from_index"] : e["dataset_to_index"]] for e in episodes]
        found = [{key: e[f"stats/{name}/{key}"] for key in stats[name]} for e in episodes]
        for values, told in [(rows[name], stats[name]), *zip(parts, found, strict=True)]:
            values = values.astype(np.float64)
            expected = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
            expected |= {"count": len(values), "q01": np.quantile(values, 0.01, 0), "q90": np.quantile(values, 0.9, 0)}
            for key, value in expected.items():
                shape = (1,) if key == "count" else values.shape[1:] or (1,)
                assert np.shape(told[key]) == shape, (name, key)
                np.testing.assert_allclose(np.array(told[key], float).reshape(np.shape(value)), value, 1e-9, 1e-12)
    frames = np.concatenate([make_views(k)["pixels"] for k in range(EPISODES)]) / 255
    told = stats["observation.image"]
    assert np.shape(told["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(told["mean"]), frames.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(told["std"]), frames.std(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(told["max"]), frames.max(axis=(0, 1, 2)))


def test_tasks_are_texts_that_may_change_within_an_episode(tmp_path):
    texts = [["push", "push", "pull"], ["wait", "push", "push"]]
    path = write(tmp_path / "set", ({"x": np.arange(3.0), "task": text} for text in texts))
    info, _, episodes = check_format(path)
    assert info["total_tasks"] == 3
    assert [episode["tasks"] for episode in episodes] == [["push", "pull"], ["wait", "push"]]
    ds = load_dataset(path)
    assert ds.tasks == ["push", "pull", "wait"]
    assert ds.get_col_data("task").tolist() == [*itertools.chain(*texts)]
    plain = write(tmp_path / "plain", [{"x": np.arange(2.0)}], task="walk", fps=25, robot_type="so100")
    assert load_dataset(plain).column_names == ["x"]
    assert (info_of(plain)["fps"], info_of(plain)["robot_type"], episodes_of(plain)[0]["tasks"]) == (
        25,
        "so100",
        ["walk"],
    )


def test_frame_rate_comes_from_the_metadata(tmp_path):
    assert info_of(write(tmp_path / "set", [{"x": [1.0]}], metadata={"render_fps": 30}))["fps"] == 30
    with pytest.raises(ContractError, match="fps=0"):
        open_writer(tmp_path / "other", "lerobot", fps=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_stills_are_exact(tmp_path, channels):
    rng = np.random.default_rng(0)
    episodes = [{"pixels": rng.integers(0, 256, (n, 16, 24, channels), np.uint8)} for n in (3, 5)]
    path = write(tmp_path / "set", episodes, use_videos=False)
    info, _, _ = check_format(path)
    assert info["video_path"] is None
    ds = load_dataset(path, cache="none")
    for found, expected in zip(ds.iter_episodes(), episodes, strict=True):
        np.testing.assert_array_equal(found["pixels"], expected["pixels"])
    mixed = ds.get_row_data([7, 0, 7, 3])["pixels"]
    np.testing.assert_array_equal(mixed, np.concatenate([e["pixels"] for e in episodes])[[7, 0, 7, 3]])
    assert verify(path, deep=True).checked == 2


def test_last_row_can_be_left_out(tmp_path):
    path = write(tmp_path / "set", (make_views(k) for k in range(3)), keep_last=False)
    write(path, [make_views(3)])
    info, rows, _ = check_format(path)
    assert "is_terminal_obs" not in info["features"]
    ds = load_dataset(path)
    assert not ds.has_terminal_row
    assert verify(path, deep=True).checked == 4
    for k in range(4):
        found, expected = ds.read_rows(k, 0, int(ds.lengths[k])), make_views(k)
        n = len(expected["reward"]) - 1
        np.testing.assert_array_equal(found["action"], expected["action"][:n])
        np.testing.assert_array_equal(found["reward"], expected["reward"][:n])
        np.testing.assert_array_equal(found["next.reward"], expected["reward"][1:])
        assert found["next.terminated"].tolist() == expected["terminated"][1:].tolist()
    assert np.isfinite(rows["next.reward"]).all()
    with open_writer(path, "lerobot") as writer, pytest.raises(ContractError, match="nothing to store"):
        writer.write_episode({name: values[-1:] for name, values in make_views(0).items()})


def test_names_of_columns_become_features():
    image, number, text = (
        Column(np.dtype(np.uint8), (8, 8, 3), "image"),
        Column(np.dtype(np.float32), (2,), "number"),
        Column(np.dtype(object), (), "text"),
    )
    columns = {
        "pixels": image, "pixels_wrist": image, "pixels.wrist": image, "goal": image, "proprio": number,
        "agent_pos": number, "state": number, "action": number, "reward": number, "success": number, "extra": number,
        "variation.size": number, "index": number, "policy": text, "task": text, "next.reward": number,
    }  # fmt: skip
    features = {name: link.feature for name, link in link_columns(columns).items()}
    assert features == {
        "pixels": "observation.image",
        "pixels.wrist": "observation.images.wrist",
        "pixels_wrist": "observation.pixels_wrist",
        "goal": "observation.goal",
        "proprio": "observation.state",
        "agent_pos": "observation.agent_pos",
        "state": "observation.environment_state",
        "action": "action",
        "next.reward": "next.reward",
        "reward": "observation.reward",
        "success": "next.success",
        "extra": "observation.extra",
        "variation.size": "variation.size",
        "index": "observation.index",
        "policy": "policy",
        "task": "task",
    }


def test_episode_data_is_kept(tmp_path):
    constants = [{"name": f"é{k}", "count": k, "good": k > 0, "gain": 0.5 * k, "grid": np.eye(2) * k} for k in range(3)]
    path = write(tmp_path / "set", ({"x": np.arange(3.0), "_episode_data": data} for data in constants))
    ds = load_dataset(path)
    assert sorted(ds.episode_column_names) == ["count", "gain", "good", "grid", "name"]
    for k in range(3):
        found = {name: values[0] for name, values in ds.get_episode_data([k]).items()}
        np.testing.assert_array_equal(found.pop("grid"), constants[k]["grid"])
        assert found == {name: value for name, value in constants[k].items() if name != "grid"}
    with open_writer(path, "lerobot") as writer:
        for bad in ({}, {**constants[0], "more": 1}, {**constants[0], "grid": np.eye(3)}):
            with pytest.raises(ContractError, match="per-episode data"):
                writer.write_episode({"x": np.arange(3.0), "_episode_data": bad})
    copy = convert(path, tmp_path / "copy.lance", dest_format="lance", progress=False)
    assert load_dataset(copy).get_episode_data()["name"] == ["é0", "é1", "é2"]


def test_datasets_travel_through_lerobot_unchanged(tmp_path):
    with open_writer(tmp_path / "a.h5") as writer:
        writer.write_episodes(make_episode(k) for k in range(3))
    convert(tmp_path / "a.h5", tmp_path / "b", dest_format="lerobot", use_videos=False, progress=False)
    convert(tmp_path / "b", tmp_path / "c.h5", progress=False)
    for k, found in enumerate(load_dataset(tmp_path / "c.h5").iter_episodes()):
        assert_same_episode(found, make_episode(k))
    merge([tmp_path / "b", tmp_path / "b"], tmp_path / "d", dest_format="lerobot", progress=False)
    _, rows, _ = check_format(tmp_path / "d")
    assert load_dataset(tmp_path / "d").num_episodes == 6
    assert len(rows["index"]) == 2 * len(rows_of(tmp_path / "b")["index"])


NUMBERS = st.sampled_from([np.bool_, np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float32, np.float64])
NAMES = st.sampled_from(["action", "reward", "terminated", "truncated", "state", "task", "index", "x", "next.done"])


@st.composite
def streams(draw):
    """One to three episodes with the same columns, of which some end without an action or begin without a reward."""
    shapes = draw(st.dictionaries(NAMES, st.tuples(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=2)), min_size=1))
    episodes = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 4))
        episode = {name: draw(hnp.arrays(dtype, (rows, *shape))) for name, (dtype, shape) in shapes.items()}
        for name, row in (("action", -1), ("reward", 0)):
            if name in episode and draw(st.booleans()):
                kind = episode[name].dtype
                if kind.kind == "f":
                    episode[name][row] = np.nan
                elif kind == np.int64:
                    episode[name][row] = np.iinfo(np.int64).min
        episodes.append(episode)
    return episodes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_any_rows_come_back_as_they_were(tmp_path_factory, episodes):
    path = write(tmp_path_factory.mktemp("any") / "set", episodes)
    assert verify(path, deep=True).checked == len(episodes)
    for found, expected in zip(load_dataset(path, cache="none").iter_episodes(), episodes, strict=True):
        assert_same_episode(found, expected)


# -- checking and repairing -------------------------------------------------------------------------------------------


def assert_repaired(path, episodes):
    report = verify(path, deep=True, repair=True)
    assert (report.ok, report.repaired_to) == (False, episodes), report.faults
    check_format(path)
    write(path, (make_views(k) for k in range(episodes, EPISODES)))
    report = verify(path, deep=True)
    assert (report.ok, report.checked) == (True, EPISODES), report.faults
    check_format(path)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["set", "set.journal"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "exchanged"])
@pytest.mark.parametrize(
    "file", ["data/chunk-000/file-{:03d}.parquet", "videos/observation.image/chunk-000/file-{:03d}.mp4"]
)
def test_damage_is_named_and_cut_off(path, file, damage):
    bad = path / file.format(3)
    if damage == "flipped":
        data = bytearray(bad.read_bytes())
        data[300] ^= 4
        bad.write_bytes(data)
    elif damage == "truncated":
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    elif damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes((path / file.format(1)).read_bytes())
    if damage != "exchanged" or "data" in file:
        with pytest.raises(ContractError, match=bad.name):
            load_dataset(path, cache="none").read_rows(3, 0, 3)
    assert_repaired(path, 3)


@pytest.mark.parametrize("file", ["meta/stats.json", "meta/info.json", "meta/tasks.parquet"])
def test_what_rows_do_not_depend_on_is_written_anew(path, file):
    if file != "meta/info.json":
        (path / file).write_text("{")
    else:
        (path / file).write_text((path / file).read_text().replace('"chunks_size": 1000', '"chunks_size": 1001'))
    if file != "meta/tasks.parquet":
        assert load_dataset(path).num_episodes == EPISODES
    assert file in verify(path).faults[0]
    assert_repaired(path, EPISODES)


def test_lost_episodes_are_missed(path):
    info = info_of(path)
    (path / "meta/info.json").write_text(json.dumps({**info, "total_episodes": 3}))
    with pytest.raises(ContractError, match=r"episodes 3 to 4 were recorded and are not there.*repair=True"):
        load_dataset(path)


def test_leftovers_of_a_killed_writer_are_ignored_and_removed(path, tmp_path):
    before = [*load_dataset(path).iter_episodes()]
    (path / "data/chunk-000/file-005.parquet").write_bytes(b"torn")
    (path / "videos/observation.image/chunk-000/file-005.mp4").write_bytes(b"torn")
    lock.mark_dead(path)
    for found, expected in zip(load_dataset(path).iter_episodes(), before, strict=True):
        assert_same_episode(found, {name: np.asarray(values) for name, values in expected.items()})
    open_writer(path).close()
    check_format(path)
    assert len([*path.rglob("file-005.*")]) == 0


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_random_damage_gives_an_error_that_names_it_or_a_correct_read(path, count):
    rng = random.Random(count)
    clean = [*load_dataset(path, cache="none").iter_episodes()]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    errors = 0
    for _ in range(count):
        file = rng.choice(files)
        original = file.read_bytes()
        data = bytearray(original[: rng.randrange(len(original))] if rng.random() < 0.5 else original)
        if len(data) == len(original):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        errors += read_everything(path, clean) == "error"
        file.write_bytes(original)
    assert errors > count / 4


def read_everything(path, clean):
    """`read` when all episodes are as they were, `error` when a ContractError names the dataset; fails otherwise."""
    try:
        found = [*load_dataset(path, cache="none").iter_episodes()]
    except ContractError as error:
        described = str(error)
    else:
        for episode, expected in zip(found, clean, strict=True):
            assert_same_episode(episode, expected)
        return "read"
    assert str(path) in described
    return "error"
